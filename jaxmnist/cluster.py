"""The programs of a sweep as tasks of Ray: on many machines, each retried where its worker dies.

Runs need nothing from each other, so a task is one program, and what a task returns does not depend on where it ran.
"""

import contextlib
import importlib.util
import socket
from collections.abc import Iterable, Iterator

import jax

from jaxmnist import arguments, planning, programs
from jaxmnist.checking import Job
from jaxmnist.data import Dataset
from jaxmnist.sweep_folder import Outcome

MAX_RETRIES = 5
PROBE_TIMEOUT_S = 3.0
LOCAL = "local"


def check_installed() -> None:
    """Raises ValueError where Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("ray is not installed; install it by pip install 'jaxmnist[distributed]'")


def run(
    job: Job, dataset: Dataset, waiting: Iterable[tuple[int, planning.Program]], address: str
) -> Iterator[tuple[int, Outcome]]:
    """Yields the number and the results of each program, as they finish.

    Each machine works on one program at a time, with all of its devices.

    Args:
      job: the sweep.
      dataset: is sent to each machine once.
      waiting: programs and their numbers.
      address: of a Ray cluster, or `"local"` to start one on this machine for as long as the sweep runs.

    Raises:
      ValueError: Ray is missing, or there is no cluster at that address.
    """
    check_installed()
    import ray

    was_running = ray.is_initialized()
    if not was_running:
        _connect(address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (min(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=MAX_RETRIES)(_train)
        # The plan is made for as many cores as this process has devices.
        shared = ray.put(job), ray.put(dataset), len(jax.local_devices(backend="cpu"))
        numbers = {task.remote(*shared, program): index for index, program in waiting}
        while numbers:
            done, _ = ray.wait(list(numbers), num_returns=1)
            yield numbers.pop(done[0]), ray.get(done[0])
    finally:
        if not was_running:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        # Ray itself would try for minutes.
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=PROBE_TIMEOUT_S).close()
        except OSError as error:
            raise ValueError(f"cluster {address!r} cannot be reached: {error}") from None
    options: dict = {"address": address}
    if address == LOCAL:
        # The loopback address: a machine may have no other that reaches itself.
        options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(**options, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(f"cluster {address!r} cannot be reached: {arguments.reason(error)}") from None


def _train(job: Job, dataset: Dataset, num_devices: int, program: planning.Program) -> Outcome:
    from jaxmnist.sweep import put, run_program

    # A worker that has trained a program before has its devices.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", num_devices)
    mesh = programs.local_mesh()
    return run_program(job, program, put(mesh, dataset), mesh)

"""The programs of a sweep as tasks of Ray: on many machines, each retried if its worker dies.

Runs are independent, so each task is one program, and its results do not depend on where it ran.
"""

import contextlib
import importlib.util
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxmnist import checks
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.configure import precision
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.job import Job

MAX_RETRIES = 5
PROBE_TIMEOUT_S = 3.0
LOCAL = "local"


def check_installed() -> None:
    """Raises ValueError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("ray is not installed; install it by pip install 'jaxmnist[distributed]'")


def run(job: Job, waiting: Iterable[tuple[int, planning.Program]], address: str) -> Iterator[tuple[int, Outcome]]:
    """Yields the number and the results of each program, as they finish.

    Each task asks for the devices that `task_resources` returns.

    Args:
      job: the sweep, sent to each machine once, together with its data.
      waiting: programs to train, with their numbers.
      address: that of a Ray cluster, or `"local"` to start one on this machine for as long as the sweep runs.

    Raises:
      ValueError: there is no cluster at that address, or its nodes have no devices.
    """
    import ray

    was_running = ray.is_initialized()
    if not was_running:
        _connect(address)
    try:
        cpus, gpus = task_resources(ray.nodes())
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=MAX_RETRIES)(_train)
        # The plan is made for as many cores as this process has devices.
        shared = ray.put(job), len(jax.local_devices(backend="cpu"))
        running = {task.remote(*shared, program): index for index, program in waiting}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done[0]), ray.get(done[0])
    finally:
        if not was_running:
            ray.shutdown()


def task_resources(nodes: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Returns the number of CPUs and of GPUs that each task asks for: all those of one node.

    If all nodes are alike, each works on one program at a time, with all of its devices. In a mixed cluster, tasks
    ask for the node with the fewest GPUs, and of several such nodes the one with the fewest CPUs. A node with several
    times as many devices then works on several programs at once; one with more GPUs but fewer CPUs works on
    none. If some nodes have GPUs, those without take no part. Neither do nodes without any device, as the head of a
    cluster often is.

    Args:
      nodes: as `ray.nodes` describes them.

    Raises:
      ValueError: no node that is alive has a CPU or a GPU.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    devices = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]
    usable = [node for node in devices if node[1]] or [node for node in devices if node[0]]
    if not usable:
        raise ValueError(f"cluster has no CPU and no GPU (nodes alive: {len(alive)}); a node with one is needed")
    return min(usable, key=lambda node: (node[1], node[0]))


def _connect(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        # Ray itself would keep trying for minutes.
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=PROBE_TIMEOUT_S).close()
        except OSError as error:
            raise ValueError(f"cluster {address!r} cannot be reached: {error}") from None
    options: dict = {"address": address}
    if address == LOCAL:
        # The loopback address, because a machine may be unable to reach itself by any other.
        options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(**options, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(f"cluster {address!r} cannot be reached: {checks.reason(error)}") from None


def _train(job: Job, num_devices: int, program: planning.Program) -> Outcome:
    from jaxmnist.sweeps.running import put, run_program

    # If this worker has trained a program before, its devices are already set up.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", num_devices)
    mesh = programs.local_mesh()
    with precision(job.setup):
        return run_program(job, program, put(mesh, job.dataset), mesh)

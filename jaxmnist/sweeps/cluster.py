"""The programs of a sweep as tasks of Ray: on many machines, each retried if its worker dies.

Runs are independent, so each task is one program, and its results do not depend on where it ran.
"""

import contextlib
import importlib.util
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmnist import checks
from jaxmnist.sweeps import planning, worker
from jaxmnist.sweeps.dispatch import ClusterError, Dispatcher, PackageMissingError, Report, Task
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.nodes import Demand, Node, shares_gpus

MAX_RETRIES = 5
PROBE_TIMEOUT_S, NEWS_TIMEOUT_S = 3.0, 1.0
LOCAL = "local"


class Place(NamedTuple):
    """Where programs are trained.

    Attributes:
      address: that of a Ray cluster, or `"local"` to start one on this machine for as long as the sweep runs.
      resources: what each task asks for; None for the devices of a node.
    """

    address: str
    resources: Mapping[str, float] | None = None


def check_installed() -> None:
    """Raises ValueError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("ray is not installed; install it by pip install 'jaxmnist[distributed]'")


def run(
    job: Job, waiting: Sequence[tuple[int, planning.Program]], place: Place, report: Report
) -> Iterator[dict[int, Outcome]]:
    """Yields the results of programs by their numbers, as they finish.

    Args:
      job: the sweep, sent to each node once, together with its data.
      waiting: programs to train, with their numbers.
      place: where to train them.
      report: called with how far the programs are.

    Raises:
      ValueError: there is no cluster at that address, or its nodes have no devices.
      ClusterError: the cluster was lost, or a task failed.
    """
    import ray

    was_running = ray.is_initialized()
    left = dict(waiting)
    try:
        for sends_package in (False, True):
            if not was_running:
                _connect(place.address, sends_package)
            try:
                cluster = RayCluster(job, place.address)
                for finished in Dispatcher(cluster, list(left.items()), place.resources, report).results():
                    left = {index: program for index, program in left.items() if index not in finished}
                    yield finished
                return
            except PackageMissingError as error:
                # Ray sends a package by a new connection only.
                if was_running or sends_package:
                    raise ClusterError(f"{error}; install it, or send it by ray.init's py_modules") from None
                ray.shutdown()
    finally:
        if not was_running:
            ray.shutdown()


class RayCluster:
    """A cluster of Ray, to which this process is connected, as a `dispatch.Cluster`."""

    def __init__(self, job: Job, address: str):
        import ray

        self._address = address
        self._nodes: Sequence[Node] = []
        context = ray.get_runtime_context()
        # A client of Ray's reaches the cluster by a server of its own, and notices by itself if that is lost.
        self._head = None if ray.util.client.ray.is_connected() else context.gcs_address
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(context.get_node_id(), soft=True)
        self._board = ray.remote(num_cpus=0, scheduling_strategy=here)(worker.make_board()).remote()
        # The plan is made for as many cores as this process has devices.
        num_devices = len(jax.local_devices(backend="cpu"))
        self._shared = ray.put(([ray.put(job)], self._board, num_devices, worker.versions()))
        self._shares: dict[Demand, bool] = {}
        # Ray takes what is made anew for another function, whose tasks no worker is ready for.
        self._functions: dict[tuple[Demand, bool], Any] = {}

    def nodes(self) -> Sequence[Node]:
        """Returns the nodes; ClusterError if the head is lost."""
        import ray

        with self._noticing_loss():
            self._check_head()
            self._nodes, self._shares = ray.nodes(), {}
        return self._nodes

    def submit(self, task: Task) -> Any:
        """Returns a reference to the reply of a task."""
        if task.demand not in self._shares:
            self._shares[task.demand] = shares_gpus(task.demand, self._nodes)
        key = task.demand, self._shares[task.demand]
        if key not in self._functions:
            self._functions[key] = _remote(*key)
        with self._noticing_loss():
            return self._functions[key].remote(self._shared, task.number, tuple(task.program))

    def replies(self, references: Sequence[Any], seconds: float) -> Mapping[Any, worker.Reply]:
        """Returns all replies that come in within some seconds, or sooner if that is all of them."""
        import ray

        with self._noticing_loss():
            self._check_head()
            ready, _ = ray.wait(references, num_returns=len(references), timeout=seconds)
            return {reference: _reply(reference) for reference in ready}

    def withdraw(self, references: Sequence[Any]) -> None:
        """Ends tasks whose replies are not needed, as far as the cluster can still be reached."""
        import ray

        with contextlib.suppress(OSError, ray.exceptions.RayError):
            self._check_head()
            for reference in references:
                ray.cancel(reference)

    def news(self) -> Mapping[int, tuple[str, int]]:
        """Returns the node and the step of each program that has told them since the last call."""
        import ray

        try:
            return ray.get(self._board.read.remote(), timeout=NEWS_TIMEOUT_S)
        except (OSError, ray.exceptions.RayError):
            return {}

    def _check_head(self) -> None:
        """Raises OSError if the head cannot be reached; Ray would try for a minute, and then end this process."""
        if self._head is not None:
            _probe(self._head)

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Turns what Ray and sockets raise if the head is lost into one sentence."""
        import ray

        try:
            yield
        except (OSError, ray.exceptions.RaySystemError, ray.exceptions.RpcError) as error:
            raise ClusterError(
                f"cluster {self._address!r} was lost, its head cannot be reached ({checks.reason(error)}); with a "
                "folder, the same call resumes, on this cluster or another"
            ) from None


def _remote(demand: Demand, shares: bool) -> Any:
    """Returns the function of Ray that trains a program.

    Args:
      demand: what it asks of a node.
      shares: whether a node's GPUs are divided among tasks. A process keeps the GPU that it has begun with and would be
        told to use another, so that each task then needs a new one.
    """
    import ray

    amounts = dict(demand)
    options: dict[str, Any] = {"num_cpus": amounts.pop("CPU", 0.0), "num_gpus": amounts.pop("GPU", 0.0)}
    if "memory" in amounts:
        options["memory"] = amounts.pop("memory")
    options |= {"resources": amounts, "max_calls": int(shares), "max_retries": MAX_RETRIES, "name": "train"}
    return ray.remote(**options)(worker.make_task())


def _reply(reference: Any) -> worker.Reply:
    """Returns the reply of a task that has ended, or what Ray says of its end."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return "", None, checks.reason(error)


def _probe(address: str) -> None:
    """Raises OSError if nothing listens at an address."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.rpartition("/")[2], int(port)), timeout=PROBE_TIMEOUT_S).close()


def _connect(address: str, sends_package: bool) -> None:
    import ray

    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        # Ray itself would keep trying for minutes.
        try:
            _probe(address)
        except OSError as error:
            raise ValueError(f"cluster {address!r} cannot be reached: {error}") from None
    options: dict = {"address": address}
    if address == LOCAL:
        # The loopback address, because a machine may be unable to reach itself by any other.
        options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
        # A person's own modules lie beside their script, where workers would not look for them.
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
    if sends_package:
        options["runtime_env"] = {"py_modules": [str(Path(checks.__file__).parent)]}
    try:
        ray.init(**options, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(f"cluster {address!r} cannot be reached: {checks.reason(error)}") from None

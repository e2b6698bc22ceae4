"""What a task of a cluster does on its node: it trains one program of a job, which each process receives once.

A node may lack this package. What Ray itself calls, `task` and `Board`, is therefore made within functions: Ray sends
such functions and classes by value, and all others by name.
"""

import contextlib
import functools
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxmnist import checks
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.configure import precision
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.running import Data, Watch, put, run_program

# Those that decide the numbers of a sweep.
PACKAGES = ("jaxmnist", "jax", "jaxlib", "numpy", "flax", "optax")
SECONDS_PER_REPORT = 5.0
# The `NodeID`, the results (None if the task failed), and what went wrong.
Reply = tuple[str, Outcome | None, str]
# As Python says it.
LACKS_PACKAGE = "No module named 'jaxmnist'"


def make_task() -> Callable[..., Reply]:
    """Returns what Ray calls; it runs where this package is missing, and then says so."""

    def task(shared, index, fields):
        try:
            from jaxmnist.sweeps.worker import train
        except ImportError as error:
            import ray

            return ray.get_runtime_context().get_node_id(), None, str(error)
        return train(shared, index, fields)

    return task


def make_board() -> type:
    """Returns the class of the actor that tasks tell how far they are, and that the driver asks now and then."""

    class Board:
        def __init__(self):
            self.news = {}

        def tell(self, index, node, step):
            self.news[index] = node, step

        def read(self):
            news, self.news = self.news, {}
            return news

    return Board


def train(shared: tuple, index: int, fields: tuple) -> Reply:
    """Returns the results of one program, or what went wrong.

    Args:
      shared: what all tasks of a sweep share: a list that holds the reference to the job, the board, the number of CPU
        devices that the plan is made for, and the driver's `versions`. In a list, a reference is not replaced by what
        it refers to, a copy of which would be made for each task.
      index: the program's number.
      fields: those of the program.
    """
    import ray

    (reference,), board, num_devices, expected = shared
    node = ray.get_runtime_context().get_node_id()
    problem = difference(versions(), expected)
    if problem:
        return node, None, problem
    told = -math.inf

    def report(step: int) -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_PER_REPORT:
            told = time.monotonic()
            board.tell.remote(index, node, step)

    report(0)
    try:
        # If this process has trained a program before, its devices are already set up.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)
        job, data, mesh = receive(reference)
        with precision(job.setup):
            return node, run_program(job, planning.Program(*fields), data, mesh, Watch(report)), ""
    except Exception as error:  # whatever a person's functions, XLA and Ray raise
        return node, None, f"{type(error).__name__}: {checks.reason(error)}"


@functools.lru_cache(maxsize=1)
def receive(reference: Any) -> tuple[Job, Data, programs.Mesh]:
    """Returns the job that a reference refers to, with its data on the devices, which `Mesh` describes.

    The functions of a job that is received again are other functions to jax, which compiles each for itself.
    """
    import ray

    job = ray.get(reference)
    mesh = programs.local_mesh()
    with precision(job.setup):
        return job, put(mesh, job.dataset), mesh


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that are installed, by name."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        # A checkout, or what Ray has sent, has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Returns in words which versions a node has that differ from the driver's; empty for none."""
    differing = [name for name in expected if name in found and found[name] != expected[name]]
    if not differing:
        return ""
    here, there = (", ".join(f"{name} {each[name]}" for name in differing) for each in (found, expected))
    return f"it has {here}, and the driver {there}: install the same versions on both"

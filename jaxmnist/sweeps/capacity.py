"""How many runs fit into memory at a time."""

import math
from typing import NamedTuple

import jax
import numpy as np

from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.runs import hyperparameter_names
from jaxmnist.sweeps.sizes import CACHE_BYTES, activation_bytes, activation_room, sizes
from jaxmnist.sweeps.trials import static_values

# States before and after a segment, with gradients and updates in between; measured on CPU.
COPIES_OF_STATES = 3
# On CPU, larger programs are not faster, and smaller ones show their results and save their states sooner.
MAX_STATE_BYTES = 2**24
# This holds for runs with small states too. On a busy machine with 2 cores, 65,536 runs of 416 parameters took 109 to
# 132 s with 4,096 at a time, and 217 s with 32,768 at a time, 47 s of it in the kernel, to get and free memory.
MAX_RUNS = 2**12
# Runs of a group share their batches, and what is computed from these alone.
MIN_GROUP = 16


class Capacity(NamedTuple):
    """How many runs fit into one device's memory.

    Attributes:
      runs: in one program.
      group: in one group of a program, so that the group stays in a CPU's cache.
      num_params: the number of parameters of the largest run.
    """

    runs: int
    group: float
    num_params: int


def capacity(job: Job, memory: float, num_devices: int) -> Capacity:
    """Returns how many runs fit into each device's memory at a time.

    Args:
      job: the sweep, whose whole data set each device holds.
      memory: bytes; of all devices together on CPU, of each device otherwise.
      num_devices: number of devices.

    Raises:
      ValueError: not even a single run fits.
    """
    first = {name: job.arrays[name][0].item() for name in hyperparameter_names(job.arrays)}
    largest = [
        sizes(job.setup, tuple((first | dict(values)).items()), job.example)
        for values in static_values(job.arrays, job.static)
    ]
    per_run, num_params = max(size.state_bytes for size in largest), max(size.num_params for size in largest)
    on_cpu = jax.default_backend() == "cpu"
    data = sum(np.asarray(array).nbytes for split in SPLIT_NAMES for array in getattr(job.dataset, split))
    sharing = num_devices if on_cpu else 1
    fixed = sharing * (data + activation_room(num_devices))
    fitting = int((memory - fixed) / sharing / (COPIES_OF_STATES * per_run))
    if fitting < 1:
        least = math.ceil((fixed + sharing * COPIES_OF_STATES * per_run) / 2**20)
        computed = sharing * activation_room(num_devices) / 2**20
        raise ValueError(
            f"memory is {memory / 2**20:.0f} MiB; this sweep needs at least {least} MiB: the data, one run at a time, "
            f"and {computed:.0f} MiB for what it computes from them"
        )
    if not on_cpu:
        return Capacity(fitting, math.inf, num_params)
    runs = min(fitting, max(MAX_STATE_BYTES // per_run // sharing, 1), MAX_RUNS // sharing)
    return Capacity(runs, _group(job, per_run), num_params)


def _group(job: Job, state_bytes: int) -> int:
    """Returns how many runs of a group stay in a CPU's cache: their states, or what they compute from a batch."""
    # In the order that jax gives them, so that programs find the number known.
    names = sorted(hyperparameter_names(job.arrays))
    activations = max(
        activation_bytes(job.setup, values, tuple(name for name in names if name not in dict(values)), job.example)
        for values in static_values(job.arrays, job.static)
    )
    largest = max(state_bytes, activations * int(np.max(job.arrays["batch_size"])))
    return max(int(CACHE_BYTES // largest), min(CACHE_BYTES // state_bytes, MIN_GROUP), 1)

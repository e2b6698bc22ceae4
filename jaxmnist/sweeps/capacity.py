"""How many runs there is room for."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxmnist.core import optimizers
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset
from jaxmnist.sweeps import programs
from jaxmnist.sweeps.job import Checked, static_values

# States before and after a segment, and gradients and updates between them; measured on CPU.
COPIES_OF_STATES = 3
# On CPU, larger programs are not faster, and smaller ones show their results and save their states sooner.
MAX_STATE_BYTES = 2**24
# Of runs with small states too: on a busy machine with 2 cores, 65,536 runs of 416 parameters took 109 to 132 s at
# 4,096 a time, and 217 s at 32,768 a time, 47 s of it in the kernel, which fetches memory and takes it back.
MAX_RUNS = 2**12


class Room(NamedTuple):
    """How many runs there is room for on one device.

    Attributes:
      runs: in one program.
      group: in one group of it, so that they stay in a CPU's cache.
      num_params: of the largest run.
    """

    runs: int
    group: float
    num_params: int


def find_room(
    model: nn.Module,
    optimizer: optimizers.OptimizerFactory,
    checked: Checked,
    dataset: Dataset,
    memory: float,
    num_devices: int,
) -> Room:
    """Returns for how many runs at a time each device has room.

    Args:
      model: as `sweep`.
      optimizer: as `sweep`.
      checked: the runs.
      dataset: as `sweep`; the devices hold all of it.
      memory: bytes, of all devices together on CPU, of each one elsewhere.
      num_devices: how many there are.

    Raises:
      ValueError: there is no room for a single run.
    """
    first = {name: values[0].item() for name, values in checked.arrays.items() if name not in ("batch_size", "seed")}
    image_shape = dataset.train.images.shape[1:]
    largest = [
        programs.sizes(model, optimizer, tuple((first | dict(values)).items()), image_shape)
        for values in static_values(checked.arrays, checked.static)
    ]
    per_run, num_params = max(size.state_bytes for size in largest), max(size.num_params for size in largest)
    on_cpu = jax.default_backend() == "cpu"
    data = sum(np.asarray(array).nbytes for split in SPLIT_NAMES for array in getattr(dataset, split))
    sharing = num_devices if on_cpu else 1
    fixed = sharing * (data + programs.activation_room(num_devices))
    room = int((memory - fixed) / sharing / (COPIES_OF_STATES * per_run))
    if room < 1:
        least = fixed + sharing * COPIES_OF_STATES * per_run
        raise ValueError(
            f"memory is {memory / 2**20:.0f} MiB; this sweep needs at least {math.ceil(least / 2**20)} MiB: one run at "
            "a time, the data, and what is computed from them"
        )
    if not on_cpu:
        return Room(room, math.inf, num_params)
    runs = min(room, max(MAX_STATE_BYTES // per_run // sharing, 1), MAX_RUNS // sharing)
    return Room(runs, max(programs.CACHE_BYTES // per_run, 1), num_params)

"""One run on several devices: each takes its share of every batch's images, and of the largest layers' outputs.

Training itself knows nothing about it: arrays lie on the devices in parts, and XLA divides the program accordingly (Xu
et al. 2021, arXiv:2105.04663). The numbers are those of one device, to rounding. Made for the cores of a CPU
(`use_cores`), which share the work of one device badly: products of small matrices stay on one core. A step of
the original CNN takes 0.87 of the time on 2 cores.

Shapes: N examples of a split.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmnist.core import training
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import Model
from jaxmnist.core.state import State
from jaxmnist.data.dataset import Split
from jaxmnist.host.devices import last_cache
from jaxmnist.sweeps.configure import Configured

# A matrix of fewer numbers is multiplied sooner than divided.
MIN_DIVIDED_SIZE = 2**16
# With more images at a time, what a convolution by bands moves no longer stays in a cache of 32 MiB, where 50 were the
# fastest; the fewer, the more often the weights of dense layers are read. With a cache of 260 MiB, the original CNN
# takes 0.8 to 0.9 of the time on 250.
EXAMPLES_AT_ONCE, EXAMPLES_IN_LARGE_CACHE, LARGE_CACHE = 50, 250, 2**27
_AXIS = "images"


def mesh_for(batch_size: int) -> Mesh:
    """Returns the devices for one run: on CPU as many as get equal shares of a batch, on others one."""
    devices = jax.local_devices()
    most = len(devices) if jax.default_backend() == "cpu" else 1
    count = max(count for count in range(1, most + 1) if batch_size % count == 0)
    return Mesh(np.array(devices[:count]), (_AXIS,))


def put(mesh: Mesh, tree):
    """Returns a tree of arrays on the devices: large matrices divided along their shorter side, all else on each.

    In most networks the shorter side of a large matrix is that of its outputs, whether rows or columns are outputs;
    divided along the other, partial sums would have to be exchanged.
    """
    return jax.device_put(tree, _shardings(mesh, tree))


def _shardings(mesh, tree):
    def sharding(leaf):
        if leaf.ndim != 2 or leaf.size < MIN_DIVIDED_SIZE or min(leaf.shape) % mesh.size:
            return NamedSharding(mesh, PartitionSpec())
        is_wide = leaf.shape[0] < leaf.shape[1]
        return NamedSharding(mesh, PartitionSpec(*((_AXIS, None) if is_wide else (None, _AXIS))))

    return jax.tree.map(sharding, tree)


@dataclasses.dataclass(frozen=True)
class _Spread:
    """An augmentation that gives each device its share of a batch's images, and then does what another does."""

    mesh: Mesh
    augment: training.Augmentation | None

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        images = jax.lax.with_sharding_constraint(images, NamedSharding(self.mesh, PartitionSpec(_AXIS)))
        return images if self.augment is None else self.augment(key, images)


@functools.partial(jax.jit, static_argnames=("mesh", "run", "batch_size", "num_steps"), donate_argnames="state")
def fit(
    mesh: Mesh, run: Configured, state: State, split: Split, order: jax.Array, batch_size: int, *, num_steps: int
) -> tuple[State, jax.Array]:
    """Takes steps as `training.fit` does, on all devices of `mesh`, where `put` has put the state; it is donated."""
    state, losses = training.fit(
        run.model, run.optimizer, state, split, order, batch_size,
        num_steps=num_steps, loss=run.loss, augment=_Spread(mesh, run.augment),
    )  # fmt: skip
    # With the same placement as before, so that the next call is the same program.
    return jax.lax.with_sharding_constraint(state, _shardings(mesh, state)), losses


def examples_at_once() -> int:
    """Returns how many examples each device evaluates at a time."""
    return EXAMPLES_IN_LARGE_CACHE if last_cache() >= LARGE_CACHE else EXAMPLES_AT_ONCE


@functools.partial(jax.jit, static_argnames=("mesh", "model", "measured"))
def evaluate(mesh: Mesh, model: Model, variables, split: Split, measured: tuple[tuple[str, Loss], ...]) -> Any:
    """Returns the metrics on every example of a split as `training.evaluate` does, each device taking its share."""
    num_examples = len(split.targets)
    batch_size = min(examples_at_once(), num_examples)
    batches_each = math.ceil(num_examples / (batch_size * mesh.size))
    # Batches that begin beyond the last example count nothing.
    starts = batch_size * jnp.arange(batches_each * mesh.size, dtype=jnp.int32)
    each, same = PartitionSpec(_AXIS), PartitionSpec()
    sums = jax.shard_map(
        lambda variables, split, starts: training.batch_sums(model, variables, split, starts, batch_size, measured),
        mesh=mesh, in_specs=(same, same, each), out_specs=each, check_vma=False,
    )  # fmt: skip
    return training.means(sums(variables, split, starts), num_examples)

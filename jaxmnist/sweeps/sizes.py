"""How large a run is, and how many of them fit into a cache or a `vmap` at a time."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.core import training
from jaxmnist.core.model import apply, init_params
from jaxmnist.core.optimizers import OptimizerFactory
from jaxmnist.core.state import State, init_state, random_key
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import configure

# Bytes of activations that one `vmap` may hold at once; beyond that, groups and images are taken in turns.
MAX_ACTIVATION_BYTES = 2**29
# What advances together on CPU should stay in its cache: this many bytes of states and gradients, and the batches of
# this many groups. Measured on 2 cores, 8 groups at once train a sweep of softmax regressions 10 to 40 % faster than
# all at once. Groups of 256 runs (8 MiB) are 1.3 to 1.5 times as fast as groups of 512, and groups of 4 MiB are 5 to
# 10 % faster than those of 8 MiB.
CACHE_BYTES = 2**22
MAX_GROUPS_AT_ONCE = 8


def activation_room(num_devices: int | None = None) -> int:
    """Returns the bytes of activations that one `vmap` of a device may hold; the devices of a CPU share its memory."""
    num_devices = num_devices or len(jax.local_devices())
    return MAX_ACTIVATION_BYTES // (num_devices if jax.default_backend() == "cpu" else 1)


def groups_at_once(model: nn.Module, states: State, batch_size: int, image_shape: tuple[int, ...], most: int) -> int:
    """Returns how many of a device's groups one `vmap` holds while training, a divisor of their number and of `most`.

    Their activations have to fit into memory, and on CPU their states into its cache.
    """
    num_groups, runs_per_group = states.step.shape
    group_bytes = activation_bytes(model, image_shape) * runs_per_group * batch_size
    limit = min(num_groups, most, int(activation_room() / group_bytes))
    if jax.default_backend() == "cpu":
        leaves = jax.tree.leaves((states.params, states.opt_state))
        state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / num_groups
        limit = min(limit, MAX_GROUPS_AT_ONCE, int(CACHE_BYTES / state_bytes))
    return max(count for count in range(1, max(limit, 1) + 1) if num_groups % count == most % count == 0)


def images_at_once(model: nn.Module, num_runs: int, image_shape: tuple[int, ...]) -> int:
    """Returns the batch size for evaluating `num_runs` runs in one `vmap`."""
    room = int(activation_room() / (activation_bytes(model, image_shape) * num_runs))
    return max(min(room, training.EVALUATION_BATCH_SIZE), 1)


@functools.cache
def activation_bytes(model: nn.Module, image_shape: tuple[int, ...]) -> float:
    """Returns the bytes that a forward pass of one run computes for one more image that it shares with other runs."""

    def total(num_runs, num_images):
        images = jax.ShapeDtypeStruct((num_images, *image_shape), jnp.float32)
        one = jax.eval_shape(lambda key: init_params(model, key, image_shape), random_key(0))
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_runs, *leaf.shape), leaf.dtype), one)
        mapped = jax.vmap(functools.partial(apply, model), in_axes=(0, None))
        equations = jax.make_jaxpr(mapped)(params, images).eqns
        return sum(out.aval.size * out.aval.dtype.itemsize for equation in equations for out in equation.outvars)

    return max(total(2, 2) - total(1, 2) - total(2, 1) + total(1, 1), 1)


class Sizes(NamedTuple):
    """The number of parameters of one run, and the bytes of its parameters and optimizer state."""

    num_params: int
    state_bytes: int


@functools.lru_cache(maxsize=64)
def sizes(
    model: nn.Module, optimizer: OptimizerFactory, values: planning.Static, image_shape: tuple[int, ...]
) -> Sizes:
    """Returns how large one run is."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    configured = configure(model, optimizer, dict(values))
    init = functools.partial(init_state, configured.model, configured.optimizer, 0)
    state = jax.eval_shape(init, image)
    leaves = jax.tree.leaves((state.params, state.opt_state))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Sizes(num_params, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))


def step_flops(program: planning.Program, states: State) -> float:
    """Returns the operations of a step of a program, two products a weight; convolutions take several times as many."""
    num_params = sum(leaf.size for leaf in jax.tree.leaves(states.params))
    return 4.0 * num_params * program.padded_batch_sizes[-1]

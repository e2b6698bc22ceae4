"""The compiled programs of a sweep: `jit(vmap(vmap(...)))` of one run's functions, over groups that share batches.

Groups are spread over the local devices, each of which works alone: nothing passes between them. On CPU a device takes
the outer `vmap` a few groups at a time, so that these stay in its cache, and so that small batches are padded little.

Shapes: G groups of a program, P runs of a group, N images, L steps of a segment.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmnist.core import training
from jaxmnist.core.model import apply, init_params
from jaxmnist.core.optimizers import OptimizerFactory
from jaxmnist.core.state import State, init_state, random_key
from jaxmnist.data.dataset import Split
from jaxmnist.data.order import example_order
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.runs import Runs, hyperparameter_names

# Bytes of activations that one `vmap` may hold at a time; beyond it, groups and images are taken in turns.
MAX_ACTIVATION_BYTES = 2**29
# What advances together on CPU should stay in its cache: states and gradients of so many bytes, batches of so many
# groups. Measured on 2 cores, 8 groups at once train a sweep of softmax regressions 10 to 40 % faster than all at once,
# groups of 256 runs (8 MiB) 1.3 to 1.5 times as fast as groups of 512, and 4 MiB 5 to 10 % faster than 8 MiB.
CACHE_BYTES = 2**22
MAX_GROUPS_AT_ONCE = 8
LOSS_NAMES = frozenset({"label_smoothing"})
_EACH, _SAME = PartitionSpec("runs"), PartitionSpec()


class Recipe(NamedTuple):
    """What a program is built from beside its numbers; hashable, so that equal recipes share a compilation.

    Attributes:
      model: a linen module from images to logits.
      optimizer: an optax factory.
      static: hyperparameters with a fixed value.
      mesh: the devices.
    """

    model: nn.Module
    optimizer: OptimizerFactory
    static: planning.Static
    mesh: Mesh

    def configure(self, traced: Mapping[str, jax.typing.ArrayLike]) -> "Configured":
        """Returns model, gradient transformation and loss keywords of one run."""
        return configure(self.model, self.optimizer, {**dict(self.static), **traced})


class Configured(NamedTuple):
    """What one run is trained with."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss_keywords: dict


def configure(model: nn.Module, optimizer: OptimizerFactory, values: Mapping) -> Configured:
    """Returns what one run is trained with.

    Args:
      model: the linen module whose fields are changed.
      optimizer: the optax factory that is called.
      values: by name; those named like a field of the model become its fields, those of the loss (`label_smoothing`)
        go there, and the others to the optimizer.
    """
    fields = model_fields(model)
    of_model: dict = {name: value for name, value in values.items() if name in fields}
    of_loss = {name: value for name, value in values.items() if name in LOSS_NAMES}
    of_optimizer = {name: value for name, value in values.items() if name not in fields | LOSS_NAMES}
    return Configured(model.clone(**of_model) if of_model else model, optimizer(**of_optimizer), of_loss)


def model_fields(model: nn.Module) -> set[str]:
    """Returns the names of a linen module's own fields."""
    return {field.name for field in dataclasses.fields(model)} - {"name", "parent"}


def local_mesh() -> Mesh:
    """Returns all local devices in one row."""
    return Mesh(np.array(jax.local_devices()), ("runs",))


def on_every_device(mesh: Mesh, split: Split) -> Split:
    """Returns a split with a copy on each device."""
    return jax.device_put(split, NamedSharding(mesh, _SAME))


def per_group(mesh: Mesh, values):
    """Returns arrays `[G, ...]` with their groups spread over the devices."""
    return jax.device_put(values, NamedSharding(mesh, _EACH))


class Inputs(NamedTuple):
    """A program's numbers, on the devices.

    Attributes:
      traced: hyperparameter name to `[G, P]` float32.
      row: `[G, P]` int32, which runs these are; it gives `vmap` its size where nothing is traced.
      seed: `[G]` int32.
      batch_size: `[G]` int32.
    """

    traced: Any
    row: Any
    seed: Any
    batch_size: Any


# Which of a group's numbers differ between its runs.
BY_RUN = Inputs(traced=0, row=0, seed=None, batch_size=None)


def inputs(mesh: Mesh, arrays: Runs, program: planning.Program) -> Inputs:
    """Returns a program's numbers, taken from the checked runs."""
    fixed = dict(program.static)
    traced = {
        name: np.asarray(arrays[name][program.rows], np.float32)
        for name in hyperparameter_names(arrays)
        if name not in fixed
    }
    whole = (column.astype(np.int32) for column in (program.rows, program.seed, program.batch_size))
    return per_group(mesh, Inputs(traced, *whole))


class Orders:
    """The order of examples of each group of a program, handed out by windows of steps."""

    def __init__(self, program: planning.Program, num_train: int):
        self._program, self._num_train = program, num_train

    def window(self, start: int, stop: int) -> np.ndarray:
        """Returns the examples of the steps from `start` to `stop`: `[G, L * the largest padded batch size]` int32."""
        program = self._program
        window = np.zeros((len(program.seed), (stop - start) * program.padded_batch_sizes[-1]), np.int32)
        for row, batch_size, seed in zip(window, program.batch_size, program.seed, strict=True):
            length = (stop - start) * int(batch_size)
            row[:length] = example_order(self._num_train, int(seed), length, start * int(batch_size))
        return window


def activation_room(num_devices: int | None = None) -> int:
    """Returns the bytes of activations that one `vmap` of a device may hold; those of a CPU share its memory."""
    num_devices = num_devices or len(jax.local_devices())
    return MAX_ACTIVATION_BYTES // (num_devices if jax.default_backend() == "cpu" else 1)


def groups_at_once(model: nn.Module, states: State, batch_size: int, image_shape: tuple[int, ...], most: int) -> int:
    """Returns how many of a device's groups one `vmap` holds while training, a divisor of their number and of `most`.

    That is as many as their activations have room for, and on CPU as many as stay in its cache.
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
    """Of one run: its parameters, and the bytes of its state, parameters and the optimizer's."""

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


def _spread(recipe: Recipe, function: Callable, num_spread: int, num_same: int = 0) -> Callable:
    """Returns a function of `num_spread` arguments by group and `num_same` shared ones, run by each device on its own.

    `jit` by itself would let devices exchange data for what is mapped over runs.
    """
    in_specs = (_EACH,) * num_spread + (_SAME,) * num_same
    return jax.shard_map(function, mesh=recipe.mesh, in_specs=in_specs, out_specs=_EACH, check_vma=False)


def _over_groups(one_run: Callable, in_axes: tuple, numbers: Inputs, *arguments):
    """Returns what a function of one run gives for groups of runs: a `vmap` over groups of a `vmap` over runs."""
    num_groups, runs_per_group = numbers.row.shape
    of_group = _mapped(runs_per_group, one_run, in_axes)
    return _mapped(num_groups, of_group, (0,) * len(in_axes))(numbers, *arguments)


def _mapped(size: int, function: Callable, in_axes: tuple) -> Callable:
    """Returns `jax.vmap(function, in_axes)`.

    One run is not mapped: an axis of size 1 would keep XLA from good layouts, and take 1.25 times as long for a CNN.
    """
    if size > 1:
        return jax.vmap(function, in_axes)

    def alone(*arguments):
        def first(axis, mapped):
            return mapped if axis is None else jax.tree.map(lambda leaf: leaf[0], mapped)

        firsts = jax.tree.map(first, in_axes, arguments, is_leaf=lambda axis: axis is None)
        return jax.tree.map(lambda leaf: leaf[None], function(*firsts))

    return alone


@functools.partial(jax.jit, static_argnames=("recipe",))
def init(recipe: Recipe, numbers: Inputs, images):
    def one_run(numbers):
        configured = recipe.configure(numbers.traced)
        return init_state(configured.model, configured.optimizer, numbers.seed, images)

    return _spread(recipe, functools.partial(_over_groups, one_run, (BY_RUN,)), 1)(numbers)


@functools.partial(
    jax.jit,
    static_argnames=("recipe", "num_steps", "padded_batch_sizes", "at_once"),
    donate_argnames=("states",),
)
def advance(
    recipe: Recipe,
    numbers: Inputs,
    states,
    orders,
    train: Split,
    *,
    num_steps: int,
    padded_batch_sizes: tuple[int, ...],
    at_once: int,
):
    def on_device(numbers, states, orders, train):
        def fit(padded_batch_size, numbers, states, orders):
            def one_run(numbers, state, order):
                configured = recipe.configure(numbers.traced)
                return training.fit(
                    configured.model, configured.optimizer, state, train, order, numbers.batch_size,
                    num_steps=num_steps, padded_batch_size=padded_batch_size, **configured.loss_keywords,
                )  # fmt: skip

            return _over_groups(one_run, (BY_RUN, 0, None), numbers, states, orders)

        fits = [functools.partial(fit, size) for size in padded_batch_sizes]

        def in_turn(of_groups):
            least = jnp.searchsorted(jnp.array(padded_batch_sizes), jnp.max(of_groups[0].batch_size))
            return jax.lax.switch(least, fits, *of_groups)

        largest, image_shape = padded_batch_sizes[-1], train.images.shape[1:]
        count = groups_at_once(configure_static(recipe), states, largest, image_shape, at_once)
        everything = numbers, states, orders
        # A loop of one turn would copy all states, forth and back.
        if count == len(states.step):
            return in_turn(everything)
        turns = jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]), everything)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(in_turn, turns))

    return _spread(recipe, on_device, 3, 1)(numbers, states, orders, train)


@functools.partial(jax.jit, static_argnames=("recipe",))
def evaluate(recipe: Recipe, numbers: Inputs, params, split: Split):
    def on_device(numbers, params, split):
        num_runs = math.prod(jax.tree.leaves(params)[0].shape[:2])
        batch_size = images_at_once(configure_static(recipe), num_runs, split.images.shape[1:])

        def one_run(numbers, params):
            return training.evaluate(recipe.configure(numbers.traced).model, params, split, batch_size=batch_size)

        return _over_groups(one_run, (BY_RUN, 0), numbers, params)

    return _spread(recipe, on_device, 2, 1)(numbers, params, split)


def configure_static(recipe: Recipe) -> nn.Module:
    """Returns the model with those of its fields that are fixed for the program."""
    fields: dict = {name: value for name, value in recipe.static if name in model_fields(recipe.model)}
    return recipe.model.clone(**fields) if fields else recipe.model

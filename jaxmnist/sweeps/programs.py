"""The compiled programs of a sweep: `jit(vmap(vmap(...)))` of one run's functions, over groups that share batches.

Groups are spread over the local devices, each of which works alone: nothing passes between them, unless runs move
because others have ended. On CPU a device maps
over a few groups at a time, so that these stay in its cache and small batches are padded little.

Shapes: G groups of a program, P runs of a group, N images, L steps of the longest segment.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmnist.core import optimizers, training
from jaxmnist.core.optimizers import EvaluationParams
from jaxmnist.core.state import State, init_state
from jaxmnist.data.dataset import Split
from jaxmnist.data.order import example_order
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import Configured, Setup, configure
from jaxmnist.sweeps.runs import Runs, hyperparameter_names
from jaxmnist.sweeps.sizes import activation_bytes, examples_at_once, groups_at_once, groups_evaluated_at_once

_EACH, _SAME = PartitionSpec("runs"), PartitionSpec()


class ProgramSpec(NamedTuple):
    """What a program is built from, apart from its numbers; hashable, so that equal ones share a compilation.

    Attributes:
      setup: model, optimizer, loss, metrics, augmentation and what is evaluated.
      static: hyperparameters with a fixed value.
      mesh: the devices.
    """

    setup: Setup
    static: planning.Static
    mesh: Mesh

    def configure(self, traced: Mapping[str, jax.typing.ArrayLike]) -> Configured:
        """Returns what one run is trained with."""
        return configure(self.setup, {**dict(self.static), **traced})

    def example_bytes(self, inputs: "ProgramInputs", split: Split) -> float:
        """Returns the bytes of activations that one more example of a split takes."""
        example = jax.ShapeDtypeStruct((1, *split.inputs.shape[1:]), split.inputs.dtype)
        return activation_bytes(self.setup, self.static, tuple(inputs.traced), example)


def local_mesh() -> Mesh:
    """Returns all local devices in one row."""
    return Mesh(np.array(jax.local_devices()), ("runs",))


def on_every_device(mesh: Mesh, split: Split) -> Split:
    """Returns a split with a copy on each device."""
    return jax.device_put(split, NamedSharding(mesh, _SAME))


def per_group(mesh: Mesh, values):
    """Returns arrays `[G, ...]` with their groups spread over the devices."""
    return jax.device_put(values, NamedSharding(mesh, _EACH))


class ProgramInputs(NamedTuple):
    """The numbers of a program's runs, on the devices.

    Attributes:
      traced: hyperparameter name to `[G, P]` float32.
      row: `[G, P]` int32, which runs these are; it gives `vmap` its size if nothing is traced.
      seed: `[G, P]` int32, of initial parameters and of what is drawn in training.
      ended: `[G, P]` bool, whether their results will be nan, whatever steps they take.
      batch_size: `[G]` int32.
    """

    traced: Any
    row: Any
    seed: Any
    ended: Any
    batch_size: Any


# Which of a group's numbers differ between its runs.
IN_AXES = ProgramInputs(traced=0, row=0, seed=0, ended=0, batch_size=None)


class Segment(NamedTuple):
    """What segments of steps are compiled for; hashable.

    Attributes:
      max_steps: L, of the longest.
      padded_batch_sizes: ascending; groups that train at once pad their batches to the least of these that holds them.
      at_once: how many neighbouring groups may train at once.
    """

    max_steps: int
    padded_batch_sizes: tuple[int, ...]
    at_once: int


def make_segment(program: planning.Program, num_steps: int, max_steps: int) -> tuple[Segment, np.int32 | None]:
    """Returns what a segment of a program is compiled for, and its number of steps if that is an argument.

    On CPU, segments of up to `max_steps` share a compilation. A GPU would ask the host after each step whether it was
    the last, which takes 1.2 times as long for softmax regressions.
    """
    is_shared = jax.default_backend() == "cpu"
    segment = Segment(max_steps if is_shared else num_steps, program.padded_batch_sizes, program.at_once)
    return segment, np.int32(num_steps) if is_shared else None


def make_inputs(spec: ProgramSpec, arrays: Runs, program: planning.Program) -> ProgramInputs:
    """Returns the numbers of a program's runs, taken from the checked runs."""
    fixed = dict(program.static)
    traced = {
        name: np.asarray(arrays[name][program.rows], spec.setup.dtype)
        for name in hyperparameter_names(arrays)
        if name not in fixed
    }
    seeds = arrays.get("init_seed", arrays["seed"])[program.rows]
    rows, seeds, batch_sizes = (np.asarray(column, np.int32) for column in (program.rows, seeds, program.batch_size))
    return per_group(spec.mesh, ProgramInputs(traced, rows, seeds, np.zeros(rows.shape, bool), batch_sizes))


def order_window(program: planning.Program, num_train: int, start: int, stop: int, max_steps: int) -> np.ndarray:
    """Returns the examples of the steps from `start` to `stop`: `[G, L * the largest padded batch size]` int32."""
    window = np.zeros((len(program.seed), max_steps * program.padded_batch_sizes[-1]), np.int32)
    for row, batch_size, seed in zip(window, program.batch_size, program.seed, strict=True):
        length = (stop - start) * int(batch_size)
        row[:length] = example_order(num_train, int(seed), length, start * int(batch_size))
    return window


def _spread(spec: ProgramSpec, function: Callable, num_spread: int, num_same: int = 0) -> Callable:
    """Returns a function of `num_spread` arguments by group and `num_same` shared ones, run by each device on its own.

    `jit` alone might let devices exchange data.
    """
    in_specs = (_EACH,) * num_spread + (_SAME,) * num_same
    return jax.shard_map(function, mesh=spec.mesh, in_specs=in_specs, out_specs=_EACH, check_vma=False)


def _over_groups(one_run: Callable, in_axes: tuple, inputs: ProgramInputs, *arguments):
    """Returns the results of a function of one run for groups of runs: a `vmap` over groups of a `vmap` over runs."""
    num_groups, runs_per_group = inputs.row.shape
    one_group = _mapped(runs_per_group, one_run, in_axes)
    return _mapped(num_groups, one_group, (0,) * len(in_axes))(inputs, *arguments)


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


@functools.partial(jax.jit, static_argnames=("spec",))
def init(spec: ProgramSpec, inputs: ProgramInputs, examples: jax.Array) -> State:
    """Returns the states of all runs before the first step.

    Args:
      spec: what the program is built from.
      inputs: hyperparameters and seeds `[G, P]`, batch sizes `[G]`.
      examples: `[N, ...]`, of a split; only their shape and dtype are used.

    Returns:
      A state whose arrays are `[G, P, ...]`.
    """

    def one_run(inputs):
        run = spec.configure(inputs.traced)
        return init_state(run.model, run.optimizer, inputs.seed, examples, spec.setup.dtype)

    return _spread(spec, functools.partial(_over_groups, one_run, (IN_AXES,)), 1)(inputs)


@functools.partial(jax.jit, static_argnames=("spec", "segment"), donate_argnames=("states",))
def advance(
    spec: ProgramSpec,
    inputs: ProgramInputs,
    states: State,
    orders: jax.Array,
    train: Split,
    num_steps: jax.typing.ArrayLike | None,
    *,
    segment: Segment,
) -> tuple[State, jax.Array, jax.Array]:
    """Takes the steps of one segment with all runs; segments of any length share a compilation.

    Groups that train at once take no steps, which saves their time, if all of their runs have ended.

    Args:
      spec: what the program is built from.
      inputs: hyperparameters and seeds `[G, P]`, batch sizes `[G]`.
      states: `[G, P, ...]`; their memory is reused.
      orders: `[G, L * the largest padded batch size]` int32, the examples of each group's steps, from `order_window`.
      train: inputs `[N, ...]` and targets `[N, ...]`, on every device.
      num_steps: `[]` int32, the steps to take, at most L; None takes L in a loop whose length is compiled.
      segment: L and padded batch sizes.

    Returns:
      The states after the segment, `[G, P, ...]`, the batch losses before each step, `[G, P, L]` float32, which mean
      nothing beyond the last one, and which runs have ended now.
    """

    def on_device(inputs, states, orders, train, num_steps):
        together = functools.partial(_train_together, spec, segment, train, num_steps)
        example_bytes, largest = spec.example_bytes(inputs, train), segment.padded_batch_sizes[-1]
        count = groups_at_once(example_bytes, states, largest, segment.at_once)
        return _in_turns(together, count, (inputs, states, orders))

    return _spread(spec, on_device, 3, 2)(inputs, states, orders, train, num_steps)


@functools.partial(jax.jit, static_argnames=("spec",))
def evaluate(spec: ProgramSpec, inputs: ProgramInputs, states: State, split: Split) -> Any:
    """Returns the metrics and the loss of all runs on every example of a split.

    Args:
      spec: what the program is built from.
      inputs: hyperparameters and seeds `[G, P]`, batch sizes `[G]`.
      states: `[G, P, ...]`.
      split: inputs `[N, ...]` and targets `[N, ...]`, on every device.

    Returns:
      A named tuple of metrics, `[G, P]` float32 each.
    """

    def on_device(inputs, states, split):
        together = functools.partial(_evaluate_together, spec, split)
        return _in_turns(together, groups_evaluated_at_once(states), (inputs, states))

    return _spread(spec, on_device, 2, 1)(inputs, states, split)


@functools.partial(jax.jit, static_argnames=("mesh",))
def move(mesh: Mesh, runs: Any, places: jax.Array) -> Any:
    """Returns arrays `[G, P, ...]` of runs after these have changed places, on whichever device they are.

    Args:
      mesh: the devices.
      runs: a tree of arrays `[G, P, ...]`.
      places: `[G, P]` int32, from where the run of each place comes.
    """

    def moved(leaf):
        return jax.lax.with_sharding_constraint(leaf.reshape(-1, *leaf.shape[2:])[places], NamedSharding(mesh, _EACH))

    return jax.tree.map(moved, runs)


def _in_turns(together: Callable, count: int, groups: Any) -> Any:
    """Returns what `together` returns of arrays `[G, ...]`, from turns of `count` groups each, a divisor of G."""
    # A loop of one turn would copy all states back and forth.
    if count == len(jax.tree.leaves(groups)[0]):
        return together(groups)
    turns = jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]), groups)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(together, turns))


def _train_together(spec: ProgramSpec, segment: Segment, train: Split, num_steps, groups):
    """Trains neighbouring groups, their batches padded to the least of the segment's sizes that holds them all."""
    inputs, states, orders = groups
    sizes = segment.padded_batch_sizes
    fits = [functools.partial(_fit_groups, spec, segment.max_steps, size, train) for size in sizes]
    least = jnp.searchsorted(jnp.array(sizes), jnp.max(inputs.batch_size))
    if num_steps is None:
        states, losses = jax.lax.switch(least, fits, None, inputs, states, orders)
        return states, losses, inputs.ended
    all_ended = jnp.all(inputs.ended)
    states, losses = jax.lax.switch(least, fits, jnp.where(all_ended, 0, num_steps), inputs, states, orders)
    states = states._replace(step=states.step + jnp.where(all_ended, num_steps, 0))
    losses = jnp.where(all_ended, jnp.nan, losses)
    return states, losses, _have_ended(spec.setup.evaluation_params, states, losses[..., num_steps - 1])


def _have_ended(evaluation_params: EvaluationParams, states: State, losses: jax.Array) -> jax.Array:
    """Returns which runs will have results of nan, whatever steps they take: `[G, P]` bool.

    Their last batch loss is nan, and so are some of their parameters, and of those with which they are evaluated. A
    person's own `evaluation_params` may depend on every step: then no run has ended.
    """
    if evaluation_params is not optimizers.evaluation_params:
        return jnp.zeros(losses.shape, bool)

    def has_nan(tree):
        leaves = [jnp.any(jnp.isnan(leaf), axis=tuple(range(losses.ndim, leaf.ndim))) for leaf in jax.tree.leaves(tree)]
        return functools.reduce(jnp.logical_or, leaves)

    def look():
        evaluated = jax.vmap(jax.vmap(evaluation_params))(states.opt_state, states.params)
        return is_nan & has_nan(states.params) & has_nan(evaluated)

    # Parameters are many more numbers than losses, and are seldom worth reading.
    is_nan = jnp.isnan(losses)
    return jax.lax.cond(jnp.any(is_nan), look, lambda: is_nan)


def _fit_groups(spec: ProgramSpec, max_steps: int, padded_batch_size: int, train: Split, num_steps, *groups):
    def one_run(inputs, state, order):
        run = spec.configure(inputs.traced)

        def step(i, reached):
            state, losses = reached
            examples = jax.lax.dynamic_slice_in_dim(order, i * inputs.batch_size, padded_batch_size)
            state, loss = training.fit(
                run.model, run.optimizer, state, train, examples, inputs.batch_size,
                num_steps=1, padded_batch_size=padded_batch_size, loss=run.loss, augment=run.augment,
            )  # fmt: skip
            return state, jax.lax.dynamic_update_slice_in_dim(losses, loss.astype(losses.dtype), i, axis=0)

        stop = max_steps if num_steps is None else num_steps
        return jax.lax.fori_loop(0, stop, step, (state, jnp.zeros(max_steps)))

    return _over_groups(one_run, (IN_AXES, 0, None), *groups)


def _evaluate_together(spec: ProgramSpec, split: Split, groups):
    """Returns the metrics of neighbouring groups, `[G, P]` each."""
    inputs, states = groups
    num_examples = len(split.targets)
    # As many batches as needed, all of one size.
    num_batches = math.ceil(num_examples / examples_at_once(spec.example_bytes(inputs, split), inputs.row.size))
    size = math.ceil(num_examples / num_batches)

    def one_run(inputs, state):
        run = spec.configure(inputs.traced)
        starts = jnp.arange(0, num_examples, size, dtype=jnp.int32)
        sums = training.batch_sums(run.model, run.evaluated(state), split, starts, size, run.measured)
        return training.means(sums, num_examples)

    return _over_groups(one_run, (IN_AXES, 0), inputs, states)

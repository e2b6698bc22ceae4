"""How large a run is, and how many of them fit into a cache or a `vmap` at a time."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmnist.core import training
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.state import State, init_state
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import Setup, configure
from jaxmnist.sweeps.planning import Static

# Bytes of activations that one `vmap` may hold at once; beyond that, groups and images are taken in turns.
MAX_ACTIVATION_BYTES = 2**29
# What advances together on CPU should stay in its cache: this many bytes of states or activations, and the batches of
# this many groups. Measured on 2 cores, 8 groups at once train a sweep of softmax regressions 10 to 40 % faster than
# all at once. Groups of 256 runs (8 MiB) are 1.3 to 1.5 times as fast as groups of 512, and groups of 4 MiB are 5 to
# 10 % faster than those of 8 MiB. Activations count as states do: on 2 busy cores with 2 MiB of cache each, 4,096 runs
# of 272 parameters on 272 examples take 0.7 of the time that they take if states alone are counted.
CACHE_BYTES = 2**22
MAX_GROUPS_AT_ONCE = 8
# On CPU, evaluation takes parameters of so many bytes, activations of so many bytes, and so many examples at a time.
# Measured on 2 cores, 2,048 softmax regressions are evaluated by 1 MiB in 0.87 of the time that they take all at once,
# 20 of them on 1,000 examples at a time in 0.8 of the time that they take on 250, and the original CNN on 50 to 250 in
# 0.8 of the time that it takes on 500.
EVALUATED_PARAMS_BYTES, EVALUATED_BYTES = 2**20, 2**23
MIN_EVALUATED, MAX_EVALUATED = 50, 1000


def activation_room(num_devices: int | None = None) -> int:
    """Returns the bytes of activations that one `vmap` of a device may hold; the devices of a CPU share its memory."""
    num_devices = num_devices or len(jax.local_devices())
    return MAX_ACTIVATION_BYTES // (num_devices if jax.default_backend() == "cpu" else 1)


def groups_at_once(example_bytes: float, states: State, batch_size: int, most: int) -> int:
    """Returns how many of a device's groups one `vmap` holds while training, a divisor of their number and of `most`.

    Their activations, of `activation_bytes` for each example, have to fit into memory, and on CPU into its cache, as
    their states have to.
    """
    num_groups, runs_per_group = states.step.shape
    limit = min(num_groups, most, int(activation_room() / (example_bytes * runs_per_group * batch_size)))
    if jax.default_backend() == "cpu":
        state_bytes = _num_bytes((states.params, states.model_state, states.opt_state)) / num_groups
        largest = max(state_bytes, example_bytes * runs_per_group * batch_size)
        limit = min(limit, MAX_GROUPS_AT_ONCE, int(CACHE_BYTES / largest))
    return max(count for count in range(1, max(limit, 1) + 1) if num_groups % count == most % count == 0)


def groups_evaluated_at_once(states: State) -> int:
    """Returns how many of a device's groups one `vmap` evaluates, a divisor of their number.

    It is all of them on a GPU, and where a single group is too large for the cache.
    """
    num_groups = len(states.step)
    group_bytes = max(_num_bytes((states.params, states.model_state)) / num_groups, 1)
    limit = min(int(EVALUATED_PARAMS_BYTES / group_bytes), num_groups)
    if jax.default_backend() != "cpu" or limit == 0:
        return num_groups
    return max(count for count in range(1, limit + 1) if num_groups % count == 0)


def _num_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def examples_at_once(example_bytes: float, num_runs: int) -> int:
    """Returns the batch size for evaluating `num_runs` runs in one `vmap`."""
    per_example = example_bytes * num_runs
    limit = min(int(activation_room() / per_example), MAX_EVALUATED)
    if jax.default_backend() == "cpu":
        limit = min(limit, max(int(EVALUATED_BYTES / per_example), MIN_EVALUATED))
    return max(limit, 1)


@functools.lru_cache(maxsize=64)
def activation_bytes(setup: Setup, fixed: Static, traced: tuple[str, ...], example: jax.ShapeDtypeStruct) -> float:
    """Returns the bytes that a forward pass of one run computes for one more example that it shares with other runs.

    Args:
      setup: what the run is trained with.
      fixed: the hyperparameters that are known.
      traced: the names of the others.
      example: one example of a split, `[1, ...]`.
    """

    def model(values):
        return configure(setup, dict(fixed) | values).model

    def init(values):
        return model(values).init(random_key(0), to_unit_range(jnp.zeros(example.shape, example.dtype)))

    def predict(values, variables, inputs):
        params, state = variables
        return training.predict(model(values), params, state, inputs)

    values = {name: jax.ShapeDtypeStruct((), setup.dtype) for name in traced}
    one = jax.eval_shape(init, values)

    def total(num_runs, num_examples):
        variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_runs, *leaf.shape), leaf.dtype), one)
        inputs = jax.ShapeDtypeStruct((num_examples, *example.shape[1:]), example.dtype)
        equations = jax.make_jaxpr(jax.vmap(predict, in_axes=(None, 0, None)))(values, variables, inputs).eqns
        return sum(out.aval.size * out.aval.dtype.itemsize for equation in equations for out in equation.outvars)

    return max(total(2, 2) - total(1, 2) - total(2, 1) + total(1, 1), 1)


class Sizes(NamedTuple):
    """The number of parameters of one run, and the bytes of its parameters and of all that it carries."""

    num_params: int
    state_bytes: int


@functools.lru_cache(maxsize=64)
def sizes(setup: Setup, values: Static, example: jax.ShapeDtypeStruct) -> Sizes:
    """Returns how large one run is."""
    configured = configure(setup, dict(values))
    state = jax.eval_shape(
        functools.partial(init_state, configured.model, configured.optimizer, 0, dtype=setup.dtype), example
    )
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Sizes(num_params, _num_bytes((state.params, state.model_state, state.opt_state)))


def step_flops(program: planning.Program, states: State) -> float:
    """Returns the operations of a step of a program, two products a weight; convolutions take several times as many."""
    num_params = sum(leaf.size for leaf in jax.tree.leaves(states.params))
    return 4.0 * num_params * program.padded_batch_sizes[-1]

"""The compiled programs of a sweep: `jit(vmap(vmap(...)))` of one run's functions, over groups that share batches.

On CPU the outer `vmap` is taken a few groups at a time, so that these stay in its cache.

Shapes: G groups of a program, P runs of a group, N images, L steps of a segment.
"""

import functools

import jax
import numpy as np

from jaxmnist import planning, training
from jaxmnist.data import Split, example_order

# Groups that advance together on CPU: their batches, parameters and gradients should stay in its cache. Measured on
# 2 cores, 8 at once train a sweep of softmax regressions 10 to 40 % faster than all at once.
MAX_GROUPS_AT_ONCE = 8


class Orders:
    """The order of examples of each group of a program, handed out by windows of steps."""

    def __init__(self, program: planning.Program, num_train: int, num_steps: int):
        self._program = program
        longest = {seed: program.batch_size[program.seed == seed].max() for seed in np.unique(program.seed)}
        self._orders = {
            seed: example_order(num_train, int(seed), num_steps * int(size)) for seed, size in longest.items()
        }

    def window(self, start: int, stop: int) -> np.ndarray:
        """Returns the examples of the steps from `start` to `stop`: `[G, L * padded_batch_size]` int32."""
        program = self._program
        window = np.zeros((len(program.seed), (stop - start) * program.padded_batch_size), np.int32)
        for row, batch_size, seed in zip(window, program.batch_size, program.seed, strict=True):
            row[: (stop - start) * batch_size] = self._orders[seed][start * batch_size : stop * batch_size]
        return window


def groups_at_once(num_groups: int) -> int:
    """Returns how many groups of a program one `vmap` holds: all but on CPU, where it is a divisor of their number."""
    if jax.default_backend() != "cpu":
        return num_groups
    return max(size for size in range(1, MAX_GROUPS_AT_ONCE + 1) if num_groups % size == 0)


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def init(model, optimizer, hyperparameters, seeds, images):
    def one_run(values, seed):
        return training.init_state(model, optimizer(**values), seed, images)

    return jax.vmap(jax.vmap(one_run, in_axes=(0, None)))(hyperparameters, seeds)


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "num_steps", "padded_batch_size", "groups_at_once"),
    donate_argnames=("states",),
)
def advance(
    model,
    optimizer,
    hyperparameters,
    states,
    train: Split,
    orders,
    batch_sizes,
    *,
    num_steps,
    padded_batch_size,
    groups_at_once,
):
    def one_run(values, state, order, batch_size):
        return training.fit(
            model, optimizer(**values), state, train, order, batch_size,
            num_steps=num_steps, padded_batch_size=padded_batch_size,
        )  # fmt: skip

    group = jax.vmap(one_run, in_axes=(0, 0, None, None))
    groups = (hyperparameters, states, orders, batch_sizes)
    return jax.lax.map(lambda arguments: group(*arguments), groups, batch_size=groups_at_once)


@functools.partial(jax.jit, static_argnames=("model",))
def evaluate(model, params, split: Split):
    one_run = functools.partial(training.evaluate, model, split=split)
    return jax.vmap(jax.vmap(one_run))(params)

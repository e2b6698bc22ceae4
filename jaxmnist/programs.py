"""The compiled programs of a sweep: `jit(vmap(vmap(...)))` of one run's functions, over groups that share batches.

On CPU the outer `vmap` is taken a few groups at a time, so that these stay in its cache.

Shapes: G groups of a program, P runs of a group, N images, L steps of a segment.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import planning, training
from jaxmnist.data import Split, example_order

OptimizerFactory = Callable[..., optax.GradientTransformation]

# Bytes of activations that one `vmap` may hold at a time; beyond it, groups and images are taken in turns.
MAX_ACTIVATION_BYTES = 2**29
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


def groups_at_once(model: nn.Module, program: planning.Program, image_shape: tuple[int, ...]) -> int:
    """Returns how many groups of a program one `vmap` holds while training, a divisor of their number.

    That is as many as their activations have room for, and on CPU at most `MAX_GROUPS_AT_ONCE`.
    """
    num_groups, runs_per_group = program.rows.shape
    group_bytes = activation_bytes(model, image_shape) * runs_per_group * program.padded_batch_size
    most = num_groups if jax.default_backend() != "cpu" else MAX_GROUPS_AT_ONCE
    most = max(min(num_groups, most, int(MAX_ACTIVATION_BYTES / group_bytes)), 1)
    return max(size for size in range(1, most + 1) if num_groups % size == 0)


def images_at_once(model: nn.Module, num_runs: int, image_shape: tuple[int, ...]) -> int:
    """Returns the batch size for evaluating `num_runs` runs in one `vmap`."""
    room = int(MAX_ACTIVATION_BYTES / (activation_bytes(model, image_shape) * num_runs))
    return max(min(room, training.EVALUATION_BATCH_SIZE), 1)


@functools.cache
def activation_bytes(model: nn.Module, image_shape: tuple[int, ...]) -> float:
    """Returns the bytes that a forward pass computes for one more image, all intermediate values together."""

    def total(num_images):
        images = jax.ShapeDtypeStruct((num_images, *image_shape), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)
        equations = jax.make_jaxpr(model.apply)(params, images).eqns
        return sum(out.aval.size * out.aval.dtype.itemsize for equation in equations for out in equation.outvars)

    return max(total(2) - total(1), 1)


def configure(
    model: nn.Module, optimizer: OptimizerFactory, values: dict[str, jax.typing.ArrayLike]
) -> tuple[nn.Module, optax.GradientTransformation]:
    """Returns model and gradient transformation of one run.

    Args:
      model: the linen module whose fields are changed.
      optimizer: the optax factory that is called.
      values: those named like a field of the model become its fields, the others are for the optimizer.
    """
    fields = model_fields(model)
    of_model: dict = {name: value for name, value in values.items() if name in fields}
    of_optimizer = {name: value for name, value in values.items() if name not in fields}
    return model.clone(**of_model) if of_model else model, optimizer(**of_optimizer)


def model_fields(model: nn.Module) -> set[str]:
    """Returns the names of a linen module's own fields."""
    return {field.name for field in dataclasses.fields(model)} - {"name", "parent"}


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def init(model, optimizer, hyperparameters, seeds, images):
    def one_run(values, seed):
        return training.init_state(*configure(model, optimizer, values), seed, images)

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
            *configure(model, optimizer, values), state, train, order, batch_size,
            num_steps=num_steps, padded_batch_size=padded_batch_size,
        )  # fmt: skip

    group = jax.vmap(one_run, in_axes=(0, 0, None, None))
    groups = (hyperparameters, states, orders, batch_sizes)
    return jax.lax.map(lambda arguments: group(*arguments), groups, batch_size=groups_at_once)


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def evaluate(model, optimizer, hyperparameters, params, split: Split):
    batch_size = images_at_once(model, math.prod(jax.tree.leaves(params)[0].shape[:2]), split.images.shape[1:])

    def one_run(values, params):
        configured, _ = configure(model, optimizer, values)
        return training.evaluate(configured, params, split, batch_size=batch_size)

    return jax.vmap(jax.vmap(one_run))(hyperparameters, params)

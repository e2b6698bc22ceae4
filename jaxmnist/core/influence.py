"""Whether the examples of a batch influence each other's outputs, as they do under batch normalisation.

Shapes: B examples of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.core.inputs import random_key
from jaxmnist.core.model import Model

BATCH_SIZE = 4
# Compiled in a hurry, as it is run two or three times.
FAST_COMPILATION: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Interaction(NamedTuple):
    """Whether the examples of a batch have an influence on each other's outputs, or on the model's state."""

    in_training: bool
    in_evaluation: bool


def rows_interact(model: Model, example: jax.ShapeDtypeStruct) -> Interaction:
    """Returns whether an example of a batch has an influence on the outputs of the others, or on the model's state.

    Found out by trying: the last example is replaced, first by another one and then, if inputs are floats, by nan,
    which no arithmetic hides. Parameters are drawn at random, since initial ones may be zero.

    Args:
      model: the model.
      example: shape and dtype of one example of a split, `[1, ...]`.
    """
    is_float = example.dtype == jnp.uint8 or jnp.issubdtype(example.dtype, jnp.floating)
    shape = (BATCH_SIZE, *example.shape[1:])
    drawn = np.random.default_rng(0).uniform(size=shape) if is_float else np.indices(shape).sum(axis=0) % 2
    batch = drawn.astype(np.float32 if example.dtype == jnp.uint8 else example.dtype)
    lasts = [batch[-1], 1 - batch[-1], *([np.full_like(batch[-1], np.nan)] if is_float else [])]
    variables = _variables(model, batch[:1])
    calls = [(*variables, np.concatenate([batch[:-1], last[None]])) for last in lasts]

    def in_training(params, state, inputs):
        outputs, after = model.apply(params, state, inputs, training=True, key=random_key(0))
        return outputs[:-1], after

    def in_evaluation(params, state, inputs):
        return model.apply(params, state, inputs, training=False, key=None)[0][:-1]

    return Interaction(_differs(in_training, calls), _differs(in_evaluation, calls))


def _variables(model: Model, inputs: np.ndarray) -> tuple[Any, Any]:
    """Returns initial parameters, moved by a tenth of a normal variable, and the initial state."""

    def begin(inputs):
        return model.init(random_key(0), inputs)

    params, state = jax.jit(begin)(inputs)
    generator = np.random.default_rng(0)

    def moved(leaf):
        return leaf + (0.1 * generator.standard_normal(leaf.shape, np.float32)).astype(leaf.dtype)

    return jax.tree.map(moved, params), state


def examples_interact(function: Callable, arrays: tuple[np.ndarray, ...], leading: tuple = ()) -> bool:
    """Returns whether a function of arrays `[B, ...]` gives an example a value that depends on the other examples.

    Found out by trying, as for models; it also holds of `[B, 1]` outputs that are broadcast against `[B]` targets.

    Args:
      function: returns an array `[B, ...]`.
      arrays: `[B + 1, ...]`; the last two examples differ.
      leading: arguments before the arrays.
    """
    batches = [tuple(np.concatenate([array[:-2], array[[place]]]) for array in arrays) for place in (-2, -1)]
    return _differs(lambda *given: function(*given)[:-1], [(*leading, *batch) for batch in batches])


def _differs(function: Callable, calls: list[tuple]) -> bool:
    """Returns whether a function gives something else in one of several calls, with arguments of the same shapes."""
    compiled = jax.jit(function).lower(*calls[0]).compile(FAST_COMPILATION if jax.default_backend() == "cpu" else None)
    first, *others = (jax.tree.map(np.asarray, compiled(*jax.tree.map(jnp.asarray, given))) for given in calls)
    return any(not _equal(first, other) for other in others)


def _equal(some, others) -> bool:
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs)

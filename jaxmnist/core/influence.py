"""Whether the examples of a batch influence each other's outputs, as they do under batch normalisation.

Shapes: B examples of a batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.core.inputs import random_key
from jaxmnist.core.model import Model

BATCH_SIZE = 4
# Compiled in a hurry, as it is run two or three times.
FAST_COMPILATION: dict[str, Any] = {"xla_backend_optimization_level": 0}


def rows_interact(model: Model, example: jax.ShapeDtypeStruct, *, training: bool) -> bool:
    """Returns whether an example of a batch has an influence on the outputs of the others, or on the model's state.

    Found out by trying: the last example is replaced, first by another one and then, if inputs are floats, by nan,
    which no arithmetic hides. Parameters are drawn at random, since initial ones may be zero.

    Args:
      model: the model.
      example: shape and dtype of one example of a split, `[1, ...]`.
      training: whether to look at a call in training, or at one in evaluation.
    """
    key = random_key(0)

    def run(inputs):
        params, state = model.init(key, inputs[:1])
        leaves, structure = jax.tree.flatten(params)
        noise = [jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
        params = jax.tree.unflatten(structure, [leaf + 0.1 * each for leaf, each in zip(leaves, noise, strict=True)])
        outputs, after = model.apply(params, state, inputs, training=training, key=key if training else None)
        return outputs[:-1], after if training else ()

    is_float = example.dtype == jnp.uint8 or jnp.issubdtype(example.dtype, jnp.floating)
    shape = (BATCH_SIZE, *example.shape[1:])
    drawn = np.random.default_rng(0).uniform(size=shape) if is_float else np.indices(shape).sum(axis=0) % 2
    batch = drawn.astype(np.float32 if example.dtype == jnp.uint8 else example.dtype)
    others = [1 - batch[-1], *([np.full_like(batch[-1], np.nan)] if is_float else [])]
    return _differs(run, [(np.concatenate([batch[:-1], last[None]]),) for last in (batch[-1], *others)])


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

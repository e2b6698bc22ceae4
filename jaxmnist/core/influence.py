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
# Compiled in a hurry, as it is run twice.
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
    batch = jnp.asarray(drawn, jnp.float32 if example.dtype == jnp.uint8 else example.dtype)
    compiled = jax.jit(run).lower(batch).compile(FAST_COMPILATION if jax.default_backend() == "cpu" else None)
    others = [1 - batch[-1], *([jnp.full_like(batch[-1], jnp.nan)] if is_float else [])]
    expected = jax.tree.map(np.asarray, compiled(batch))
    return any(not _equal(expected, jax.tree.map(np.asarray, compiled(batch.at[-1].set(other)))) for other in others)


def examples_interact(function: Callable, *arrays: np.ndarray) -> bool:
    """Returns whether a function of arrays `[B, ...]` gives an example a value that depends on the other examples.

    Found out by trying, as for models; it also holds of `[B, 1]` outputs that are broadcast against `[B]` targets.

    Args:
      function: returns an array `[B - 1, ...]` or more.
      *arrays: `[B + 1, ...]`; the last two examples differ.
    """
    batches = [tuple(np.concatenate([array[:-2], array[[place]]]) for array in arrays) for place in (-2, -1)]
    first, second = (np.asarray(function(*map(jnp.asarray, batch)))[:-1] for batch in batches)
    return not _equal(first, second)


def _equal(some, others) -> bool:
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs)

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
# Compiled in a hurry, as it is called two or three times.
FAST_COMPILATION: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Interaction(NamedTuple):
    """Whether the examples of a batch have an influence on each other's outputs, or on the model's state."""

    in_training: bool
    in_evaluation: bool


def rows_interact(model: Model, example: jax.ShapeDtypeStruct) -> Interaction:
    """Returns whether an example of a batch has an influence on the outputs of the others, or on the model's state.

    Found out by trying: the last example is replaced, first by another one and then, if inputs are floats, by nan,
    which no arithmetic hides. Parameters are drawn at random, since initial ones may be zero.

    Training and evaluation are one program: where they are alike, the compiler finds that out.

    Args:
      model: the model.
      example: shape and dtype of one example of a split, `[1, ...]`.
    """
    becomes_float = example.dtype in (jnp.uint8, jnp.bool_)
    is_float = becomes_float or jnp.issubdtype(example.dtype, jnp.floating)
    shape = (BATCH_SIZE, *example.shape[1:])
    drawn = np.random.default_rng(0).uniform(size=shape) if is_float else np.indices(shape).sum(axis=0) % 2
    batch = drawn.astype(np.float32 if becomes_float else example.dtype)
    lasts = [batch[-1], 1 - batch[-1], *([np.full_like(batch[-1], np.nan)] if is_float else [])]
    variables = _variables(model, batch[:1])
    calls = [(*variables, np.concatenate([batch[:-1], last[None]])) for last in lasts]

    def apply(params, state, inputs):
        outputs, after = model.apply(params, state, inputs, training=True, key=random_key(0))
        evaluated, _ = model.apply(params, state, inputs, training=False, key=None)
        return (outputs[:-1], after), evaluated[:-1]

    return Interaction(*_differences(apply, calls))


def gives_numbers(model: Model, inputs: np.ndarray) -> bool:
    """Returns whether the outputs of inputs `[B, ...]` are finite, with parameters near the initial ones."""

    def outputs_of(params, state, inputs):
        return model.apply(params, state, inputs, training=False, key=None)[0]

    given = *_variables(model, inputs[:1]), inputs
    return bool(jnp.isfinite(_compiled(outputs_of, *given)(*jax.tree.map(jnp.asarray, given))).all())


def _variables(model: Model, inputs: np.ndarray) -> tuple[Any, Any]:
    """Returns parameters and the initial state.

    Kernels are drawn here, since their initialisers take longest to compile, such that deep networks neither blow up
    nor forget what they were given. Biases and scales are near the initial ones.
    """

    def begin(inputs):
        params, state = model.init(random_key(0), inputs)
        return jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype) if _is_kernel(leaf) else leaf, params), state

    shapes, _ = jax.eval_shape(model.init, random_key(0), inputs)
    initial, state = _compiled(begin, inputs)(inputs)
    generator = np.random.default_rng(0)

    def drawn(shape, initial):
        std = (2 * min(shape.shape) / max(shape.size, 1)) ** 0.5 if _is_kernel(shape) else 0.1
        return (np.asarray(initial) + std * generator.standard_normal(shape.shape)).astype(shape.dtype)

    return jax.tree.map(drawn, shapes, initial), state


def _is_kernel(leaf: Any) -> bool:
    return sum(extent > 1 for extent in leaf.shape) > 1


def examples_interact(function: Callable, arrays: tuple[np.ndarray, ...], leading: tuple = ()) -> bool:
    """Returns whether a function of arrays `[B, ...]` gives an example a value that depends on the other examples.

    Found out by trying, as for models; it also holds of `[B, 1]` outputs that are broadcast against `[B]` targets.

    Args:
      function: returns an array `[B, ...]`.
      arrays: `[B + 1, ...]`; the last two examples differ.
      leading: arguments before the arrays.
    """
    batches = [tuple(np.concatenate([array[:-2], array[[place]]]) for array in arrays) for place in (-2, -1)]
    calls = [(*leading, *batch) for batch in batches]
    return any(_differences(lambda *given: (function(*given)[:-1],), calls))


def _differences(function: Callable, calls: list[tuple]) -> list[bool]:
    """Returns whether each output of a function differs between calls with arguments of the same shapes."""
    compiled = _compiled(function, *calls[0])
    first, *others = (jax.tree.map(np.asarray, compiled(*jax.tree.map(jnp.asarray, given))) for given in calls)
    return [any(not _equal(output, other[place]) for other in others) for place, output in enumerate(first)]


def _compiled(function: Callable, *given: Any) -> Callable:
    return jax.jit(function).lower(*given).compile(FAST_COMPILATION if jax.default_backend() == "cpu" else None)


def _equal(some, others) -> bool:
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs)

"""The contract between a model and its training: two pure functions.

Training knows nothing else of a model. `adapters` make such functions of what other libraries call a model.

Shapes: B examples of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Model(NamedTuple):
    """A model as two pure functions.

    Attributes:
      init: `init(key, inputs) -> (params, state)`: the parameters, a tree of float arrays, which alone are trained; and
        whatever else the model remembers (running statistics, counters, constants), any tree of arrays, `{}` for
        nothing. The inputs `[1, ...]` are zeros; their shape and dtype matter.
      apply: `apply(params, state, inputs, *, training, key) -> (outputs, state)`: the outputs `[B, ...]` of inputs
        `[B, ...]`, and the state after them. `training` is a Python boolean; `key` is a random key in training and None
        in evaluation, whose state is not kept.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]


# Whatever `adapters.factory` makes a `Model` of: a flax linen module, a class or factory of NNX or Equinox modules, a
# Haiku transform, a pair of functions, or a `Model`.
ModelLike = Any
# The state of a model that remembers nothing but its parameters.
NO_STATE: dict = {}


class UnsupportedModel(ValueError):  # noqa: N818 (it is a limit of this version, not a mistake of the model's)
    """A model that would be trained wrongly."""

"""What training carries from step to step, and where it begins."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmnist.checks import SEED_OR_ARRAY, Where, checked_by
from jaxmnist.core import optimizers
from jaxmnist.core.arguments import DTYPE, MODEL, TRANSFORMATION
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.model import ModelLike
from jaxmnist.data.dataset import INPUTS

NEVER = -1


class State(NamedTuple):
    """What training carries from step to step.

    Attributes:
      key: the key that dropout and augmentation take theirs from, by step.
      step: `[]` int32, number of training steps taken.
      params: the model's parameters: a tree of float arrays, of a linen module its collection `params` itself.
      model_state: what else the model remembers, such as running statistics; it is not trained.
      opt_state: the optimizer's state.
      diverged_step: `[]` int32, the first training step (counted from 1) whose batch loss had diverged; `NEVER` (-1)
        if none.
    """

    key: jax.Array
    step: jax.Array
    params: optax.Params
    model_state: Any
    opt_state: optax.OptState
    diverged_step: jax.Array

    @property
    def has_diverged(self) -> jax.Array:
        """`[]` bool: whether a batch loss has diverged."""
        return self.diverged_step != NEVER


STATE = Where("a State, as init_state returns it,", lambda value: isinstance(value, State))


@checked_by(model=MODEL, optimizer=TRANSFORMATION, seed=SEED_OR_ARRAY, inputs=INPUTS, dtype=DTYPE)
def init_state(
    model: ModelLike,
    optimizer: optax.GradientTransformation,
    seed: jax.typing.ArrayLike,
    inputs: jax.Array,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> State:
    """Returns the state before the first step.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      optimizer: an optax gradient transformation.
      seed: `[]` int; it alone decides the initial parameters, what is dropped out, how inputs are augmented and
        the noise that an optimizer adds.
      inputs: `[N, ...]`, those of a split; only their shape and dtype are used.
      dtype: of all that is computed, float32 or float64, which needs `jax.enable_x64`. Parameters that the model makes
        narrower (bfloat16) stay as they are.

    Raises:
      ValueError: an argument is not as described above, the model does not take such inputs, or it would be trained
        wrongly.
    """
    key = random_key(seed)
    example = jnp.zeros((1, *inputs.shape[1:]), jax.dtypes.canonicalize_dtype(inputs.dtype))
    variables = model.init(key, to_unit_range(example, dtype))
    if jnp.dtype(dtype) == jnp.float64:
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf, variables)
    params, model_state = variables
    return State(
        key=jax.random.fold_in(key, 1),
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizers.init(optimizer, params, seed),
        diverged_step=jnp.full((), NEVER, jnp.int32),
    )

"""What training carries from step to step, and where it begins."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist.checks import SEED_OR_ARRAY, Where, checked_by
from jaxmnist.core.arguments import IMAGES, MODULE, TRANSFORMATION, check_start
from jaxmnist.core.model import init_params

NEVER = -1


class State(NamedTuple):
    """What training carries from step to step.

    Attributes:
      key: the key that dropout and augmentation take theirs from, by step.
      step: `[]` int32, number of training steps taken.
      params: the model's parameters, its collection `params` itself: a tree of float32 arrays.
      opt_state: the optimizer's state.
      diverged_step: `[]` int32, the first training step (counted from 1) whose batch loss had diverged; `NEVER` (-1)
        if none.
    """

    key: jax.Array
    step: jax.Array
    params: optax.Params
    opt_state: optax.OptState
    diverged_step: jax.Array


STATE = Where("a State, as init_state returns it,", lambda value: isinstance(value, State))


@checked_by(check_start, model=MODULE, optimizer=TRANSFORMATION, seed=SEED_OR_ARRAY, images=IMAGES)
def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: jax.typing.ArrayLike, images: jax.Array
) -> State:
    """Returns the state before the first step.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      seed: `[]` int; it alone decides the initial parameters, what is dropped out and how images are augmented.
      images: `[N, H, W, C]` uint8; only their shape is used.

    Raises:
      ValueError: an argument is not as described above, the model does not take such images, or it would be trained
        wrongly.
    """
    key = random_key(seed)
    params = init_params(model, key, images.shape[1:])
    return State(
        key=jax.random.fold_in(key, 1),
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        diverged_step=jnp.full((), NEVER, jnp.int32),
    )


def random_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """Returns the random key of a seed."""
    # Without its name, the implementation would be whatever JAX_DEFAULT_PRNG_IMPL says, and so would all numbers.
    return jax.random.key(seed, impl="threefry2x32")

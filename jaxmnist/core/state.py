"""What training carries from step to step, and where it begins."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist import checks
from jaxmnist.core import training_checks
from jaxmnist.core.model import check_flags, init_params, named

NEVER = -1


class State(NamedTuple):
    """What training carries from step to step.

    Attributes:
      key: the key that dropout and augmentation take theirs from, by step.
      step: `[]` int32, number of training steps taken.
      params: the model's parameters, its collection `params` itself: a tree of float32 arrays.
      opt_state: the optimizer's state.
      diverged_step: `[]` int32, the first training step (counted from 1) whose batch loss had `diverged`;
        `NEVER` (-1) if none.
    """

    key: jax.Array
    step: jax.Array
    params: optax.Params
    opt_state: optax.OptState
    diverged_step: jax.Array


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: jax.typing.ArrayLike, images: jax.Array
) -> State:
    """Returns the state before the first step.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      seed: `[]` int; it alone decides the initial parameters and what is dropped out
        and how images are augmented.
      images: `[N, H, W, C]` uint8; only their shape is used.

    Raises:
      ValueError: an argument is none of these, the model does not take such images, or it would be trained wrongly.
    """
    training_checks.check_built(model)
    training_checks.check_optimizer(optimizer)
    if checks.is_traced(seed):
        checks.array("seed", seed, "a whole number", "iu")
    else:
        checks.seed(seed.item() if getattr(seed, "shape", None) == () else seed)  # type: ignore[union-attr]
    training_checks.check_images("images", images)
    example = jnp.zeros((1, *images.shape[1:]), jnp.float32)
    key = random_key(seed)
    try:
        params = init_params(model, key, example)
        if not checks.is_traced(seed):  # in a sweep, `check` has done so
            check_flags(model, params, example, key)
    except model.UnsupportedModel:
        raise
    except Exception as error:  # flax raises many kinds
        raise ValueError(
            f"model {named(model)} cannot be initialised for images of shape {images.shape[1:]}: {checks.reason(error)}"
        ) from error
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

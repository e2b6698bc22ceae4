"""What a model is given: random keys, and inputs in the form in which it takes them."""

from typing import Any

import jax
import jax.numpy as jnp

# Without its name, the implementation would be whatever JAX_DEFAULT_PRNG_IMPL says, and so would all numbers.
KEY_IMPLEMENTATION = "threefry2x32"


def random_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """Returns the random key of a seed, `[]` int."""
    return jax.random.key(seed, impl=KEY_IMPLEMENTATION)


def to_unit_range(inputs: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """Returns uint8 inputs scaled to `[0, 1]`, the one place where that is done; other whole numbers as they are.

    Booleans are 0 and 1.

    Args:
      inputs: `[B, ...]`.
      dtype: of the result, float32 or float64; narrower floats keep theirs.
    """
    if inputs.dtype == jnp.uint8:
        return inputs.astype(dtype) / 255
    return inputs.astype(dtype) if inputs.dtype in (jnp.bool_, jnp.float32, jnp.float64) else inputs


def precision(params: Any) -> jax.typing.DTypeLike:
    """Returns float64 if some parameters are of that type, and float32 otherwise."""
    is_double = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(params))
    return jnp.float64 if is_double else jnp.float32

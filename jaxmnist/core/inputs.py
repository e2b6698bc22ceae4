"""What a model is given: random keys, and inputs in the form in which it takes them."""

import jax
import jax.numpy as jnp


def random_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """Returns the random key of a seed, `[]` int."""
    # Without its name, the implementation would be whatever JAX_DEFAULT_PRNG_IMPL says, and so would all numbers.
    return jax.random.key(seed, impl="threefry2x32")


def to_unit_range(inputs: jax.Array) -> jax.Array:
    """Returns uint8 inputs as float32 in `[0, 1]`, and all others as they are: the only place that scales."""
    return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs

"""Layers of our models that flax does not have, and the functions they are made of.

Shapes: B examples of a batch, C and F channels in and out.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# 1 / the standard deviation of max(x, 0) for a standard normal x.
RECTIFIER_GAIN = math.sqrt(2 / (1 - 1 / math.pi))


def standardise(kernel: jax.Array) -> jax.Array:
    """Returns a kernel `[height, width, C, F]` whose outputs, after rectification, have the variance of its inputs.

    Each output's weights get mean 0 and variance 1 / fan-in, times the gain of a rectified normal variable
    (Brock, De & Smith 2021, arXiv:2101.08692, equation 1 and section 2). For the optimizer this does what batch
    normalisation does, but it needs no state and no second set of statistics for evaluation, and padding does not
    affect it.
    """
    fan_in = math.prod(kernel.shape[:-1])
    centred = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(centred**2, axis=(0, 1, 2), keepdims=True)
    return centred * (RECTIFIER_GAIN * jax.lax.rsqrt(fan_in * variance + 1e-4))


class StandardisedConv(nn.Module):
    """A convolution of stride 1 with zeros beyond the border, whose kernel passes through `standardise`.

    Attributes:
      features: number of output channels F.
      kernel_size: height and width of the kernel.
      kernel_init: initialiser of the kernel `[height, width, C, F]`.
      bias_init: initialiser of the bias `[F]`.
    """

    features: int
    kernel_size: tuple[int, int]
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` float32 to `[B, H, W, F]` float32, scaled by a parameter `gain` `[F]`."""
        shape = (*self.kernel_size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        gain = self.param("gain", nn.initializers.ones, (self.features,), jnp.float32)
        scaled = standardise(kernel) * gain[None, None, None, :]
        dimensions = ("NHWC", "HWIO", "NHWC")
        outputs = jax.lax.conv_general_dilated(inputs, scaled, (1, 1), "SAME", dimension_numbers=dimensions)
        return outputs + bias[None, None, None, :]


def dropout(key: jax.Array, inputs: jax.Array, rate: jax.typing.ArrayLike) -> jax.Array:
    """Returns `inputs` with a share of its values, `rate`, set to 0, and the others divided by `1 - rate`.

    `flax.linen.Dropout` tests in Python whether the rate is 0, so it cannot be mapped over rates.

    Args:
      key: decides which values are dropped.
      inputs: of any shape, float32.
      rate: `[]` float, in `[0, 1)`; may be traced.
    """
    kept = jax.random.bernoulli(key, jnp.asarray(1 - rate, jnp.float32), inputs.shape)
    return jnp.where(kept, inputs / (1 - rate), 0.0)

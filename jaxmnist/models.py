"""Models: flax linen modules from images to logits.

Shapes: B examples of a batch, H x W pixels, C channels, F features, K classes.

A model that drops out does so where `apply` is given a key named `dropout`, as training does and evaluation does not.
"""

import itertools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.convolution import convolve

# 1 / the standard deviation of max(x, 0) for a standard normal x.
RECTIFIER_GAIN = math.sqrt(2 / (1 - 1 / math.pi))


class Dense(nn.Module):
    """A fully connected layer whose kernel has one row per output, `[features, inputs]`.

    `flax.linen.Dense` stores the transpose. With one row per output, the kernels of all runs under `vmap`
    lie in memory as one tall matrix, so runs that share their images train by one matrix product without
    a copy. Measured on CPU, this is 1.5 to 2 times faster for a sweep of softmax regressions.

    Attributes:
      features: number of outputs.
      kernel_init: initialiser of the kernel; it is asked for `[inputs, features]`, so every jax
        initialiser sees fan-in and fan-out where it expects them.
      bias_init: initialiser of the bias `[features]`.
    """

    features: int
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `[B, inputs]` float32 to `[B, features]` float32."""
        kernel = self.param(
            "kernel", lambda key, shape: self.kernel_init(key, shape, jnp.float32).T, (inputs.shape[-1], self.features)
        )
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return (kernel @ inputs.T + bias[:, None]).T


class SoftmaxRegression(nn.Module):
    """Softmax regression, initialised with zeros as in the original notebook.

    Attributes:
      num_classes: K.
      init_std: standard deviation of the normal initial weights; None for zeros.
    """

    num_classes: int = 10
    init_std: float | None = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""
        pixels = images.reshape(images.shape[0], -1)
        zeros = self.init_std is None
        init = nn.initializers.zeros if zeros else nn.initializers.normal(self.init_std)
        return Dense(self.num_classes, kernel_init=init)(pixels)


class MLP(nn.Module):
    """One hidden layer of rectified linear units.

    Attributes:
      hidden_size: number of hidden units.
      num_classes: K.
      init_scale: factor on the standard deviation of LeCun's initial weights, 1 / sqrt(fan-in).
    """

    hidden_size: int = 128
    num_classes: int = 10
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""
        pixels = images.reshape(images.shape[0], -1)
        init = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "truncated_normal")
        hidden = jnp.maximum(Dense(self.hidden_size, kernel_init=init)(pixels), 0.0)
        return Dense(self.num_classes, kernel_init=init)(hidden)


class Conv(nn.Module):
    """A convolution of stride 1 with SAME padding, fast in training loops and under `vmap`: see `convolve`.

    Parameters are those of `flax.linen.Conv`, by name, shape and value.

    Attributes:
      features: number of output channels F.
      kernel_size: height and width of the kernel, odd.
      kernel_init: initialiser of the kernel `[height, width, C, F]`.
      bias_init: initialiser of the bias `[F]`.
      standardised: whether the kernel passes through `standardise`; a parameter `gain` `[F]` then scales the outputs.
      pooled: whether the outputs pass through `max_pool`.
    """

    features: int
    kernel_size: tuple[int, int]
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros
    standardised: bool = False
    pooled: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` float32 to `[B, H, W, F]` float32, or to `[B, H // 2, W // 2, F]` where it pools."""
        shape = (*self.kernel_size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        if self.standardised:
            gain = self.param("gain", nn.initializers.ones, (self.features,), jnp.float32)
            kernel = standardise(kernel) * gain[None, None, None, :]
        outputs = convolve(inputs, kernel)
        # One bias for all pixels leaves each maximum where it is, and is added to a quarter as many.
        return (max_pool(outputs) if self.pooled else outputs) + bias[None, None, None, :]


@jax.custom_vjp
def max_pool(images: jax.Array) -> jax.Array:
    """Returns the maxima of 2x2 blocks, `[B, H, W, C]` to `[B, H // 2, W // 2, C]`; an odd last row is left out.

    Where several pixels of a block are its maximum, they share the gradient equally, as in jax's own.
    """
    return _blocks(images).max(axis=(2, 4))


def _blocks(images):
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels)


def _pool_forward(images):
    maxima = max_pool(images)
    return maxima, (images, maxima)


def _pool_backward(saved, grad):
    """Returns jax's own gradient in half the time: it takes no sum over an array as large as the images."""
    images, maxima = saved
    blocks, (_, height, width, _) = _blocks(images), images.shape
    corners = itertools.product(range(2), repeat=2)
    count = sum((blocks[:, :, i, :, j] == maxima).astype(jnp.float32) for i, j in corners)
    share = (grad / count)[:, :, None, :, None]
    of_blocks = jnp.where(blocks == maxima[:, :, None, :, None], share, 0.0)
    even = of_blocks.reshape(len(images), height // 2 * 2, width // 2 * 2, -1)
    return (jnp.pad(even, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]),)


max_pool.defvjp(_pool_forward, _pool_backward)


def standardise(kernel: jax.Array) -> jax.Array:
    """Returns a kernel `[height, width, C, F]` whose outputs, after rectification, have the variance of its inputs.

    Each output's weights get mean 0 and variance 1 / fan-in, times the gain of a rectified normal variable
    (Brock, De & Smith 2021, arXiv:2101.08692, equation 1 and section 2). It does what batch normalisation does for the
    optimizer, without a state, without a second set of statistics for evaluation, and without a word about padding.
    """
    fan_in = math.prod(kernel.shape[:-1])
    centred = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(centred**2, axis=(0, 1, 2), keepdims=True)
    return centred * (RECTIFIER_GAIN * jax.lax.rsqrt(fan_in * variance + 1e-4))


def dropout(key: jax.Array, inputs: jax.Array, rate: jax.typing.ArrayLike) -> jax.Array:
    """Returns `inputs` with a share of its values, `rate`, set to 0, and the others divided by `1 - rate`.

    `flax.linen.Dropout` asks in Python whether the rate is 0, and so cannot be mapped over rates.

    Args:
      key: what is dropped is drawn from it.
      inputs: of any shape, float32.
      rate: `[]` float, in `[0, 1)`; may be traced.
    """
    kept = jax.random.bernoulli(key, jnp.asarray(1 - rate, jnp.float32), inputs.shape)
    return jnp.where(kept, inputs / (1 - rate), 0.0)


class CNN(nn.Module):
    """Convolutions, 2x2 max pooling after some of them, perhaps a hidden layer, dropout; rectified linear units.

    The defaults are the original notebook's network.

    Attributes:
      features: output channels of each convolution.
      kernel_sizes: height and width of each convolution's kernel, odd.
      pool_after: after which convolutions, counted from 1, to pool.
      hidden_size: number of hidden units; 0 for no hidden layer.
      dropout_rate: share of the last layer's inputs dropped in training.
      standardised: whether the convolutions' kernels pass through `standardise`.
      init_std: standard deviation of the normal that the initial weights are drawn from, cut at two of them.
      init_bias: initial biases.
      num_classes: K.
    """

    features: tuple[int, ...] = (32, 64)
    kernel_sizes: tuple[int, ...] = (5, 5)
    pool_after: tuple[int, ...] = (1, 2)
    hidden_size: int = 1024
    dropout_rate: float = 0.5
    standardised: bool = False
    init_std: float = 0.1
    init_bias: float = 0.1
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32.

        Raises:
          ValueError: the kernel sizes are not one for each of the features, or pooling leaves no pixel.
        """
        init: dict = dict(
            kernel_init=nn.initializers.truncated_normal(self.init_std),
            bias_init=nn.initializers.constant(self.init_bias),
        )
        if len(self.kernel_sizes) != len(self.features):
            raise ValueError(f"kernel_sizes {self.kernel_sizes} are not one for each of features {self.features}")
        height, width = images.shape[1:3]
        if min(height, width) < 2 ** len(set(self.pool_after) & set(range(1, len(self.features) + 1))):
            raise ValueError(f"pool_after {self.pool_after} leaves no pixel of images of {height} x {width}")
        for index, (features, size) in enumerate(zip(self.features, self.kernel_sizes, strict=True), 1):
            pooled = index in self.pool_after
            # The maximum of four rectified values is their rectified maximum, at a quarter of the work.
            images = jnp.maximum(
                Conv(features, (size, size), standardised=self.standardised, pooled=pooled, **init)(images), 0.0
            )
        hidden = images.reshape(images.shape[0], -1)
        if self.hidden_size:
            hidden = jnp.maximum(nn.Dense(self.hidden_size, **init)(hidden), 0.0)
        if self.has_rng("dropout"):
            hidden = dropout(self.make_rng("dropout"), hidden, self.dropout_rate)
        return nn.Dense(self.num_classes, **init)(hidden)

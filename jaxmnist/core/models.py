"""Models: flax linen modules from images to logits.

Shapes: B examples of a batch, H x W pixels, C channels, F features, K classes.

A model that drops out does so where `apply` is given a key named `dropout`, as training does and evaluation does not.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.core.layers import Conv, Dense, dropout


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


# Folders and results name their model; only these can be named, so that a stranger's folder runs no code of its own.
MODELS: dict[str, type[nn.Module]] = {model.__name__: model for model in (SoftmaxRegression, MLP, CNN)}

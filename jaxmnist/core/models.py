"""Models: flax linen modules from images to logits.

Shapes: B examples of a batch, H x W pixels, C channels, F features, K classes.

Dropout is active if `apply` is given a key named `dropout`, which is so in training and not in evaluation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.core.fast.layers import Dense
from jaxmnist.core.layers import StandardisedConv, dropout


class SoftmaxRegression(nn.Module):
    """Softmax regression, by default initialised with zeros as in the original notebook.

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
    """Convolutions with 2x2 max pooling after some of them, an optional hidden layer, and dropout.

    All units are rectified linear. The defaults are the original notebook's network.

    Attributes:
      features: output channels of each convolution.
      kernel_sizes: height and width of each convolution's kernel, odd.
      pool_after: the convolutions, counted from 1, that are followed by pooling.
      hidden_size: number of hidden units; with 0 there is no hidden layer.
      dropout_rate: share of the last layer's inputs that are dropped in training.
      standardised: whether the convolutions' kernels pass through `standardise`.
      init_std: standard deviation of the normal distribution of the initial weights, which is truncated at two standard
        deviations.
      init_bias: initial value of all biases.
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
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""
        init: dict = dict(
            kernel_init=nn.initializers.truncated_normal(self.init_std),
            bias_init=nn.initializers.constant(self.init_bias),
        )
        convolution = StandardisedConv if self.standardised else nn.Conv
        for index, (features, size) in enumerate(zip(self.features, self.kernel_sizes, strict=True)):
            images = convolution(features, (size, size), name=f"Conv_{index}", **init)(images)
            if index + 1 in self.pool_after:
                images = nn.max_pool(images, (2, 2), (2, 2))
            # Rectified after pooling: the same values for a quarter of the work.
            images = jnp.maximum(images, 0.0)
        hidden = images.reshape(images.shape[0], -1)
        if self.hidden_size:
            hidden = jnp.maximum(nn.Dense(self.hidden_size, **init)(hidden), 0.0)
        if self.has_rng("dropout"):
            hidden = dropout(self.make_rng("dropout"), hidden, self.dropout_rate)
        return nn.Dense(self.num_classes, **init)(hidden)


# Saved models and results name their model. Only these names are accepted, so a stranger's file cannot run any code.
MODELS: dict[str, type[nn.Module]] = {model.__name__: model for model in (SoftmaxRegression, MLP, CNN)}

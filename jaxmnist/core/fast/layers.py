"""A layer whose form is chosen for speed: the parameters of a sweep in one tall matrix.

Shapes: B examples of a batch.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dense(nn.Module):
    """A fully connected layer whose kernel has one row per output, `[features, inputs]`.

    `flax.linen.Dense` stores the transpose. With one row per output, the kernels of all runs under `vmap` lie in memory
    as one tall matrix, so runs that share their images train by one matrix product without a copy. On CPU, a sweep of
    softmax regressions is 1.5 to 2 times faster (measured).

    Attributes:
      features: number of outputs.
      kernel_init: initialiser of the kernel; it is called with the shape `[inputs, features]`, so every jax
        initialiser finds fan-in and fan-out where it expects them.
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

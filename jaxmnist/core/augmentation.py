"""Random changes of training images, inside the compiled program.

Shapes: B examples of a batch, H x W pixels, C channels.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Affine:
    """Rotates, scales and shifts each image by amounts of its own, each uniform between its negative and itself.

    Pixels are interpolated bilinearly; beyond the border the image is 0.

    Attributes:
      rotation: largest angle, in degrees.
      scale: largest logarithm of the scale, of height and of width separately; 0.1 is about 10 per cent.
      shift: largest shift, in pixels, along height and width.
    """

    rotation: float = 10.0
    scale: float = 0.1
    shift: float = 2.0

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Returns `[B, H, W, C]` float32, changed.

        Args:
          key: what the amounts are drawn from.
          images: `[B, H, W, C]` float32.

        Raises:
          ValueError: the images have another number of dimensions.
        """
        if images.ndim != 4:
            raise ValueError(f"jm.Affine moves images [B, H, W, C], and these have the shape {list(images.shape)}")
        # The examples lead: what is drawn for one then depends on its place, and not on how many follow it.
        drawn = jax.random.uniform(key, (images.shape[0], 5), jnp.float32, minval=-1.0, maxval=1.0)
        amounts = drawn.T[..., None, None]
        angle = amounts[0] * math.radians(self.rotation)
        scale_y, scale_x = jnp.exp(amounts[1:3] * self.scale)
        shift_y, shift_x = amounts[3:] * self.shift
        center_y, center_x = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
        y = (jnp.arange(images.shape[1], dtype=jnp.float32) - center_y)[None, :, None]
        x = (jnp.arange(images.shape[2], dtype=jnp.float32) - center_x)[None, None, :]
        source_y = (jnp.sin(angle) * x + jnp.cos(angle) * y) * scale_y + shift_y + center_y
        source_x = (jnp.cos(angle) * x - jnp.sin(angle) * y) * scale_x + shift_x + center_x
        return sample(images, source_y, source_x)


def sample(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the bilinear interpolation of images at points between their pixels.

    Args:
      images: `[B, H, W, C]` float32; 0 is assumed beyond the border.
      y: `[B, H', W']` float32, rows.
      x: `[B, H', W']` float32, columns.

    Returns:
      `[B, H', W', C]` float32.
    """
    batch, height, width, channels = images.shape
    # One row and one column of zeros around the image stand for everything beyond it.
    padded = jnp.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)]).reshape(batch, -1, channels)
    top, left = jnp.floor(y), jnp.floor(x)

    def corner(row, column):
        row = jnp.clip(row.astype(jnp.int32) + 1, 0, height + 1)
        column = jnp.clip(column.astype(jnp.int32) + 1, 0, width + 1)
        flat = (row * (width + 2) + column).reshape(batch, -1, 1)
        return jnp.take_along_axis(padded, flat, axis=1).reshape(*y.shape, channels)

    down, right = (y - top)[..., None], (x - left)[..., None]
    upper = corner(top, left) * (1 - right) + corner(top, left + 1) * right
    lower = corner(top + 1, left) * (1 - right) + corner(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down

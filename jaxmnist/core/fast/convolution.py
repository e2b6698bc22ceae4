"""Convolutions of stride 1, fast where XLA's own are slow: inside loops on CPU, and under `vmap`.

Shapes: R runs, B examples of a batch, H x W pixels, C and F channels in and out.

XLA's convolution inside `lax.scan` on CPU is ten times slower than outside (its filter gradient;
https://github.com/jax-ml/jax/issues/12868), and under `vmap` it becomes a slow grouped one. So where there are
gradients, and under `vmap`, a convolution is written as matrix products, in one of two ways:

- patches times kernel: works for every kernel, and copies each pixel once per weight of the kernel;
- tiles: Winograd's minimal filtering, for square kernels of size 3 and 5 on CPU, needs 2.25 and 4 products per output
  instead of 9 and 25. The original CNN's second convolution takes half as long as with patches, forward and backward.

For one run's forward pass, XLA's own convolution is the fastest. On CPU it uses only one core, and takes half the time
if the same filtering is applied along the height alone, by bands.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np

TILE_OUTPUTS = 4
# Where polynomials are evaluated, besides infinity: the first 5 for size 3, all for size 5. Of the points tried, these
# have the smallest rounding errors: 1.5e-6 and 5e-6 of the largest output.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, 2.0, -0.5)
TILED_KERNEL_SIZES = (3, 5)
# With fewer channels, moving tiles takes longer than multiplying them.
MIN_TILED_CHANNELS = 8


@jax.custom_vjp
def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of stride 1 with zeros beyond the border.

    Args:
      images: `[B, H, W, C]` float32.
      kernel: `[height, width, C, F]` float32, height and width odd.

    Returns:
      `[B, H, W, F]` float32.
    """
    return _convolve_alone(images, kernel)


def _forward(images, kernel):
    return _convolve_by_products(images, kernel), (images, kernel)


def _backward(saved, grad):
    images, kernel = saved
    if is_tiled(kernel.shape):
        return tuple(each[0] for each in _tiled_gradients(images[None], kernel[None], grad[None]))
    return jax.vjp(convolve_by_patches, images, kernel)[1](grad)


convolve.defvjp(_forward, _backward)


def _convolve_by_products(images, kernel):
    return (convolve_by_tiles if is_tiled(kernel.shape) else convolve_by_patches)(images, kernel)


def is_tiled(kernel_shape):
    height, width, channels, _ = kernel_shape
    fits = height == width and height in TILED_KERNEL_SIZES and channels >= MIN_TILED_CHANNELS
    # The transforms would amplify the rounding errors of a GPU's default matrix products.
    return fits and jax.default_backend() == "cpu"


@jax.custom_batching.custom_vmap
def _convolve_alone(images, kernel):
    return (convolve_by_bands if is_tiled(kernel.shape) else _convolve_by_xla)(images, kernel)


def _convolve_by_xla(images, kernel):
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@_convolve_alone.def_vmap
def _convolve_under_vmap(axis_size, in_batched, images, kernel):
    in_axes = tuple(0 if batched else None for batched in in_batched)
    return jax.vmap(_convolve_by_products, in_axes)(images, kernel), True


def convolve_by_patches(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the same as `convolve`, by one matrix product of patches and kernel."""
    outputs = patches(images, kernel.shape[:2]).T @ kernel.reshape(-1, kernel.shape[-1])
    return outputs.reshape(*images.shape[:-1], kernel.shape[-1])


def patches(images: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns the patch around each pixel, zeros beyond the border.

    Args:
      images: `[B, H, W, C]`.
      size: height and width of a patch, odd.

    Returns:
      `[height * width * C, B * H * W]`, its rows in the order of a convolution's kernel. With few channels, copying
      whole rows is faster than copying a few numbers for each pixel.
    """
    height, width = images.shape[1:3]
    margins = [(extent // 2, extent // 2) for extent in size]
    padded = jnp.pad(images.transpose(3, 0, 1, 2), [(0, 0), (0, 0), *margins])
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(size[0]) for j in range(size[1])]
    return jnp.stack(shifted).reshape(len(shifted) * images.shape[-1], -1)


def convolve_by_bands(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the same as `convolve` for a square kernel, by XLA's convolutions of single rows.

    The columns of the kernel, and each band of 4 rows with the rows around it, are evaluated as polynomials at
    n = 3 + size points and transformed back to 4 rows. This is F(4, size), as in `convolve_by_tiles`, but along the
    height alone.
    """
    transforms = _transforms_of_axis(kernel.shape[0])
    height = images.shape[1]
    rows = _combined(transforms.inputs, _bands(images, kernel.shape[0]))
    kernels = jnp.einsum("ni,ijcf->njcf", transforms.kernel.astype(np.float32), kernel)
    outputs = [_convolve_by_xla(at_point, weights[None]) for at_point, weights in zip(rows, kernels, strict=True)]
    whole = jnp.stack(_combined(transforms.outputs, outputs), axis=2)
    return whole.reshape(len(images), -1, *whole.shape[3:])[:, :height]


def _bands(images, size):
    """Returns rows 0, 1, ... n - 1 of all bands, each `[B, rows, W, C]`."""
    batch, height, *within = images.shape
    padded = jnp.pad(images, [(0, 0), _margins(height, size), (0, 0), (0, 0)])
    blocks = padded.reshape(batch, -1, TILE_OUTPUTS, *within)
    places = (divmod(i, TILE_OUTPUTS) for i in range(TILE_OUTPUTS + size - 1))
    return [blocks[:, block : block + _num_tiles(height), row] for block, row in places]


def _num_tiles(extent):
    return -(-extent // TILE_OUTPUTS)


def _margins(extent, size):
    """Returns how many pixels to pad before and after an axis, to make it whole blocks that hold all tiles."""
    num_blocks = _num_tiles(extent) - 1 + _num_tiles(TILE_OUTPUTS + size - 1)
    return size // 2, num_blocks * TILE_OUTPUTS - extent - size // 2


def _combined(matrix, arrays):
    """Returns a matrix times a list of equally shaped arrays, written out so that XLA makes one loop of each row."""
    return [sum(float(factor) * array for factor, array in zip(row, arrays, strict=True) if factor) for row in matrix]


def convolve_by_tiles(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the same as `convolve` for a square kernel, by Winograd's minimal filtering F(4x4, size x size).

    Tiles of the images and the kernel are evaluated as polynomials at n = 3 + size points per axis, multiplied there,
    and transformed back to 4x4 outputs each (Lavin & Gray 2016, arXiv:1509.09308, equations 8 and 12).
    """
    return _tiled(images[None], kernel[None])[0]


def _with_runs(function):
    """Makes `vmap` of a function of arrays `[R, ...]` call that function once, with all runs as `[runs * R, ...]`.

    The usual `vmap` would put the runs before the points, and copy all arrays for each product with a transform.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def over_runs(axis_size, in_batched, *arrays):
        whole = [
            array if batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            for array, batched in zip(arrays, in_batched, strict=True)
        ]
        outputs = mapped(*(array.reshape(-1, *array.shape[2:]) for array in whole))
        outputs = jax.tree.map(lambda each: each.reshape(axis_size, -1, *each.shape[1:]), outputs)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return mapped


def _convolve_runs_by_tiles(images, kernel):
    num_runs, batch, height, width, _ = images.shape
    transforms = _transforms(kernel.shape[1])
    products = jnp.matmul(_images_at_points(images, transforms), _kernel_at_points(kernel, transforms))
    outputs = transforms.outputs @ products.reshape(len(transforms.inputs), -1)
    return _from_blocks(outputs, (num_runs * batch, height, width)).reshape(num_runs, batch, height, width, -1)


def _tiled_gradients_of_runs(images, kernel, grad):
    """Returns the gradients of images and kernel, by the transposes of the transforms.

    Automatic differentiation would give the same products, but contracted over the first axis of the transforms, which
    takes 1.4 times as long on CPU. The compiler sees that parts of the forward pass are repeated here, and computes
    them once.
    """
    transforms = _transforms(kernel.shape[1])
    num_points, num_runs = len(transforms.inputs), len(images)
    at_points, weights = _images_at_points(images, transforms), _kernel_at_points(kernel, transforms)
    blocks = _to_blocks(grad.reshape(-1, *grad.shape[2:]))
    grad_at_points = (_transposed(transforms.outputs) @ blocks).reshape(num_points, num_runs, -1, grad.shape[-1])
    grad_of_weights = jnp.einsum("nrtc,nrtf->nrcf", at_points, grad_at_points)
    grad_of_kernel = (_transposed(transforms.kernel) @ grad_of_weights.reshape(num_points, -1)).reshape(
        *kernel.shape[1:3], num_runs, *kernel.shape[3:]
    )
    grad_of_points = jnp.einsum("nrtf,nrcf->nrtc", grad_at_points, weights)
    pixels = images.reshape(-1, *images.shape[2:])
    tiles, to_pixels = jax.vjp(functools.partial(_tiles, size=kernel.shape[1]), pixels)
    grad_of_tiles = (_transposed(transforms.inputs) @ grad_of_points.reshape(num_points, -1)).reshape(tiles.shape)
    return to_pixels(grad_of_tiles)[0].reshape(images.shape), grad_of_kernel.transpose(2, 0, 1, 3, 4)


_tiled = _with_runs(_convolve_runs_by_tiles)
_tiled_gradients = _with_runs(_tiled_gradients_of_runs)


def _images_at_points(images, transforms):
    """Returns the tiles of images `[R, B, H, W, C]` at the points, `[n * n, R, B * rows * columns, C]`."""
    num_points, (num_runs, channels) = len(transforms.inputs), (images.shape[0], images.shape[-1])
    tiles = _tiles(images.reshape(-1, *images.shape[2:]), transforms.size)
    return (transforms.inputs @ tiles.reshape(num_points, -1)).reshape(num_points, num_runs, -1, channels)


def _kernel_at_points(kernel, transforms):
    """Returns kernels `[R, size, size, C, F]` at the points, `[n * n, R, C, F]`."""
    num_runs, size, _, channels, features = kernel.shape
    weights = kernel.transpose(1, 2, 0, 3, 4).reshape(size * size, -1)
    return (transforms.kernel @ weights).reshape(-1, num_runs, channels, features)


def _transposed(matrix):
    return np.ascontiguousarray(matrix.T)


class _Transforms(NamedTuple):
    """Matrices from pixels to points, from the weights of a kernel to points, and from points to outputs."""

    size: int
    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray


@functools.cache
def _transforms_of_axis(size: int) -> _Transforms:
    """Returns the matrices of one axis, with n points, n pixels and 4 outputs."""
    num_points = TILE_OUTPUTS + size - 1

    def powers(count):
        at_infinity = np.eye(count)[-1:]
        return np.concatenate([np.vander(POINTS[: num_points - 1], count, increasing=True), at_infinity])

    kernel, inputs = powers(size), np.linalg.inv(powers(num_points)).T
    inputs[np.abs(inputs) < 1e-12] = 0.0  # zeros that rounding has blurred would cost a product
    # Any factor may be moved from one matrix to the other; rows of similar size give the smallest rounding errors.
    balance = np.sqrt(np.abs(inputs).sum(1, keepdims=True) / np.abs(kernel).sum(1, keepdims=True))
    return _Transforms(size, inputs / balance, kernel * balance, powers(TILE_OUTPUTS).T)


@functools.cache
def _transforms(size: int) -> _Transforms:
    """Returns the matrices of both axes, with n^2 points, the n^2 pixels of a tile and 4x4 outputs."""
    return _Transforms(size, *(np.kron(matrix, matrix).astype(np.float32) for matrix in _transforms_of_axis(size)[1:]))


def _tiles(images, size):
    """Returns the pixels of the tiles, `[n, n, B, rows, columns, C]`: 4x4 blocks with the pixels beside them."""
    batch, height, width, channels = images.shape
    rows, columns, num_points = _num_tiles(height), _num_tiles(width), TILE_OUTPUTS + size - 1
    reach = _num_tiles(num_points)
    padded = jnp.pad(images, [(0, 0), _margins(height, size), _margins(width, size), (0, 0)])
    shape = (batch, rows + reach - 1, TILE_OUTPUTS, columns + reach - 1, TILE_OUTPUTS, channels)
    blocks = padded.reshape(shape).transpose(2, 4, 0, 1, 3, 5)
    below = jnp.concatenate([blocks[:, :, :, i : i + rows] for i in range(reach)], axis=0)[:num_points]
    return jnp.concatenate([below[:, :, :, :, j : j + columns] for j in range(reach)], axis=1)[:, :num_points]


def _from_blocks(outputs, extents):
    """Returns images `[B, H, W, F]` from blocks `[4 * 4, B * rows * columns * F]`, cropped to the border."""
    batch, height, width = extents
    rows, columns = _num_tiles(height), _num_tiles(width)
    blocks = outputs.reshape(TILE_OUTPUTS, TILE_OUTPUTS, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    whole = blocks.reshape(batch, rows * TILE_OUTPUTS, columns * TILE_OUTPUTS, -1)
    return whole[:, :height, :width]


def _to_blocks(images):
    """Returns the blocks of images `[B, H, W, F]`, `[4 * 4, B * rows * columns * F]`, zeros beyond the border."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, [(0, 0), (0, -height % TILE_OUTPUTS), (0, -width % TILE_OUTPUTS), (0, 0)])
    offsets = itertools.product(range(TILE_OUTPUTS), repeat=2)
    return jnp.stack([padded[:, i::TILE_OUTPUTS, j::TILE_OUTPUTS] for i, j in offsets]).reshape(TILE_OUTPUTS**2, -1)

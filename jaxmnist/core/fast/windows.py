"""Convolutions of any kind in terms of slices, fast where XLA's own are slow.

`convolve_generally` takes what jax's primitive takes, in any layout, and returns the same values but for rounding. It
is fast inside compiled loops and under `vmap`, where XLA's are not: see `convolution.py`.

Shapes: B examples of a batch, `...` their pixels along one or more axes, C and F channels in and out, K weights of
kernel, M pixels of all outputs.
"""

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from jaxmnist.core.fast.convolution import TILE_OUTPUTS, convolve, is_tiled

# A slice is made for each position of a kernel; more take long to compile.
MAX_KERNEL_POSITIONS = 128
# With fewer channels it is faster to copy whole rows of pixels than a few numbers of each.
MIN_CHANNELS_LAST = 8
# As many more tiles as this may be computed and thrown away, and it is still faster than with patches.
MAX_TILES_RATIO = {3: 1.5, 5: 2.0}


def can_convolve(images: Any, kernel: Any, **params: Any) -> bool:
    """Returns whether `convolve_generally` takes these shapes and the parameters of jax's convolution."""
    extents = [kernel.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
    is_small = math.prod(extents) <= MAX_KERNEL_POSITIONS or _is_one_patch_each(extents, params)
    is_floating = all(jnp.issubdtype(each.dtype, jnp.floating) for each in (images, kernel))
    is_plain = params["batch_group_count"] == 1 and params["out_sharding"] is None
    return is_floating and is_plain and bool(extents) and is_small and 0 not in images.shape + kernel.shape


def convolve_generally(images: jax.Array, kernel: jax.Array, **params: Any) -> jax.Array:
    """Returns what jax's primitive `conv_general_dilated` returns, with the same parameters.

    It has gradients in reverse mode only.
    """
    if _can_tile(images, kernel, params):
        return _in_layout(_by_tiles, images, kernel, params)
    products = functools.partial(_in_layout, _by_products, params=params)
    # As in `convolve`: for one run's forward pass, XLA's own convolution is the fastest.
    alone = jax.custom_batching.custom_vmap(functools.partial(primitives.conv_general_dilated_p.bind, **params))

    @alone.def_vmap
    def under_vmap(axis_size, in_batched, images, kernel):
        in_axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(products, in_axes)(images, kernel), True

    convolution = jax.custom_vjp(lambda images, kernel: alone(images, kernel))
    convolution.defvjp(
        lambda images, kernel: (products(images, kernel), (images, kernel)),
        lambda saved, grad: jax.vjp(products, *saved)[1](grad),
    )
    return convolution(images, kernel)


def _in_layout(function, images, kernel, params):
    """Calls a function of images `[B, ..., C]` and a kernel `[..., C, F]`, whatever layouts they have."""
    images_axes, kernel_axes, outputs_axes = params["dimension_numbers"]
    outputs = function(
        images.transpose(images_axes[0], *images_axes[2:], images_axes[1]),
        kernel.transpose(*kernel_axes[2:], kernel_axes[1], kernel_axes[0]),
        params,
    )
    placed = (outputs_axes[0], *outputs_axes[2:], outputs_axes[1])
    return outputs.transpose([placed.index(axis) for axis in range(outputs.ndim)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def add_bias(outputs: jax.Array, bias: jax.Array, axis: int) -> jax.Array:
    """Returns the sum of what was convolved and a number per channel, which lie along an axis that is not the last.

    It has gradients in reverse mode only. That of `outputs` is copied once, to where the channels come last, as both
    the convolution and the sum over pixels need it. XLA would sum it as it lies, and copy it twice.

    Args:
      outputs: of any shape and floating-point type.
      bias: of as many axes, all of length 1 but that of the channels.
      axis: that of the channels.
    """
    return outputs + bias


def _add_bias_forward(outputs, bias, axis):
    return add_bias(outputs, bias, axis), None


def _add_bias_backward(axis, _, grad):
    # Without the barrier, XLA would take the two transpositions for none.
    last = jax.lax.optimization_barrier(jnp.moveaxis(grad, axis, -1))
    shape = [grad.shape[axis] if each == axis else 1 for each in range(grad.ndim)]
    return jnp.moveaxis(last, -1, axis), last.sum(range(grad.ndim - 1)).reshape(shape)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def _padded(images, padding, dilation):
    """Returns images `[B, ..., C]` with zeros beyond the border, or without what a negative padding cuts off."""
    inner = [(before, after, step - 1) for (before, after), step in zip(padding, dilation, strict=True)]
    return jax.lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def _can_tile(images, kernel, params):
    """Returns whether `convolve` has tiles for a convolution, and the tiles beyond its border are few."""
    images_axes, kernel_axes, _ = params["dimension_numbers"]
    kernel_shape = tuple(kernel.shape[axis] for axis in (*kernel_axes[2:], kernel_axes[1], kernel_axes[0]))
    steps = {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]}
    is_float32 = {images.dtype, kernel.dtype} == {np.dtype("float32")}
    is_float32 &= params["preferred_element_type"] in (None, np.dtype("float32"))
    # The transforms round more than whoever asks for a precision expects.
    precisions = {params["precision"]} if not isinstance(params["precision"], tuple) else set(params["precision"])
    is_exact_asked = not precisions <= {None, jax.lax.Precision.DEFAULT}
    if len(kernel_shape) != 4 or steps != {1} or not is_float32 or is_exact_asked or not is_tiled(kernel_shape):
        return False
    size, ratio = kernel_shape[0], 1.0
    for axis, (before, after) in zip(images_axes[2:], params["padding"], strict=True):
        wanted = images.shape[axis] + before + after - size + 1
        computed = images.shape[axis] + max(before - size // 2, 0) + max(after - size // 2, 0)
        if wanted < 1:
            return False
        ratio *= -(-computed // TILE_OUTPUTS) / -(-wanted // TILE_OUTPUTS)
    return ratio <= MAX_TILES_RATIO[size]


def _by_tiles(images, kernel, params):
    """Returns the convolution of stride 1 by `convolve`, of images padded beyond its own zeros, and cropped."""
    size, groups = len(kernel), params["feature_group_count"]
    beyond = [(before - size // 2, after - size // 2) for before, after in params["padding"]]
    images = _padded(images, [(max(before, 0), max(after, 0)) for before, after in beyond], (1, 1))
    if groups == 1:
        outputs = convolve(images, kernel)
    else:
        images = images.reshape(*images.shape[:-1], groups, -1)
        kernel = kernel.reshape(*kernel.shape[:-1], groups, -1)
        outputs = jax.vmap(convolve, in_axes=(3, 3), out_axes=3)(images, kernel)
        outputs = outputs.reshape(*outputs.shape[:3], -1)
    return _padded(outputs, [(min(before, 0), min(after, 0)) for before, after in beyond], (1, 1))


def _by_products(images, kernel, params):
    """Returns the convolution of images `[B, ..., C]` and a kernel `[..., C / groups, F]`, `[B, ..., F]`."""
    images = _padded(images, params["padding"], params["lhs_dilation"])
    if params["feature_group_count"] == 1 or kernel.shape[-2] > 1:
        return _without_padding(images, kernel, params)
    convolution = jax.custom_vjp(lambda images, kernel: _without_padding(images, kernel, params))

    def backward(saved, grad):
        images, kernel = saved
        of_kernel = jax.vjp(lambda kernel: _without_padding(images, kernel, params), kernel)[1](grad)
        return _gradient_of_images(images, kernel, grad, params), *of_kernel

    convolution.defvjp(lambda images, kernel: (_without_padding(images, kernel, params), (images, kernel)), backward)
    return convolution(images, kernel)


def _gradient_of_images(images, kernel, grad, params):
    """Returns the gradient by a convolution. By channel, this takes an eighth of the time of automatic differentiation.

    With patches it would take longer.
    """
    groups, strides = params["feature_group_count"], params["window_strides"]
    axes = tuple(range(kernel.ndim - 2))
    split = jnp.flip(kernel, axes).reshape(*kernel.shape[:-1], groups, -1)
    mirrored = jnp.swapaxes(split, -3, -1).reshape(*kernel.shape[:-2], -1, images.shape[-1])
    margins = []
    for axis in axes:
        reach = params["rhs_dilation"][axis] * (kernel.shape[axis] - 1)
        margins.append((reach, images.shape[axis + 1] - (grad.shape[axis + 1] - 1) * strides[axis] - 1))
    grad = _padded(grad, margins, strides)
    return _without_padding(grad, mirrored, {**params, "window_strides": (1,) * len(axes)}).astype(images.dtype)


def _without_padding(images, kernel, params):
    groups, size = params["feature_group_count"], kernel.shape[:-2]
    if groups > 1 and kernel.shape[-2] == 1:
        return _by_channel(images, kernel, params)
    multiply = functools.partial(
        jnp.matmul, precision=params["precision"], preferred_element_type=params["preferred_element_type"]
    )
    patches, extents = _patches(images, size, params)
    if groups == 1:
        outputs = multiply(patches, kernel.reshape(-1, kernel.shape[-1]))
    else:
        rows = patches.reshape(len(patches), -1, groups, kernel.shape[-2]).transpose(2, 0, 1, 3)
        weights = kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups).transpose(2, 0, 1, 3)
        rows, weights = rows.reshape(*rows.shape[:2], -1), weights.reshape(groups, -1, weights.shape[-1])
        outputs = multiply(rows, weights).transpose(1, 0, 2)
    return outputs.reshape(len(images), *extents, -1)


def _is_one_patch_each(size, params):
    """Returns whether the patches lie side by side, so that no pixel is copied."""
    return tuple(size) == tuple(params["window_strides"]) and set(params["rhs_dilation"]) == {1}


def _patches(images, size, params):
    """Returns the patches of images `[B, ..., C]`, `[M, K * C]`, and how many there are along each axis."""
    channels, num_axes = images.shape[-1], len(size)
    if math.prod(size) > 1 and _is_one_patch_each(size, params):
        blocks, extents = blocks_of(images, (1, *size, 1))
        outer, inner = range(1, 2 * num_axes, 2), range(2, 2 * num_axes + 1, 2)
        return blocks.transpose(0, *outer, *inner, 2 * num_axes + 1).reshape(-1, math.prod(size) * channels), extents
    shape = (size, params["window_strides"], params["rhs_dilation"])
    if math.prod(size) == 1 or channels >= MIN_CHANNELS_LAST:
        shifted = slices(images, range(1, num_axes + 1), *shape)
        rows = jnp.concatenate([each.reshape(-1, channels) for each in shifted], axis=1)
        return rows, shifted[0].shape[1:-1]
    shifted = slices(jnp.moveaxis(images, -1, 0), range(2, num_axes + 2), *shape)
    return jnp.concatenate([each.reshape(channels, -1) for each in shifted]).T, shifted[0].shape[2:]


def _by_channel(images, kernel, params):
    """Returns the convolution of each channel with its own kernels: slices times weights, summed."""
    shape = (kernel.shape[:-2], params["window_strides"], params["rhs_dilation"])
    shifted = slices(images, range(1, images.ndim - 1), *shape)
    dtype = params["preferred_element_type"] or images.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    weights = kernel.astype(wide).reshape(len(shifted), *[1] * (images.ndim - 1), images.shape[-1], -1)
    terms = (each.astype(wide)[..., None] * weight for each, weight in zip(shifted, weights, strict=True))
    outputs = functools.reduce(operator.add, terms)
    return outputs.reshape(*outputs.shape[:-2], -1).astype(dtype)


def slices(
    array: jax.Array, axes: Sequence[int], size: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[jax.Array]:
    """Returns what lies below each position of a window as it moves along some axes of an array.

    The array is first divided into its phases, one per remainder of a position by the stride, so that each slice is
    contiguous; with strided ones, a gradient would be full of zeros.
    """
    phases: dict[tuple[int, ...], jax.Array] = {(): array}
    counts = []
    for axis, extent, stride, step in zip(axes, size, strides, dilation, strict=True):
        counts.append((array.shape[axis] - step * (extent - 1) - 1) // stride + 1)
        blocks = step * (extent - 1) // stride + counts[-1]
        phases = {
            (*place, phase): part
            for place, whole in phases.items()
            for phase, part in enumerate(_phases(whole, axis, stride, blocks))
        }
    shifted = []
    for position in itertools.product(*map(range, size)):
        offsets = [place * step for place, step in zip(position, dilation, strict=True)]
        whole = phases[tuple(offset % stride for offset, stride in zip(offsets, strides, strict=True))]
        for axis, offset, stride, count in zip(axes, offsets, strides, counts, strict=True):
            whole = jax.lax.slice_in_dim(whole, offset // stride, offset // stride + count, axis=axis)
        shifted.append(whole)
    return shifted


def _phases(array, axis, stride, num_blocks):
    """Returns an array's elements 0, stride, 2 * stride ... along an axis, those one further, and so on."""
    if stride == 1:
        return [array]
    margins = [(0, 0, 0)] * array.ndim
    margins[axis] = (0, num_blocks * stride - array.shape[axis], 0)
    whole = jax.lax.pad(array, jnp.zeros((), array.dtype), margins)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    parts = jax.lax.split(whole.reshape(*before, num_blocks, stride, *after), (1,) * stride, axis + 1)
    return [part.reshape(*before, num_blocks, *after) for part in parts]


def blocks_of(array: jax.Array, size: Sequence[int]) -> tuple[jax.Array, tuple[int, ...]]:
    """Returns an array with each axis of windows of more than 1 divided in two, and the numbers of windows there."""
    shape: list[int] = []
    counts: list[int] = []
    for length, extent in zip(array.shape, size, strict=True):
        shape += [length // extent, extent] if extent > 1 else [length]
        counts += [length // extent] if extent > 1 else []
    stops = [length // extent * extent for length, extent in zip(array.shape, size, strict=True)]
    return jax.lax.slice(array, [0] * array.ndim, stops).reshape(shape), tuple(counts)

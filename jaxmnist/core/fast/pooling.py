"""Pooling by slices, whose gradient takes a fraction of the time of XLA's own on CPU."""

import functools
import itertools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.core.fast.windows import blocks_of, slices

# A slice is made for each position of a window along one axis; more take long to compile.
MAX_WINDOW_EXTENT = 32
# Side by side, this many pixels of a window are compared at once; more, along one axis after the other.
MAX_BLOCK = 9
# By axis, what jax's primitive says of its windows; without dilation of the array, which is not taken.
GEOMETRY = ("window_dimensions", "window_strides", "window_dilation", "padding")


def can_pool(array: Any, **params: Any) -> bool:
    """Returns whether `max_pool_generally` and `sum_pool_generally` take this array and the parameters of jax's."""
    is_small = all(extent <= MAX_WINDOW_EXTENT for extent in params["window_dimensions"])
    is_plain = set(params["base_dilation"]) == {1} and 0 not in array.shape
    return jnp.issubdtype(array.dtype, jnp.floating) and is_plain and is_small


def sum_pool_generally(array: jax.Array, **params: Any) -> jax.Array:
    """Returns what jax's primitive `reduce_window_sum` returns, with the same parameters."""
    array = _padded_with(array, 0.0, params["padding"])
    for axis, window in _windows(params):
        array = functools.reduce(operator.add, slices(array, [axis], *([each] for each in window)))
    return array


def max_pool_generally(array: jax.Array, **params: Any) -> jax.Array:
    """Returns what jax's primitive `reduce_window_max` returns, with the same parameters.

    As there, the first of several equal maxima has the whole gradient. Gradients are in reverse mode only.
    """
    # Channels come last where they do not already: neighbouring numbers are then compared and copied together.
    still = [
        axis for axis, each in enumerate(zip(*map(params.get, GEOMETRY), strict=True)) if each == (1, 1, 1, (0, 0))
    ]
    if len(still) > 1 and still[-1] != array.ndim - 1:
        order = [still[0], *(axis for axis in range(array.ndim) if axis not in still), *still[1:]]
        moved = {name: tuple(params[name][axis] for axis in order) for name in GEOMETRY}
        return max_pool_generally(array.transpose(order), **moved).transpose(np.argsort(order))
    array = _padded_with(array, -jnp.inf, params["padding"])
    size = params["window_dimensions"]
    side_by_side = size == params["window_strides"] and set(params["window_dilation"]) == {1}
    if side_by_side and math.prod(size) <= MAX_BLOCK:
        return _max_of_blocks(array, tuple(size))
    # Along the last axis first: the first maximum of the first row that has one is the first in reading order.
    for axis, window in reversed(_windows(params)):
        array = _first_maximum(*slices(array, [axis], *([each] for each in window)))
    return array


def _windows(params):
    """Returns the axes along which a window is larger or moves further than 1, each with its size, stride, dilation."""
    each = zip(params["window_dimensions"], params["window_strides"], params["window_dilation"], strict=True)
    return [(axis, window) for axis, window in enumerate(each) if window[:2] != (1, 1)]


def _padded_with(array, value, padding):
    return jax.lax.pad(array, jnp.asarray(value, array.dtype), [(*margins, 0) for margins in padding])


@jax.custom_vjp
def _first_maximum(*arrays):
    return functools.reduce(jnp.maximum, arrays)


def _first_maximum_forward(*arrays):
    maxima = functools.reduce(jnp.maximum, arrays)
    return maxima, (arrays, maxima)


def _first_maximum_backward(saved, grad):
    arrays, maxima = saved
    first = _first_match(arrays, maxima)
    return tuple(jnp.where(first == place, grad, 0) for place in range(len(arrays)))


_first_maximum.defvjp(_first_maximum_forward, _first_maximum_backward)


def _first_match(arrays, wanted):
    """Returns the index of the first of the arrays whose element is the wanted one, for each element, int8."""
    first = jnp.full(wanted.shape, len(arrays) - 1, jnp.int8)
    for place in reversed(range(len(arrays) - 1)):
        first = jnp.where(arrays[place] == wanted, jnp.int8(place), first)
    return first


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_blocks(array, size):
    """Returns the maxima of windows that lie side by side."""
    blocks, _ = blocks_of(array, size)
    return blocks.max(_inner_axes(size))


def _inner_axes(size):
    """Returns the axes of `blocks_of` that lie within a window."""
    starts = itertools.accumulate((2 if extent > 1 else 1 for extent in size), initial=0)
    return tuple(start + 1 for start, extent in zip(starts, size, strict=False) if extent > 1)


def _max_of_blocks_forward(array, size):
    maxima = _max_of_blocks(array, size)
    return maxima, (array, maxima)


def _max_of_blocks_backward(size, saved, grad):
    array, maxima = saved
    (blocks, _), axes = blocks_of(array, size), _inner_axes(size)
    places = np.arange(math.prod(size)).reshape([blocks.shape[axis] for axis in axes])
    parts = [_part(blocks, axes, place) for place in np.ndindex(places.shape)]
    first = jnp.expand_dims(_first_match(parts, maxima), axes)
    shape = [blocks.shape[axis] if axis in axes else 1 for axis in range(blocks.ndim)]
    grad_of_blocks = jnp.where(first == places.reshape(shape).astype(np.int8), jnp.expand_dims(grad, axes), 0)
    even = grad_of_blocks.reshape([length // extent * extent for length, extent in zip(array.shape, size, strict=True)])
    rest = [(0, length % extent) for length, extent in zip(array.shape, size, strict=True)]
    return (jnp.pad(even, rest),)


_max_of_blocks.defvjp(_max_of_blocks_forward, _max_of_blocks_backward)


def _part(blocks, axes, place):
    index: list[Any] = [slice(None)] * blocks.ndim
    for axis, offset in zip(axes, place, strict=True):
        index[axis] = offset
    return blocks[tuple(index)]

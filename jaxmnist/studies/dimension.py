"""The dimension of a boundary, by counting boxes."""

from typing import NamedTuple

import numpy as np

# Boxes as large as the picture say nothing about how rough a boundary is.
MAX_BOX_SHARE = 1 / 8
MIN_BOX_SIZES = 3


class Dimension(NamedTuple):
    """A box-counting dimension and its fit, `log(count) = -dimension * log(size) + constant`.

    Attributes:
      dimension: the slope, by least squares.
      standard_error: that of the slope. All counts are taken from the same picture, so it says how straight the line
        is, and not how much the dimension varies between pictures.
      sizes: edge lengths of the boxes, in pixels.
      counts: how many boxes of each size hold a pixel of the set.
    """

    dimension: float
    standard_error: float
    sizes: tuple[int, ...]
    counts: tuple[int, ...]


def box_sizes(resolution: int) -> tuple[int, ...]:
    """Returns the edge lengths of the boxes: the powers of two from 1 to an eighth of the picture.

    Raises:
      ValueError: there are too few of them to fit a line with a standard error.
    """
    sizes = tuple(2**i for i in range(resolution.bit_length()) if 2**i <= MAX_BOX_SHARE * resolution)
    if len(sizes) < MIN_BOX_SIZES:
        least = round(2 ** (MIN_BOX_SIZES - 1) / MAX_BOX_SHARE)
        raise ValueError(f"resolution is {resolution}; a dimension can be estimated from {least} on")
    return sizes


def box_counts(pixels: np.ndarray, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns how many boxes of each size hold a pixel of the set `[N, N]`; boxes at the far edges may be cut off."""
    counts = []
    for size in sizes:
        margins = [(0, -extent % size) for extent in pixels.shape]
        padded = np.pad(pixels, margins)
        boxes = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size)
        counts.append(int(boxes.any(axis=(1, 3)).sum()))
    return tuple(counts)


def box_dimension(pixels: np.ndarray) -> Dimension:
    """Returns the box-counting dimension of a set of pixels, `[N, N]` bool.

    Raises:
      ValueError: the set is empty, or the picture is too small.
    """
    from scipy import stats

    sizes = box_sizes(min(pixels.shape))
    if not pixels.any():
        raise ValueError("a dimension needs a boundary, but either all runs converge or none does")
    counts = box_counts(pixels, sizes)
    fit = stats.linregress(np.log(sizes), np.log(counts))
    return Dimension(float(-fit.slope), float(fit.stderr), sizes, counts)

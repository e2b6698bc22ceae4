"""The dimension of a boundary, by counting boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmnist.analysis.intervals import CONFIDENCE, Interval

# Boxes as large as the picture say nothing about how rough a boundary is.
MAX_BOX_SHARE = 1 / 8
MIN_BOX_SIZES = 3
# Those of `boxcount` in porespy, which the paper used: up to ten sizes, the first of them ten pixels.
NUM_LOCAL_SIZES, LEAST_LOCAL_SIZE, MIN_LOCAL_RESOLUTION = 10, 10, 32
NUM_RESAMPLED = 2000


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
    return tuple(int(_boxes(pixels, size).sum()) for size in sizes)


def _boxes(pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns which boxes hold a pixel of the set `[N, N]`, as rows and columns of bool."""
    padded = np.pad(pixels, [(0, -extent % size) for extent in pixels.shape])
    return np.any(padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size), axis=(1, 3))


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


def local_slopes(pixels: np.ndarray) -> np.ndarray:
    """Returns the slopes of the box count between neighbouring sizes of boxes, one for each size.

    These are the slopes of `boxcount` in porespy 3.2: sizes are evenly spaced on a logarithmic scale from 10 pixels to
    the whole picture, and a box counts if it holds pixels of the set and others.

    Args:
      pixels: `[N, N]` bool, the set.

    Raises:
      ValueError: the picture is too small.
    """
    extent = min(pixels.shape)
    if extent < MIN_LOCAL_RESOLUTION - 1:  # the last row and column of a picture have no neighbours
        raise ValueError(f"resolution is {extent}; local slopes can be estimated from {MIN_LOCAL_RESOLUTION} on")
    # Computed as there, for rounding decides whether the last size is the picture's or one pixel less.
    spaced = np.logspace(np.log10(LEAST_LOCAL_SIZE), np.log10(extent), NUM_LOCAL_SIZES)
    sizes = np.unique(spaced.astype(int))
    counts = [(_boxes(pixels, size) & _boxes(~pixels, size)).sum() for size in sizes]
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.gradient(np.log(counts), np.log(sizes))


def median_slope(pictures: Sequence[np.ndarray]) -> Interval:
    """Returns the median of the local slopes of all pictures of a zoom, the estimator of Sohl-Dickstein 2024.

    The interval is a bootstrap over the pictures, each of which is taken as a whole with its slopes; a single picture
    has none.

    Args:
      pictures: sets of pixels, `[N, N]` bool each.

    Raises:
      ValueError: there is no picture, or one is too small.
    """
    if not pictures:
        raise ValueError("a dimension needs a boundary, but in each picture either all runs converge or none does")
    slopes = [each[np.isfinite(each)] for each in map(local_slopes, pictures)]
    median, count = float(np.median(np.concatenate(slopes))), len(slopes)
    if count == 1:
        return Interval(median, np.nan, np.nan, "1 picture, no interval")
    random = np.random.default_rng(0)
    drawn = random.integers(count, size=(NUM_RESAMPLED, count))
    medians = [np.median(np.concatenate([slopes[i] for i in rows])) for rows in drawn]
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(median, float(low), float(high), f"bootstrap interval over {count} pictures")

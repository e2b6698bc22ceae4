"""Confidence intervals."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxmnist import checks

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and the 95 % confidence interval around it.

    Attributes:
      mean: the mean, or the proportion.
      low: lower end; nan where there is none.
      high: upper end; nan where there is none.
      kind: in words, what the interval is and over how many of what.
    """

    mean: float
    low: float
    high: float
    kind: str


def interval(accuracies: npt.ArrayLike, num_images: int) -> Interval:
    """Returns the 95 % interval of an accuracy: Student's t over the seeds, or Wilson's over the images for one seed.

    Args:
      accuracies: one fraction per seed.
      num_images: size of the split.

    Raises:
      ValueError: there is no accuracy, one is below 0 or above 1, or the split has no size.
    """
    from scipy import stats

    checks.whole("num_images", num_images, 1)
    allowed = "a sequence of fractions in [0, 1], or nan,"
    values = checks.numbers_of("accuracies", accuracies, allowed, lambda x: np.isnan(x) | ((x >= 0) & (x <= 1)))
    mean = float(values.mean())
    if len(values) == 1:
        if math.isnan(mean):
            return Interval(mean, math.nan, math.nan, "no interval")
        wilson = stats.binomtest(round(mean * num_images), num_images).proportion_ci(CONFIDENCE, "wilson")
        return Interval(
            mean, float(wilson.low), float(wilson.high), f"Wilson interval over {num_images} images, 1 seed"
        )
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    low, high = max(mean - half_width, 0.0), min(mean + half_width, 1.0)
    return Interval(mean, low, high, f"t interval over {len(values)} seeds")

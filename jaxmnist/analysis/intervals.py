"""Confidence intervals."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxmnist.checks import Numbers, Whole, checked_by
from jaxmnist.host.display import shown_by

CONFIDENCE = 0.95
NO_INTERVAL = "1 seed, no interval"


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


def _rows(interval: "Interval") -> dict[str, str]:
    mean, _, ends = interval.text().partition(" ")
    return {"mean": mean, **({"interval": ends} if ends else {}), "kind": interval.words}


@shown_by(_rows)
class Interval(NamedTuple):
    """A mean and the 95 % confidence interval around it.

    Attributes:
      mean: the mean, or the proportion.
      low: lower end; nan if there is none.
      high: upper end; nan if there is none.
      kind: in words, the kind of interval, and the number of seeds or images that it is over.
    """

    mean: float
    low: float
    high: float
    kind: str

    @property
    def words(self) -> str:
        """The kind of interval with its level, if there is an interval."""
        return self.kind if self.kind == NO_INTERVAL else f"95 % {self.kind}"

    def text(self, number: Callable[[float], str] = _four_digits, unit: str = "") -> str:
        """Returns the mean, with a unit, and the interval, if there is one; `number` puts each into words."""
        ends = "" if math.isnan(self.low) else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.mean)}{unit}{ends}"


FRACTIONS = Numbers("a sequence of fractions in [0, 1], or nan,", lambda x: np.isnan(x) | ((x >= 0) & (x <= 1)))


def half_width(deviation: npt.ArrayLike, count: npt.ArrayLike) -> Any:
    """Returns half the width of the 95 % t interval of a mean (Student 1908), from a standard deviation and a count."""
    from scipy import special  # half a second faster to import than scipy.stats

    count = np.asarray(count, np.float64)
    freedom = np.where(count > 1, count - 1, np.nan)
    return special.stdtrit(freedom, (1 + CONFIDENCE) / 2) / np.sqrt(count) * np.asarray(deviation)


@checked_by(accuracies=FRACTIONS, num_images=Whole(1))
def interval(accuracies: npt.ArrayLike, num_images: int) -> Interval:
    """Returns the 95 % interval of an accuracy: Student's t over the seeds, or Wilson's over the images for one seed.

    Args:
      accuracies: one fraction per seed.
      num_images: size of the split.

    Raises:
      ValueError: there is no accuracy, one is below 0 or above 1, or the number of images is below 1.
    """
    values = np.asarray(accuracies, np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        if math.isnan(mean):
            return Interval(mean, math.nan, math.nan, "no interval")
        low, high = (float(end) for end in wilson(mean, num_images))
        return Interval(mean, low, high, f"Wilson interval over {num_images} images, 1 seed")
    found = t_interval(values)
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def wilson(shares: npt.ArrayLike, num_images: int) -> tuple[Any, Any]:
    """Returns the ends of the 95 % interval of shares of a number of images (Wilson 1927, JASA 22:209)."""
    from scipy import special

    z = special.ndtri((1 + CONFIDENCE) / 2)
    share = np.round(np.asarray(shares, np.float64) * num_images) / num_images
    centre = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    reach = z * np.sqrt(share * (1 - share) / num_images + (z / (2 * num_images)) ** 2) / (1 + z**2 / num_images)
    return np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)


def t_interval(values: npt.ArrayLike) -> Interval:
    """Returns the 95 % t interval of a mean over seeds, in the values' own unit; a single seed has none."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, NO_INTERVAL)
    width = float(half_width(values.std(ddof=1), len(values)))
    return Interval(mean, mean - width, mean + width, f"t interval over {len(values)} seeds")

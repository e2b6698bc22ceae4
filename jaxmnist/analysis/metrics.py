"""The metric that a result is judged by: its name, and which of its values are the best."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy.typing as npt
import xarray as xr

from jaxmnist.analysis.arguments import check_result, metric_names, varied
from jaxmnist.analysis.intervals import Interval, interval, t_interval
from jaxmnist.checks import Choice, Choices, Number


class Metric(NamedTuple):
    """What settings are compared by.

    Attributes:
      name: of a metric of the result, such as `"accuracy"` or `"loss"`.
      largest: whether its largest value is the best one; otherwise the smallest is.
    """

    name: str
    largest: bool

    @property
    def is_share(self) -> bool:
        """Whether it is a share of successes, which is shown in per cent."""
        return is_share(self.name)


def is_share(name: str) -> bool:
    """Returns whether a metric is a share of successes, which is shown in per cent."""
    return name == "accuracy"


def judged(result: xr.Dataset, by: str | None = None, largest: bool | None = None, argument: str = "by") -> Metric:
    """Returns the metric that a result is judged by: the accuracy if it has one, and otherwise the loss.

    Args:
      result: of a sweep.
      by: another metric of the result.
      largest: whether its largest value is the best; known of the accuracy (it is) and of the loss (it is not).
      argument: what the caller calls `by`.

    Raises:
      ValueError: the result has no such metric, or nobody says which of its values are the best.
    """
    by = named(result, by, argument)
    if largest is None and by not in ("accuracy", "loss"):
        raise ValueError(f"largest is None; True or False is needed for the {argument} {by!r}: is more of it better?")
    return Metric(by, by == "accuracy" if largest is None else bool(largest))


def named(result: xr.Dataset, metric: str | None, argument: str = "metric") -> str:
    """Returns a metric of a result by name: if none is given, the accuracy if it has one, and otherwise the loss.

    Raises:
      ValueError: the result has no such metric.
    """
    names = metric_names(result)
    if metric is None:
        return "accuracy" if "accuracy" in names else "loss"
    Choice(tuple(names)).check(argument, metric)
    return metric


def several_named(result: xr.Dataset, metrics: str | Sequence[str] | None) -> list[str]:
    """Returns metrics of a result by name, of which a single one may be given by itself; for None as `named`.

    Raises:
      ValueError: they are not distinct ones of the result.
    """
    if metrics is None:
        return [named(result, None)]
    Choices(tuple(metric_names(result)), single=True).check("metrics", metrics)
    return [metrics] if isinstance(metrics, str) else list(metrics)


def check_by(given: SimpleNamespace) -> None:
    """Raises ValueError if `result` cannot be judged `by` a metric, or lacks its values at the end."""
    name = judged(given.result, given.by, given.largest).name
    check_result(given.result, (f"validation_{name}", f"test_{name}"))


def check_varied(given: SimpleNamespace) -> None:
    """Raises ValueError if `result` cannot be judged `by` a metric, or holds one setting alone."""
    check_by(given)
    if not varied(given.result):
        raise ValueError("result holds one setting; several are needed, to compare their hyperparameters")


def check_target(given: SimpleNamespace) -> None:
    """Raises ValueError if `result` is judged by its accuracy, and `target` is no accuracy."""
    if judged(given.result, given.by, given.largest).is_share:
        Number("an accuracy between 0 and 1", lambda value: 0 < value < 1).check("target", given.target)


def shown_on_test(result: xr.Dataset, by: str) -> list[str]:
    """Returns the metrics whose values on the test split tables show: all but the loss, unless it is what counts."""
    return [name for name in metric_names(result) if name != "loss" or by == "loss"]


def interval_of(name: str, values: npt.ArrayLike, num_examples: int) -> Interval:
    """Returns the 95 % interval of a metric over seeds; that of a single seed only if it is a share of successes."""
    return interval(values, num_examples) if is_share(name) else t_interval(values)

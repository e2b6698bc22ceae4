"""Values, settings and metrics in words, and tables as text."""

import re
from collections.abc import Sequence
from typing import Any

import xarray as xr

from jaxmnist.analysis.arguments import axis_values
from jaxmnist.analysis.intervals import Interval
from jaxmnist.analysis.metrics import is_share
from jaxmnist.host.display import in_words

# `module.submodule.` before a name, as results write functions and classes.
_MODULES = re.compile(r"(?<![\w.])(?:[A-Za-z_]\w*\.|<locals>\.)+(?=[A-Za-z_<])")


def value_words(value: Any, among: Sequence[Any] = ()) -> str:
    """Returns the value of a hyperparameter in words: functions without their modules if that names one value alone.

    Args:
      value: a number, a boolean or a string.
      among: the values of the hyperparameter.
    """
    if not isinstance(value, str):
        return in_words(value)
    short = _MODULES.sub("", value)
    same = {each for each in among if isinstance(each, str) and _MODULES.sub("", each) == short}
    return value if same - {value} else short


def axis_words(result: xr.Dataset, name: str, value: Any) -> str:
    """Returns the value of a result's hyperparameter in words."""
    return value_words(value, axis_values(result)[name])


def setting_words(result: xr.Dataset, setting: dict) -> str:
    """Returns a setting in words, hyperparameter by hyperparameter."""
    return ", ".join(f"{name} {axis_words(result, name, value)}" for name, value in setting.items())


def metric_words(name: str) -> str:
    """Returns the name of a metric in words."""
    return name.replace("_", " ")


def number_words(name: str, value: float) -> str:
    """Returns the value of a metric: an accuracy in per cent, without the sign, and others with four digits."""
    return f"{100 * value:.2f}" if is_share(name) else f"{value:.4g}"


def interval_words(name: str, found: Interval, unit: str = " %") -> str:
    """Returns the mean of a metric and its interval, if it has one.

    Args:
      name: of the metric.
      found: its mean and interval.
      unit: what follows an accuracy.
    """
    return found.text(lambda value: number_words(name, value), unit if is_share(name) else "")


def margin_words(name: str, margin: float) -> str:
    """Returns within which margin of a metric settings are as good as the best, in words."""
    return f"within {100 * margin:g} points" if is_share(name) else f"within {margin:.2g}"


def target_words(name: str, target: float, split: str = "") -> str:
    """Returns the target of a metric in words, with a split if one is given."""
    return f"{100 * target:g} % {split}{name}" if is_share(name) else f"a {split}{metric_words(name)} of {target:g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, given its rows; each column is aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""Two settings compared seed by seed."""

import textwrap
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis.arguments import BY, CHOOSING_SPLIT, LARGEST, SETTINGS, WORDS, IsResult, varied
from jaxmnist.analysis.intervals import Interval, t_interval
from jaxmnist.analysis.metrics import judged
from jaxmnist.analysis.pairs import Pairs, check_pairs, effect_size, find_pairs, telling_words
from jaxmnist.analysis.selection import SETTING
from jaxmnist.checks import checked_by
from jaxmnist.plots.curves import title_words
from jaxmnist.plots.lines import split_words
from jaxmnist.plots.metrics import in_unit, label
from jaxmnist.plots.style import COLORMAP, Figure, house_style, hyperparameter_words, write_result_caption

COLOR = mpl.colormaps[COLORMAP](0.3)
MAX_LETTERS = 28  # of a line below one of the two


def _check_pairs(given: SimpleNamespace) -> None:
    check_pairs(given, given.split)


@checked_by(
    _check_pairs, result=IsResult(SETTINGS, WORDS), a=SETTING, b=SETTING, split=CHOOSING_SPLIT, by=BY, largest=LARGEST
)
def contrast(
    result: xr.Dataset,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    split: str = "validation",
    *,
    by: str | None = None,
    largest: bool | None = None,
) -> Figure:
    """Returns what two settings reach with each seed, and the paired differences with their 95 % t interval.

    Pairs are of runs with the same seed, so that what a seed does to both cancels (Student 1908, Biometrika 6:1). Seeds
    of which a run diverged are left out, and the caption counts them.

    Args:
      result: of a sweep.
      a: a setting: values of its hyperparameters. If they fit several settings, the best of these on validation is
        taken; the figure says which.
      b: the setting whose values are subtracted from those of `a`.
      split: `"validation"`, or `"test"`, where settings that were chosen on validation have no advantage from it.
      by: the metric to compare, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, or fewer than 2 seeds can be compared.
    """
    metric = judged(result, by, largest)
    found = find_pairs(result, (a, b), split, metric)
    found = found._replace(values=in_unit(metric.name, found.values))
    difference = found.values[0] - found.values[1]
    mean = t_interval(difference)
    unit = " (points)" if metric.is_share else ""
    quantity = f"{split_words(split)} {label(result, metric.name)}"
    with house_style():
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_both(left, found)
        left.set_ylabel(quantity)
        _draw_differences(right, difference, mean)
        right.set_ylabel(f"difference{unit}")
        figure.suptitle(title_words(result, split), x=0.01, ha="left", fontsize=11)
        words = "{:.2f} points [{:.2f}, {:.2f}]" if metric.is_share else "{:.3g} [{:.3g}, {:.3g}]"
        notes = (
            f"mean of a - b: {words.format(*mean[:3])}, {mean.words}",
            f"{effect_size(found.values):.2g} standard deviations: {telling_words(effect_size(found.values))}",
            "large: means with intervals",
            f"seeds left out since a run diverged: {found.num_left_out}" * bool(found.num_left_out),
        )
        write_result_caption(figure, found.result, *notes)
    return figure


def _draw_both(axes: Axes, found: Pairs) -> None:
    """Draws the seeds of both settings, joined, and their means."""
    axes.plot([0, 1], found.values, "o-", color="0.6", markersize=3.5, linewidth=0.8)
    for place, values in enumerate(found.values):
        _draw_mean(axes, (-0.18, 1.18)[place], t_interval(values))
    names = varied(found.result)
    labels = []
    for letter, setting in zip("ab", found.settings, strict=True):
        words = [textwrap.fill(hyperparameter_words(found.result, name, setting[name]), MAX_LETTERS) for name in names]
        labels.append("\n".join([letter, *words]))
    axes.set_xticks([0, 1], labels, fontsize=9)
    axes.set_xlim(-0.5, 1.5)
    axes.grid(axis="y", alpha=0.3)


def _draw_differences(axes: Axes, difference: np.ndarray, mean: Interval) -> None:
    """Draws the difference of each seed, and the mean of all."""
    axes.axhline(0, color="0.25", linewidth=1)
    axes.plot(np.linspace(-0.2, 0.2, len(difference)), difference, "o", color="0.6", markersize=3.5)
    _draw_mean(axes, 0.5, mean)
    axes.set_xticks([0, 0.5], ["a - b of\neach seed", "mean"], fontsize=9)
    axes.set_xlim(-0.4, 0.8)
    axes.grid(axis="y", alpha=0.3)


def _draw_mean(axes: Axes, place: float, found: Interval) -> None:
    bars = [[found.mean - found.low], [found.high - found.mean]]
    axes.errorbar([place], [found.mean], bars, fmt="o", color=COLOR, markersize=7, capsize=4, linewidth=1.6)

"""Figures of final accuracy, or another metric, against the learning rate."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import CHOOSING_SPLIT, METRIC, SETTINGS, WORDS, IsResult, check_result, check_shown
from jaxmnist.analysis.metrics import named
from jaxmnist.analysis.words import axis_words
from jaxmnist.checks import STRING, Choice, Where, checked_by
from jaxmnist.plots.curves import diverged_words, seed_words, title_words
from jaxmnist.plots.lines import split_words
from jaxmnist.plots.metrics import in_unit, is_wide, label, metric_ticks
from jaxmnist.plots.style import Figure, axis_label, house_style, line_style, write_result_caption


def _are_settings(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        best is None or (isinstance(best, results.Best) and "learning_rate" in best.setting) for best in value.values()
    )


def _check_rates(given: SimpleNamespace) -> None:
    names = [name for name in results.hyperparameters(given.result) if name not in ("seed", "learning_rate")]
    Choice(tuple(names)).check("by", given.by)
    check_shown(given.result, given.by, "learning_rate")
    check_result(given.result, (f"{given.split}_{named(given.result, given.metric)}",))


class _Line(NamedTuple):
    """One value of a hyperparameter.

    Attributes:
      rates: `[N]` learning rates.
      means: `[N]`, nan where runs diverged.
      bars: `[2, N]`, how far the interval reaches below and above each mean.
      has_diverged: `[N]` bool.
      label: the value in words.
    """

    rates: np.ndarray
    means: np.ndarray
    bars: np.ndarray
    has_diverged: np.ndarray
    label: str


def _draw(axes: Axes, line: _Line, best: results.Best | None, place: int, count: int) -> None:
    """Draws one of several lines, a ring around its best point, and crosses where runs diverged."""
    rates, means = line.rates, line.means
    style = line_style(place, count)
    bars = None if np.isnan(line.bars).all() else line.bars
    axes.errorbar(rates, means, bars, label=line.label, **style, capsize=2.5)
    if best is not None:
        at_best = rates == best.setting["learning_rate"]
        ring: dict = dict(markersize=13, markerfacecolor="none", markeredgewidth=1.5)
        axes.plot(rates[at_best], means[at_best], "o", color=style["color"], **ring)
    crossed = rates[line.has_diverged]
    if len(crossed):
        heights = np.full(len(crossed), 0.02 + 0.03 * place)
        axes.plot(crossed, heights, "x", color=style["color"], transform=axes.get_xaxis_transform())


@checked_by(
    _check_rates, result=IsResult(SETTINGS, WORDS, ("learning_rate",)), by=STRING,
    chosen=Where("a setting for each value, as best_of_each returns them,", _are_settings), split=CHOOSING_SPLIT,
    metric=METRIC,
)  # fmt: skip
def rate_curve(
    result: xr.Dataset,
    by: str,
    chosen: Mapping[Any, results.Best | None],
    split: str = "validation",
    metric: str | None = None,
) -> Figure:
    """Returns final accuracy, or another metric, against the learning rate: a line per value of one hyperparameter.

    Error bars are 95 % t intervals over seeds. The chosen learning rate of each line has a ring. If runs diverged,
    there is a gap, and a cross at the foot of the figure.

    Args:
      result: in whose settings nothing but `by` and `learning_rate` differs.
      by: the other hyperparameter, such as `optimizer`.
      chosen: value of `by` -> setting, as `results.best_of_each` returns them.
      split: `"validation"` or `"test"`.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.

    Raises:
      ValueError: the settings differ in anything else, or the result has no such metric.
    """
    metric = named(result, metric)
    # Which of its values are the best does not matter here: `chosen` says it.
    table = results.settings(result, metric, True).sort_values("learning_rate")
    column = f"{split}_{metric}"
    values = results.hyperparameters(result)[by]
    shown = table.loc[table["num_diverged"] == 0, column].to_numpy(float)
    is_log = is_wide(metric, shown)
    with house_style():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, value in enumerate(values):
            rows = table[table[by] == value]
            counts = int(rows["num_diverged"].sum()), int(rows["num_seeds"].sum())
            words = axis_words(result, by, value) + (f" ({diverged_words(*counts)})" if counts[0] else "")
            has_diverged = rows["num_diverged"].to_numpy() > 0
            means, half_widths = (
                np.where(has_diverged, np.nan, in_unit(metric, rows[name].to_numpy(float)))
                for name in (column, f"{column}_half_width")
            )
            # An interval may reach below 0, which a logarithmic axis cannot show.
            below = np.minimum(half_widths, 0.9 * means) if is_log else half_widths
            bars = np.stack([below, half_widths])
            line = _Line(rows["learning_rate"].to_numpy(float), means, bars, has_diverged, words)
            _draw(axes, line, chosen.get(value), place, len(values))
        if (table["learning_rate"] > 0).all():
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="learning rate", ylabel=f"{split_words(split)} {label(result, metric)}")
        if is_log:
            axes.set_yscale("log")
            metric_ticks(axes, shown.min(), shown.max())
        axes.grid(alpha=0.3)
        figure.legend(
            title=axis_label(by), loc="outside right upper", alignment="left", frameon=False, fontsize=9,
            handlelength=3.2,
        )  # fmt: skip
        axes.set_title(title_words(result, split), loc="left")
        notes = ["mean and 95 % t interval over " + seed_words(table), "ring: chosen on validation"]
        if table["num_diverged"].any():
            notes.append("cross: runs of this setting diverged")
        write_result_caption(figure, result, *notes)
    return figure

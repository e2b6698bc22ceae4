"""Figures of final accuracy against the learning rate."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import CHOOSING_SPLIT, SETTINGS, WORDS, IsResult, check_shown
from jaxmnist.checks import STRING, Choice, Where, checked_by
from jaxmnist.plots.curves import diverged_words, seed_words, split_words, title_words
from jaxmnist.plots.style import Figure, house_style, line_style, write_result_caption


def _are_settings(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        best is None or (isinstance(best, results.Best) and "learning_rate" in best.setting) for best in value.values()
    )


def _check_rates(given: SimpleNamespace) -> None:
    names = [name for name in results.hyperparameters(given.result) if name not in ("seed", "learning_rate")]
    Choice(tuple(names)).check("by", given.by)
    check_shown(given.result, given.by, "learning_rate")


@checked_by(
    _check_rates, result=IsResult(SETTINGS, WORDS, ("learning_rate",)), by=STRING,
    chosen=Where("a setting for each value, as best_of_each returns them,", _are_settings), split=CHOOSING_SPLIT,
)  # fmt: skip
def rate_curve(
    result: xr.Dataset, by: str, chosen: Mapping[Any, results.Best | None], split: str = "validation"
) -> Figure:
    """Returns final accuracy against the learning rate, one line per value of another hyperparameter.

    Error bars are 95 % t intervals over seeds. The chosen learning rate of each line has a ring. If runs diverged,
    there is a gap, and a cross at the foot of the figure.

    Args:
      result: in whose settings nothing but `by` and `learning_rate` differs.
      by: the other hyperparameter, such as `optimizer`.
      chosen: value of `by` -> setting, as `results.best_of_each` returns them.
      split: `"validation"` or `"test"`.

    Raises:
      ValueError: the settings differ in anything else.
    """
    table = results.settings(result).sort_values("learning_rate")
    values = results.hyperparameters(result)[by]
    with house_style():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, value in enumerate(values):
            rows = table[table[by] == value]
            rates = rows["learning_rate"].to_numpy(float)
            has_diverged = rows["num_diverged"].to_numpy() > 0
            mean = np.where(has_diverged, np.nan, 100 * rows[f"{split}_accuracy"].to_numpy(float))
            half_width = np.where(has_diverged, np.nan, 100 * rows[f"{split}_accuracy_half_width"].to_numpy(float))
            style = line_style(place, len(values))
            counts = int(rows["num_diverged"].sum()), int(rows["num_seeds"].sum())
            name = f"{value} ({diverged_words(*counts)})" if counts[0] else str(value)
            bars = None if np.isnan(half_width).all() else half_width
            axes.errorbar(rates, mean, bars, label=name, **style, capsize=2.5)
            best = chosen.get(value)
            if best is not None:
                point = best.setting["learning_rate"], 100 * getattr(best, split).mean
                axes.plot(*point, "o", markersize=13, markerfacecolor="none", color=style["color"], markeredgewidth=1.5)
            if has_diverged.any():
                heights = np.full(has_diverged.sum(), 0.02 + 0.03 * place)
                foot = axes.get_xaxis_transform()
                axes.plot(rates[has_diverged], heights, "x", color=style["color"], transform=foot)
        if (table["learning_rate"] > 0).all():
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="learning rate", ylabel=f"{split_words(split)} accuracy (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, handlelength=3.2)
        axes.set_title(title_words(result, split), loc="left")
        notes = ["mean and 95 % t interval over " + seed_words(table), "ring: chosen on validation"]
        if table["num_diverged"].any():
            notes.append("cross: runs of this setting diverged")
        write_result_caption(figure, result, *notes)
    return figure

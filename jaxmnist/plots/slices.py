"""Slices through a result: each hyperparameter against the metric, all settings and the best of the rest."""

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, CHOOSING_SPLIT, LARGEST, SETTINGS, WORDS, IsResult, varied
from jaxmnist.analysis.metrics import Metric, check_varied, judged
from jaxmnist.checks import checked_by
from jaxmnist.plots.cells import is_hidden
from jaxmnist.plots.curves import mean_words, title_words
from jaxmnist.plots.lines import split_words
from jaxmnist.plots.metrics import in_unit, is_wide, label, lower_fence, metric_ticks
from jaxmnist.plots.panels import MAX_VECTORS
from jaxmnist.plots.rulers import Ruler, draw_numbers, draw_ruler, in_intervals, num_intervals, ruler
from jaxmnist.plots.style import COLORMAP, Figure, house_style, write_result_caption

MAX_COLUMNS = 3
MAX_PLACES = 12  # so many numbers have places of their own even if the settings are no grid
LINE: dict = dict(color=mpl.colormaps[COLORMAP](0.3), marker="o", markersize=4.5, linewidth=1.4, capsize=2)
# What a figure that compares settings takes.
COMPARED: dict = dict(
    result=IsResult(SETTINGS, (*WORDS, "num_validation", "num_test")), split=CHOOSING_SPLIT, by=BY, largest=LARGEST
)
FOOT, EDGE = 0.025, 0.06  # heights of marks at the foot of a panel, as shares of it


class _Settings(NamedTuple):
    """What all panels share.

    Attributes:
      table: of settings, the best first, those without a mean last.
      values: `[S]` means over seeds in the unit shown, nan for a setting that has none.
      bars: `[S]` half the widths of their intervals.
      limits: of the vertical axes.
      is_log: whether these are logarithmic.
    """

    table: pd.DataFrame
    values: np.ndarray
    bars: np.ndarray
    limits: tuple[float, float]
    is_log: bool


@checked_by(check_varied, **COMPARED)
def slices(
    result: xr.Dataset, split: str = "validation", *, by: str | None = None, largest: bool | None = None
) -> Figure:
    """Returns accuracy, or another metric, against each hyperparameter that has several values, a panel for each.

    A dot is the mean of a setting over its seeds. Dark is the best setting of each value on validation,
    whatever its other hyperparameters are, with the 95 % t intervals of these; numbers that were drawn at random are
    put into intervals, each of which has its best setting. A ring is around the best setting of all.
    Crosses at the foot are settings with a run that diverged or was pruned, and triangles those that lie far below the
    others (under Tukey's lower fence; above the upper one, if the smallest values are the best).

    Args:
      result: of a grid, a sample, a union or a search, or a selection of its runs.
      split: `"validation"` or `"test"`.
      by: the metric to show and to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, or the result holds one setting.
    """
    metric = judged(result, by, largest)
    table = results.settings(result, *metric)
    hidden = is_hidden(result, table, metric)
    table = table.assign(hidden=hidden).sort_values("hidden", kind="stable", ignore_index=True)
    lined = {name: _best_of_rest(result, table, name) for name in varied(result)}
    shown = _settings(table, f"{split}_{metric.name}", metric, lined)
    rows = -(-len(lined) // MAX_COLUMNS)
    with house_style():
        figure = Figure(figsize=(7.2, 1.5 + 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, min(len(lined), MAX_COLUMNS), squeeze=False, sharey=True)
        for axes in grid.flat[len(lined) :]:
            axes.set_axis_off()
        for axes, (name, places) in zip(grid.flat, lined.items(), strict=False):
            _draw(axes, result, shown, name, places)
        for row in grid:
            row[0].set_ylabel(f"{split_words(split)} {label(result, metric.name)}")
        figure.suptitle(title_words(result, split), x=0.01, ha="left", fontsize=11)
        write_result_caption(figure, result, *_notes(shown))
    return figure


def _best_of_rest(result: xr.Dataset, table: pd.DataFrame, name: str) -> tuple[Ruler, np.ndarray]:
    """Returns the ruler of a hyperparameter, and the rows that are the best of its values, in their order."""
    found, count = ruler(result, name), num_intervals(len(table))
    if "run" in result.dims and found.is_numeric and found.size > max(count, MAX_PLACES):
        found = in_intervals(found, count)
    sane = table[~table["hidden"]]
    _, first = np.unique(found.places(sane[name]), return_index=True)
    return found, first


def _settings(table: pd.DataFrame, column: str, metric: Metric, lined: dict) -> _Settings:
    values = np.where(table["hidden"], np.nan, in_unit(metric.name, table[column].to_numpy(float)))
    bars = np.where(table["hidden"], np.nan, in_unit(metric.name, table[f"{column}_half_width"].to_numpy(float)))
    known = values[np.isfinite(values)]
    if not known.size:
        return _Settings(table, values, bars, (0.0, 1.0), False)
    is_log = is_wide(metric.name, known)
    kept = known[lower_fence(known, metric, is_log)]
    best = np.unique(np.concatenate([first for _, first in lined.values()]))
    below = np.minimum(bars[best], 0.5 * values[best]) if is_log else bars[best]
    reach = values[best] - np.nan_to_num(below), values[best] + np.nan_to_num(bars[best])
    ends = np.concatenate([kept, *reach])
    ends = np.clip(ends, 0, 100) if metric.is_share else ends
    low, high = (np.log(ends.min()), np.log(ends.max())) if is_log else (ends.min(), ends.max())
    margin = 0.05 * (high - low) or abs(high) or 1.0
    # Below, there is room for the marks at the foot.
    low, high = low - 2 * margin, high + margin
    return _Settings(table, values, bars, (np.exp(low), np.exp(high)) if is_log else (low, high), is_log)


def _draw(axes: Axes, result: xr.Dataset, shown: _Settings, name: str, best: tuple[Ruler, np.ndarray]) -> None:
    """Draws the panel of a hyperparameter."""
    found, first = best
    column = shown.table[name]
    if found.edges is None:
        centres, _ = draw_ruler(axes, "x", result, found, max_ticks=5)
        x = centres[found.places(column)]
    else:
        draw_numbers(axes, "x", found)
        x = column.to_numpy(float)
    if shown.is_log:
        axes.set_yscale("log")
        metric_ticks(axes, *shown.limits)
    axes.set_ylim(*shown.limits)
    dots: dict = dict(linestyle="none", color="0.6", markeredgewidth=0, rasterized=len(x) > MAX_VECTORS)
    axes.plot(x, shown.values, "o", **dots, markersize=3.5, alpha=0.8 if len(x) < 300 else 0.4)
    foot = axes.get_xaxis_transform()
    is_low, is_high = shown.values < shown.limits[0], shown.values > shown.limits[1]
    for outside, marker, height in ((is_low, "v", EDGE), (is_high, "^", 1 - EDGE)):
        axes.plot(x[outside], np.full(outside.sum(), height), marker, **dots, transform=foot, markersize=4)
    hidden = shown.table["hidden"].to_numpy()
    crosses: dict = dict(color="0.3", markersize=4, rasterized=len(x) > MAX_VECTORS)
    axes.plot(x[hidden], np.full(hidden.sum(), FOOT), "x", **crosses, transform=foot)
    low = np.minimum(shown.bars, 0.5 * shown.values) if shown.is_log else shown.bars
    bars = np.stack([low, shown.bars])[:, first]
    # Names have no order in which a line could lead through them.
    style = LINE if found.is_numeric else LINE | {"linestyle": "none"}
    axes.errorbar(x[first], shown.values[first], None if np.isnan(bars).all() else bars, **style)
    if len(first):
        axes.plot(x[0], shown.values[0], "o", color=LINE["color"], markersize=11, markerfacecolor="none")
    axes.grid(axis="y", alpha=0.3)


def _notes(shown: _Settings) -> list[str]:
    """Returns what the marks mean."""
    sane = ~shown.table["hidden"].to_numpy()
    has_bars = bool(np.isfinite(shown.bars).any())
    low, high = shown.limits
    notes = {
        f"dots: settings, {mean_words(shown.table)}": True,
        "dark: the best setting of each value on validation" + ", with its 95 % t interval" * has_bars: True,
        "ring: the best of all": sane.any(),
        "crosses: a run diverged" + " or was pruned" * ("pruned_step" in shown.table): not sane.all(),
        "triangles: outside the axes": ((shown.values < low) | (shown.values > high)).any(),
    }
    return [words for words, is_shown in notes.items() if is_shown]

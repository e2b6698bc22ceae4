"""Parallel coordinates: all hyperparameters of all settings, and where each setting ends on the scale of the metric."""

import textwrap

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import varied
from jaxmnist.analysis.metrics import check_varied, judged
from jaxmnist.analysis.words import axis_words
from jaxmnist.checks import checked_by
from jaxmnist.plots.cells import is_hidden
from jaxmnist.plots.curves import mean_words, title_words
from jaxmnist.plots.metrics import Colors, color_bar, colors, in_unit, label
from jaxmnist.plots.panels import LETTER_WIDTH, MAX_VECTORS
from jaxmnist.plots.rulers import Ruler, is_logarithmic, ruler
from jaxmnist.plots.slices import COMPARED
from jaxmnist.plots.style import Figure, axis_label, house_style, round_numbers, tick_words, write_result_caption

MAX_TICKS = 9
ARROW = 0.05  # length of that of the colour bar, relative to the colours
MARGIN = 0.04  # between the ends of an axis and its first and last value


@checked_by(check_varied, **COMPARED)
def parallel(
    result: xr.Dataset, split: str = "validation", *, by: str | None = None, largest: bool | None = None
) -> Figure:
    """Returns a line for each setting through its values of all hyperparameters that differ, up to its metric.

    The hyperparameters are vertical axes; lines end on the colour bar at the mean over seeds, and have its colour. The
    best settings are drawn on top. Few values, and names, are spaced evenly; many numbers lie on a linear or a
    logarithmic axis. Settings with a run that diverged or was pruned are grey and end before the colour bar.

    Args:
      result: of a grid, a sample, a union or a search, or a selection of its runs.
      split: `"validation"` or `"test"`.
      by: the metric to show, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, or the result holds one setting.
    """
    metric = judged(result, by, largest)
    table = results.settings(result, *metric)
    hidden = is_hidden(result, table, metric)
    values = np.ma.masked_array(in_unit(metric.name, table[f"{split}_{metric.name}"].to_numpy(float)), hidden)
    order = np.argsort(np.where(hidden, -np.inf, values.data if metric.largest else -values.data), kind="stable")
    scale = colors(values, metric)
    names = varied(result)
    with house_style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        heights = np.empty((len(table), len(names)))
        width = int(5.2 / len(names) / (9 * LETTER_WIDTH))
        for place, name in enumerate(names):
            heights[:, place] = _draw_axis(axes, place, result, ruler(result, name), table[name])
        _draw_lines(axes, heights[order], values[order], scale)
        labels = [textwrap.fill(axis_label(name).split(" (")[0], max(width, 6)) for name in names]
        axes.set_xticks(range(len(names)), labels, fontsize=9)
        axes.tick_params("x", length=0, pad=4)
        axes.set(xlim=(-0.12, len(names)), ylim=(0, 1), yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
        drawn = ScalarMappable(scale.norm, scale.cmap)
        color_bar(figure, drawn, axes, f"{split} {label(result, metric.name)}", scale.extend, pad=0.0, extendfrac=ARROW)
        axes.set_title(title_words(result, split), loc="left")
        grey = ("grey: a run diverged" + " or was pruned" * ("pruned_step" in table)) * bool(hidden.any())
        write_result_caption(figure, result, f"lines: settings, {mean_words(table)}", grey)
    return figure


def _draw_axis(axes: Axes, place: int, result: xr.Dataset, shown: Ruler, column: pd.Series) -> np.ndarray:
    """Draws the axis of a hyperparameter with its values, and returns the heights `[S]` of those of the settings."""
    if shown.is_numeric and shown.size > MAX_TICKS:
        numbers = np.array(shown.values, np.float64)
        forth = np.log if is_logarithmic(numbers) else np.asarray
        low, high = forth(numbers.min()), forth(numbers.max())
        ticks = round_numbers(numbers.min(), numbers.max(), is_logarithmic(numbers))
        words, at = tick_words(ticks), MARGIN + (1 - 2 * MARGIN) * (forth(ticks) - low) / (high - low)
        heights = MARGIN + (1 - 2 * MARGIN) * (forth(column.to_numpy(float)) - low) / (high - low)
    else:
        at = np.linspace(MARGIN, 1 - MARGIN, shown.size) if shown.size > 1 else np.array([0.5])
        heights = at[shown.places(column)]
        names = [axis_words(result, shown.name, value) for value in shown.values]
        words = tick_words(np.array(shown.values)) if shown.is_numeric else np.array(names)
        step = -(-shown.size // (2 * MAX_TICKS))
        at, words = at[::step], words[::step]
    axes.axvline(place, color="0.25", linewidth=1, zorder=3)
    box = dict(facecolor="white", edgecolor="none", alpha=0.85, pad=0.8)
    for height, word in zip(at, words, strict=True):
        axes.text(place + 0.03, height, word, fontsize=8, va="center", bbox=box, zorder=4)
    return heights


def _draw_lines(axes: Axes, heights: np.ndarray, values: np.ma.MaskedArray, scale: Colors) -> None:
    """Draws the lines of settings, the last on top."""
    num_settings, num_axes = heights.shape
    ends = np.ma.filled(scale.norm(values), np.nan)
    low, high = -ARROW * (scale.extend == "min"), 1 + ARROW * (scale.extend == "max")
    ends = (np.clip(ends, low, high) - low) / (high - low)
    hidden = np.ma.getmaskarray(values)
    x = np.arange(num_axes + 1)
    points = np.stack([np.broadcast_to(x, (num_settings, num_axes + 1)), np.column_stack([heights, ends])], axis=2)
    opacity = float(np.clip(60 / num_settings, 0.15, 0.9))
    style: dict = dict(rasterized=num_settings > MAX_VECTORS, capstyle="round")
    axes.add_collection(LineCollection(list(points[hidden, :-1]), colors="0.8", linewidths=0.7, zorder=1, **style))
    colored = scale.cmap(scale.norm(values[~hidden].data))
    colored[:, 3] = np.where(np.arange(len(colored)) >= len(colored) - 10, 1.0, opacity)
    axes.add_collection(LineCollection(list(points[~hidden]), colors=colored, linewidths=1.2, zorder=2, **style))

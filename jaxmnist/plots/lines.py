"""Lines of a metric against training steps, with bands around them, and the axes that they need."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes

from jaxmnist.analysis.metrics import is_share
from jaxmnist.plots.metrics import in_unit, is_in_nats, is_wide, label, metric_ticks
from jaxmnist.plots.style import line_style, log_ticks

MIN_LATE_POINTS = 8
MANY_POINTS = 8
MOST_OPAQUE_SEEDS = 4  # of more seeds in a panel, each is fainter, so that the means stand out
MARKER_GAP = 0.09  # of the diagonal of a panel
Band = Literal["std", "half_width"]


class Line(NamedTuple):
    """A setting on a split.

    Attributes:
      label: what distinguishes it from the others.
      rows: of `curve_table`, one per recorded step.
      split: which columns of these to draw.
      seeds: the curves `[N, E]` of its seeds to draw as well, by `{split}_{metric}`.
    """

    label: str
    rows: pd.DataFrame
    split: str
    seeds: Mapping[str, np.ndarray] = MappingProxyType({})


class Quantity(NamedTuple):
    """A metric, and how it is drawn.

    Attributes:
      name: of the metric.
      label: what its axis says.
      is_error: whether 1 minus the metric is drawn.
      is_log: whether its axis is logarithmic.
      limits: the least and the largest value that it can have, as it is drawn.
    """

    name: str
    label: str
    is_error: bool
    is_log: bool
    limits: tuple[float, float]


def quantity_of(result: xr.Dataset, name: str, lines: list[Line], first: float, log_log: bool) -> Quantity:
    """Returns how a metric is drawn from a step on: on a logarithmic axis if asked for, or if it spans a factor of ten.

    A cross-entropy is left linear, since it does not fall by orders of magnitude.
    """
    is_error = log_log and is_share(name)
    means = np.concatenate([line.rows.loc[line.rows["step"] >= first, f"{line.split}_{name}_mean"] for line in lines])
    is_log = log_log or (is_wide(name, means) and not is_in_nats(result, name))
    limits = (0.0, 100.0) if is_share(name) else (0.0 if is_in_nats(result, name) else -np.inf, np.inf)
    return Quantity(name, "error (%)" if is_error else label(result, name), is_error, is_log, limits)


def values_of(line: Line, quantity: Quantity, band: Band, log_log: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns steps, mean and half the width of the band; accuracies and errors in per cent."""
    rows = line.rows[line.rows["step"] > 0] if log_log else line.rows
    name = quantity.name
    mean, width = (rows[f"{line.split}_{name}_{part}"].to_numpy(float) for part in ("mean", band))
    mean = 1 - mean if quantity.is_error else mean
    return rows["step"].to_numpy(float), in_unit(name, mean), in_unit(name, width)


def seed_values(line: Line, quantity: Quantity, log_log: bool) -> np.ndarray:
    """Returns the curves of the seeds of a line as they are drawn, `[N, E]`; none if they are not drawn, or alone."""
    curves = line.seeds.get(f"{line.split}_{quantity.name}", np.empty((0, len(line.rows))))
    curves = curves[:, (line.rows["step"] > 0).to_numpy()] if log_log else curves
    curves = in_unit(quantity.name, 1 - curves if quantity.is_error else curves)
    return curves if len(curves) > 1 else curves[:0]


def draw(axes: Axes, lines: list[Line], quantity: Quantity, band: Band, log_log: bool, first: float = 0.0) -> None:
    """Draws the lines from a step on, each with its band."""
    num_seeds = sum(len(seed_values(line, quantity, log_log)) for line in lines)
    opacity = float(np.clip(MOST_OPAQUE_SEEDS / max(num_seeds, 1), 0.15, 0.55))
    for place, line in enumerate(lines):
        steps, mean, width = values_of(line, quantity, band, log_log)
        shown = steps >= first
        steps, mean, width = steps[shown], mean[shown], width[shown]
        style = line_style(place, len(lines))
        low, high = _ends(mean, width, quantity)
        low = np.maximum(low, 0.02 * mean) if quantity.is_log else low
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        # Few markers, and those of different lines at different places.
        many = len(lines) > 1 and np.isfinite(mean).sum() > MANY_POINTS
        marked = (MARKER_GAP * place / len(lines), MARKER_GAP) if many else None
        for curve in seed_values(line, quantity, log_log):
            axes.plot(steps, curve[shown], color=style["color"], linewidth=0.6, alpha=opacity, zorder=1.5)
        axes.plot(steps, mean, **style, markevery=marked, label=line.label, clip_on=first > 0 or quantity.is_log)
    has_one_split = len({line.split for line in lines}) == 1
    axes.set_ylabel(f"{split_words(lines[0].split)} " * has_one_split + quantity.label)
    axes.grid(alpha=0.3)
    last = max(line.rows["step"].max() for line in lines)
    if quantity.is_log:
        _set_log_axis(axes, np.concatenate([values_of(line, quantity, band, log_log)[1] for line in lines]))
    if log_log:
        axes.set_xscale("log")
        first = min(line.rows["step"][line.rows["step"] > 0].min() for line in lines)
        axes.set_xlim(first / 1.1, last * 1.1)
        log_ticks(axes, "x", first, last)
    elif not first:
        axes.set_xlim(0, last)
        axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _ends(mean: np.ndarray, width: np.ndarray, quantity: Quantity) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower and the upper end of a band, within what the metric can be."""
    width = np.nan_to_num(width)
    return np.clip(mean - width, *quantity.limits), np.clip(mean + width, *quantity.limits)


def is_cut_off(axes: Axes, lines: list[Line], quantity: Quantity, band: Band, log_log: bool) -> bool:
    """Returns whether a part of the lines, or of their bands, lies outside linear axes; logarithmic ones show all."""
    low, high = axes.get_ylim()
    bands = (_ends(*values_of(line, quantity, band, log_log)[1:], quantity) for line in lines)
    return not quantity.is_log and any(bool((lows < low).any() or (highs > high).any()) for lows, highs in bands)


def _set_log_axis(axes: Axes, drawn: np.ndarray) -> None:
    axes.set_yscale("log")
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if drawn.size:
        metric_ticks(axes, drawn.min(), drawn.max())
    else:
        axes.set_ylim(1, 100)  # matplotlib finds no logarithmic scale if nothing is drawn


def set_limits(panels: list[Axes], shown: list[tuple[Quantity, list[Line]]], band: Band, log_log: bool) -> None:
    """Gives panels that share an axis the range of their curves, if it is linear after the first tenth of the steps."""
    lows, highs = [], []
    is_log = shown[0][0].is_log
    for quantity, lines in shown:
        for line in lines:
            steps, mean, width = values_of(line, quantity, band, log_log)
            late = np.isfinite(mean) & ((mean > 0) if is_log else (steps >= late_step(line.rows)))
            width = np.nan_to_num(width[late])
            lows.extend(np.maximum(mean[late] - width, 0.5 * mean[late]) if is_log else mean[late] - width)
            highs.extend(mean[late] + width)
    if not lows or min(lows) >= max(highs):
        return
    low, high = min(lows), max(highs)
    if is_log:
        low, high = low / 1.05, high * 1.05
    else:
        margin = 0.05 * (high - low)
        low, high = np.clip([low - margin, high + margin], *shown[0][0].limits)
    for axes in panels:
        axes.set_ylim(low, high)
        for drawn in axes.lines:
            drawn.set_clip_on(True)


def late_step(table: pd.DataFrame) -> float:
    """Returns the step from which linear panels show everything, or 0 if too few points come after it."""
    steps = table["step"].unique()
    return steps.max() / 10 if (steps >= steps.max() / 10).sum() > MIN_LATE_POINTS else 0.0


def split_words(split: str) -> str:
    """Returns the name of a split in words."""
    return "training" if split == "train" else split

"""Maps of a sweep: accuracy, or another metric, over learning rate and batch size, and the original notebook's scatter.

Each title names the data set, the split and the budget; each caption the model, the optimizer, the number of seeds
and the interval. Every function returns a matplotlib `Figure`; none trains, and none shows.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from jaxmnist.analysis import intervals, results, statistics, ties
from jaxmnist.analysis.arguments import BY, CHOOSING_SPLIT, LARGEST, SETTINGS, WORDS, IsResult
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.analysis.words import margin_words
from jaxmnist.checks import checked_by
from jaxmnist.plots.metrics import cell_words, color_bar, colors, in_unit, label, mean_width_words
from jaxmnist.plots.style import (
    DIVERGED_COLOR,
    PLANE,
    Figure,
    house_style,
    places,
    seeds_words,
    set_scale,
    title,
    write_result_caption,
)

MAX_LABELLED_CELLS = 64
DASHED = (0, (4, 2.5))
DASHED_MARGIN = 0.06  # of a cell, so that the dashes of neighbours do not fall on one another
NEEDED = (*WORDS, "num_validation", "num_test")


class _Map(NamedTuple):
    """What a map shows, `[batch_size, learning_rate]` each.

    Attributes:
      values: mean over seeds (accuracies in per cent), masked if a run diverged, was pruned or has not ended.
      share: share of the runs that diverged.
      pruned: whether runs were pruned.
      half_width: half the width of the 95 % interval of the mean, in the same unit.
      dead: whether a run is stuck at log(classes); never true if no curves were recorded.
    """

    values: np.ma.MaskedArray
    share: np.ndarray
    pruned: np.ndarray
    half_width: np.ndarray
    dead: np.ndarray


DRAWN = IsResult(SETTINGS, NEEDED, PLANE, PLANE)


def _check_map(given: SimpleNamespace) -> None:
    check_by(given)
    missing = sorted({"learning_rate", "batch_size", "seed"} - set(results.with_all_dims(given.result).dims))
    if missing:
        raise ValueError(
            f"a map shows a full grid over learning_rate and batch_size, not a result without the dims {missing}"
        )


@checked_by(_check_map, result=DRAWN, split=CHOOSING_SPLIT, by=BY, largest=LARGEST)
def heatmap(
    result: xr.Dataset, split: str = "validation", *, by: str | None = None, largest: bool | None = None
) -> Figure:
    """Returns the mean accuracy, or another metric, over seeds as a map of learning rate by batch size.

    Cells with a run that diverged are hatched, show the share of such runs, and are never coloured. Nor are cells that
    were pruned, which are dotted, or that have not ended, which stay empty. Accuracies far below the others (under
    Tukey's lower fence) are black, so that they do not hide the differences among the rest; the colour bar then ends in
    an arrow. So are losses far above the others; losses that span more than a factor of ten have a logarithmic scale.
    The best setting and those that are as good are outlined, and those of which that cannot be told are outlined with
    dashes (`jm.ties`); if both axes are logarithmic, lines show linear and square-root scaling.

    Args:
      result: of a full grid, with several values of `learning_rate`, `batch_size` and `seed` at most.
      split: `"validation"` or `"test"`.
      by: the metric to show and to find the best setting by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: the result is not such a grid, or has no such metric.
    """
    metric = judged(result, by, largest)
    shown = _map(result, split, metric)
    scale = colors(shown.values, metric)
    labelled = shown.share.size <= MAX_LABELLED_CELLS
    with house_style():
        figure, axes, (x, x_edges), (y, y_edges) = _map_figure(result)
        mesh = axes.pcolormesh(x_edges, y_edges, shown.values, cmap=scale.cmap, norm=scale.norm)
        axes.set_facecolor(DIVERGED_COLOR)
        for cells, hatch, color in ((shown.share > 0, "////", "0.55"), (shown.pruned, "..", "0.7")):
            if cells.any():
                hatched = np.ma.masked_where(~cells, cells)
                axes.pcolor(x_edges, y_edges, hatched, hatch=hatch, edgecolor=color, facecolor="none", linewidth=0)
        for i, j in np.ndindex(shown.share.shape if labelled else (0, 0)):
            diverged = shown.share[i, j] > 0
            if not diverged and np.ma.getmaskarray(shown.values)[i, j]:
                continue
            value = float(shown.values.data[i, j])
            text = f"{100 * shown.share[i, j]:.0f} %" if diverged else cell_words(metric.name, value)
            text += "\ndead" if shown.dead[i, j] else ""
            color = "black" if diverged or scale.is_bright(value) else "white"
            box = dict(facecolor=DIVERGED_COLOR, edgecolor="none", pad=1) if diverged else None
            axes.text(x[j], y[i], text, ha="center", va="center", fontsize=9, color=color, bbox=box)
        for i, j in np.argwhere(shown.dead if not labelled else np.zeros_like(shown.dead)):
            axes.plot(x[j], y[i], "x", color="white", markersize=4)
        outlined = _outline_ties(axes, result, metric, (x, x_edges), (y, y_edges))
        guides = _draw_guides(axes, result, metric, x_edges) if axes.get_xscale() == axes.get_yscale() == "log" else ""
        color_bar(figure, mesh, axes, f"{split} {label(result, metric.name)}", scale.extend)
        title(axes, result, split)
        notes = {
            f"hatched: {'share of runs that' if labelled else 'a run'} diverged": shown.share.any(),
            f"dotted: pruned after {_pruned_steps(result)} steps": shown.pruned.any(),
            "dead or x: stuck at log(classes)": shown.dead.any(),
        }
        said = [words for words, is_shown in notes.items() if is_shown]
        mean = _mean_words(result, mean_width_words(metric.name, shown.half_width, shown.values.data))
        write_result_caption(figure, result, mean, *said, outlined, guides, on_axes=PLANE)
    return figure


def _outline_ties(axes: Axes, result: xr.Dataset, metric: Metric, columns, rows) -> str:
    """Outlines the settings that are as good as the best, dashed where that cannot be told; returns it in words."""
    table = ties.ties(result, *metric)
    sizes, rates = (np.unique(np.atleast_1d(result[name].values)) for name in ("batch_size", "learning_rate"))
    has_seeds = bool(table["num_seeds"].max() > 1)
    for size, rate, standing in zip(table["batch_size"], table["learning_rate"], table["standing"], strict=True):
        is_unclear = standing == "unclear"
        if standing not in ("best", "as good", "unclear") or (is_unclear and not has_seeds):
            continue
        i, j = np.searchsorted(sizes, size), np.searchsorted(rates, rate)
        margin = DASHED_MARGIN if is_unclear else 0.0
        left, right = _within(columns[1][j : j + 2], axes.get_xscale(), margin)
        low, high = _within(rows[1][i : i + 2], axes.get_yscale(), margin)
        cell: dict = dict(xy=(left, low), width=right - left, height=high - low, fill=False)
        axes.add_patch(Rectangle(**cell, edgecolor="white", lw=2.2 if is_unclear else 3.0))
        axes.add_patch(Rectangle(**cell, edgecolor="black", lw=1.2, ls=DASHED if is_unclear else "-"))
    within = margin_words(metric.name, ties.default_margin(table, metric))
    held = set(table["standing"])
    said = [f"solid outline: as good as the best on validation, {within}"] * ("as good" in held)
    said += ["dashed outline: cannot be told with these seeds"] * ("unclear" in held and has_seeds)
    return "; ".join(said) + " (paired t tests, 5 %)" * bool(said)


def _within(edges: np.ndarray, scale: str, margin: float) -> np.ndarray:
    """Returns the edges of a cell, moved inwards by a share of its size."""
    forth, back = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    low, high = forth(edges)
    return back(np.array([low + margin * (high - low), high - margin * (high - low)]))


def _draw_guides(axes: Axes, result: xr.Dataset, metric: Metric, x_edges: np.ndarray) -> str:
    """Draws how learning rates would grow with the batch size from the best one at the smallest; returns it in words.

    Linearly (Goyal et al. 2017, arXiv:1706.02677) or with its root (Krizhevsky 2014, arXiv:1404.5997).
    """
    table = results.settings(result, *metric)
    sane = table[table["num_diverged"] == 0]
    smallest = sane[sane["batch_size"] == table["batch_size"].min()]
    if not len(smallest):
        return ""
    size, rate = smallest[["batch_size", "learning_rate"]].iloc[0]
    sizes = np.geomspace(table["batch_size"].min(), table["batch_size"].max(), 50)
    for power, line in ((1.0, "--"), (0.5, ":")):
        rates = rate * (sizes / size) ** power
        inside = rates <= x_edges[-1]
        for color, width in (("black", 2.4), ("white", 1.4)):
            axes.plot(rates[inside], sizes[inside], line, color=color, linewidth=width, alpha=0.7)
    return "lines from the smallest batch's best: linear (dashed) and square-root (dotted) scaling"


@checked_by(check_by, result=DRAWN, split=CHOOSING_SPLIT, by=BY, largest=LARGEST)
def scatter(result: xr.Dataset, split: str = "test", *, by: str | None = None, largest: bool | None = None) -> Figure:
    """Returns the original notebook's scatter: one dot per setting, coloured by its mean accuracy over seeds.

    A result without an accuracy is coloured by its loss, on the scale of `heatmap`.

    Args:
      result: of a grid or a sample, whose settings differ only in `learning_rate` and `batch_size`.
      split: `"test"`, as the original drew it, or `"validation"`.
      by: the metric to show, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: the settings differ in something else, or the result has no such metric.
    """
    metric = judged(result, by, largest)
    table = results.settings(result, *metric)
    table = table[::-1]  # the best are drawn last, over the others
    sane = (table["num_diverged"] == 0).to_numpy()
    if "pruned_step" in table:
        sane = sane & table["pruned_step"].isna().to_numpy()
    column = f"{split}_{metric.name}"
    values = np.ma.masked_array(in_unit(metric.name, table[column].to_numpy(float)), ~sane)
    half_width = in_unit(metric.name, table[f"{column}_half_width"].to_numpy(float))
    scale = colors(values, metric)
    with house_style():
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        x, y = (
            places(axes, which, name, table[name].to_numpy(float), is_sample="run" in result.dims)
            for which, name in (("x", "learning_rate"), ("y", "batch_size"))
        )
        size = float(np.clip(3000 / sane.size, 8, 140))
        style: Any = dict(cmap=scale.cmap, norm=scale.norm, edgecolors="0.3", linewidths=0.6 if size > 20 else 0.0)
        dots = axes.scatter(x[sane], y[sane], c=values[sane].data, s=size, **style)
        axes.scatter(x[~sane], y[~sane], marker="x", c="0.3", s=max(size / 2, 12))
        color_bar(figure, dots, axes, f"{split} {label(result, metric.name)}", scale.extend)
        crosses = "" if sane.all() else "crosses: a run diverged" + " or was pruned" * ("pruned_step" in table)
        title(axes, result, split)
        width = mean_width_words(metric.name, half_width[sane], values.data[sane])
        write_result_caption(figure, result, _mean_words(result, width), crosses, on_axes=PLANE)
    return figure


def _map(result: xr.Dataset, split: str, metric: Metric) -> _Map:
    result = results.with_all_dims(result)
    others = [name for name in results.hyperparameters(result) if name not in ("learning_rate", "batch_size", "seed")]
    result = result.squeeze(others).transpose("batch_size", "learning_rate", "seed", ...)
    values = result[f"{split}_{metric.name}"].values
    share = result["diverged_step"].notnull().mean("seed").values
    nowhere = np.zeros(values.shape, bool)
    ended = result["finished"].values if "finished" in result else ~nowhere
    pruned = (result["pruned_step"].notnull().values if "pruned_step" in result else nowhere).any(axis=-1)
    hidden = (share > 0) | ~ended.all(axis=-1) | pruned
    num_seeds, num_images = values.shape[-1], result.attrs[f"num_{split}"]
    # The loss of a run that diverged may be too large to be squared.
    values = np.where(hidden[..., None], np.nan, values)
    half_width = np.full(share.shape, np.nan)
    if num_seeds > 1:
        half_width = intervals.half_width(values.std(axis=-1, ddof=1, dtype=np.float64), num_seeds)
        half_width = np.where(hidden, np.nan, in_unit(metric.name, half_width))
    for place in zip(*np.nonzero(~hidden), strict=True) if num_seeds == 1 and metric.is_share else ():
        interval = intervals.interval(values[place], num_images)
        half_width[place] = 100 * (interval.high - interval.low) / 2
    mean = np.ma.masked_array(in_unit(metric.name, values.mean(axis=-1)), mask=hidden)
    has_curves = "recorded_validation_loss" in result and "num_classes" in result.attrs
    dead = nowhere
    if has_curves and statistics.is_classified(result):
        dead = statistics.is_dead(result).squeeze(others).transpose("batch_size", "learning_rate", "seed").values
    return _Map(mean, share, pruned & (share == 0), half_width, dead.any(axis=-1) & ~hidden)


def _map_figure(result: xr.Dataset):
    """Returns a figure, its axes, and centres and edges of the cells in both directions."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    cells = [
        set_scale(axes, which, name, result[name].values)
        for which, name in (("x", "learning_rate"), ("y", "batch_size"))
    ]
    return figure, axes, *cells


def _pruned_steps(result: xr.Dataset) -> str:
    steps = result["pruned_step"].values if "pruned_step" in result else np.array([])
    return " or ".join(f"{step:.0f}" for step in np.unique(steps[np.isfinite(steps)]))


def _mean_words(result: xr.Dataset, width: str) -> str:
    mean = (
        f"mean over {seeds_words(result)}" if len(results.hyperparameters(result)["seed"]) > 1 else seeds_words(result)
    )
    return f"{mean}, {width}" if width else mean

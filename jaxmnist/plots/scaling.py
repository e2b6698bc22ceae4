"""Figures of a sweep's recorded curves: three budgets, steps to a target, critical batch sizes.

Every function returns a matplotlib `Figure`; none trains.
"""

import math
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from jaxmnist.analysis import curves, targets
from jaxmnist.analysis.arguments import BY, LARGEST, WORDS, IsResult, IsTable, check_result
from jaxmnist.analysis.metrics import check_target, judged
from jaxmnist.analysis.words import target_words
from jaxmnist.checks import STRING, Number, Optional, Where, checked_by, is_number
from jaxmnist.plots.metrics import color_bar, colors, in_unit, label
from jaxmnist.plots.style import (
    COLORMAP,
    DIVERGED_COLOR,
    PLANE,
    Figure,
    house_style,
    log_ticks,
    seeds_words,
    set_scale,
    write_result_caption,
)

LINE_COLOR = mpl.colormaps[COLORMAP](0.3)
MAX_SIZES = 8  # that have a label, but for the first
BUDGET_WORDS = {
    "steps": "equal steps: {:g}",
    "examples": "equal examples: {:g}",
    "epochs": "equal epochs: {:g}",
}


def _check_grid(given: SimpleNamespace) -> None:
    metric = judged(given.result, given.by, given.largest)
    check_result(given.result, (f"recorded_validation_{metric.name}",))
    if not {"learning_rate", "batch_size"} <= set(given.result.dims):
        raise ValueError("result is not a grid; a grid over learning_rate, batch_size and seed is needed")


GRID = IsResult(("diverged_step",), WORDS, PLANE, PLANE)
BUDGET_GRID = IsResult(("diverged_step",), (*WORDS, "num_train"), PLANE, PLANE)


@checked_by(_check_grid, result=BUDGET_GRID, by=BY, largest=LARGEST)
def budget_maps(result: xr.Dataset, *, by: str | None = None, largest: bool | None = None) -> Figure:
    """Returns validation accuracy, or another metric, at equal steps, equal examples and equal epochs, on one scale.

    Cells whose training ends before the budget is used up are empty; cells with a run that diverged are hatched.

    Args:
      result: of a grid over `learning_rate`, `batch_size` and `seed`, with recorded validation curves.
      by: the metric to show, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: there are no curves, or the settings differ in another hyperparameter.
    """
    metric = judged(result, by, largest)
    amounts = curves.budgets(result)
    others = [name for name in result["diverged_step"].dims if name not in ("batch_size", "learning_rate")]
    maps = {
        budget: in_unit(
            metric.name,
            curves.at_budget(result, budget, amount, metric=metric.name)
            .mean(others, skipna=False)
            .transpose("batch_size", ...)
            .values,
        )
        for budget, amount in amounts.items()
    }
    diverged = result["diverged_step"].notnull().any(others).transpose("batch_size", ...).values
    scale = colors(np.ma.masked_invalid(np.concatenate(list(maps.values()))), metric)
    with house_style():
        figure = Figure(figsize=(10.5, 3.9), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (budget, shown) in zip(panels, maps.items(), strict=True):
            _, x_edges = set_scale(axes, "x", "learning_rate", result["learning_rate"].values, max_ticks=5)
            _, y_edges = set_scale(axes, "y", "batch_size", result["batch_size"].values)
            masked = np.ma.masked_invalid(shown)
            mesh = axes.pcolormesh(x_edges, y_edges, masked, cmap=scale.cmap, norm=scale.norm)
            _hatch(axes, x_edges, y_edges, diverged)
            axes.set_title(BUDGET_WORDS[budget].format(amounts[budget]), loc="left")
            if axes is not panels[0]:
                axes.set_ylabel("")
        color_bar(figure, mesh, panels, f"validation {label(result, metric.name)}", scale.extend)
        figure.suptitle(f"{result.attrs['dataset']}, validation split, three budgets", x=0.01, ha="left", fontsize=11)
        notes = f"mean over {seeds_words(result)}", "empty: ends before the budget", "hatched: a run diverged"
        write_result_caption(figure, result, *(notes if diverged.any() else notes[:2]), on_axes=PLANE)
    return figure


def _check_targets(given: SimpleNamespace) -> None:
    _check_grid(given)
    check_target(given)


@checked_by(_check_targets, result=GRID, target=Number(), by=BY, largest=LARGEST)
def target_maps(result: xr.Dataset, target: float, *, by: str | None = None, largest: bool | None = None) -> Figure:
    """Returns the steps that a validation accuracy takes: as a map, and against batch size at the best learning rates.

    Args:
      result: as `budget_maps`.
      target: validation accuracy, a fraction, or value of another metric.
      by: the metric of the target, as for `budget_maps`.
      largest: whether its largest value is the best, as for `budget_maps`.

    Raises:
      ValueError: as `budget_maps`.
    """
    metric = judged(result, by, largest)
    table = targets.target_table(result, target, *metric)
    with house_style():
        figure = Figure(figsize=(10.5, 3.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _steps_map(figure, left, result, table)
        best = targets.best_rates(table)
        if len(best):
            _against_batch_size(middle, best, "steps")
            _against_batch_size(right, best, "examples")
            law = targets.table_scaling(best)
            if law is not None and math.isfinite(law.critical_batch_size):
                sizes = np.geomspace(best["batch_size"].min(), best["batch_size"].max(), 100)
                fitted = law.least_steps + law.least_examples / sizes
                words = f"fit: critical batch size {law.critical_batch_size:.0f}"
                for axes, values in ((middle, fitted), (right, fitted * sizes)):
                    axes.plot(sizes, values, ":", color="0.2", linewidth=1.4, label=words)
            middle.legend(fontsize=7)
        for axes in (middle, right):
            if not len(best):
                axes.text(0.5, 0.5, "no setting reaches\nthe target with all seeds", ha="center", va="center")
                axes.set_axis_off()
        figure.suptitle(
            f"{result.attrs['dataset']}, validation split, steps to {target_words(metric.name, target)}",
            x=0.01, ha="left", fontsize=11,
        )  # fmt: skip
        every = np.diff(result["step"].values).max()
        notes = f"mean and 95 % t interval over {seeds_words(result)}, recorded every {every} steps"
        write_result_caption(figure, result, notes, "empty: not reached by every seed", on_axes=PLANE)
    return figure


def _is_size(value: object) -> bool:
    return value == math.inf if isinstance(value, float) and math.isinf(value) else is_number(value) and value >= 0


@checked_by(
    table=IsTable("noise_scale_along_training", ("step", "noise_scale"), can_be_empty=False),
    critical_batch_size=Optional(Where("a number from 0 on", _is_size)), result=IsResult((), WORDS), setting=STRING,
)  # fmt: skip
def noise_curve(table: pd.DataFrame, critical_batch_size: float | None, result: xr.Dataset, setting: str) -> Figure:
    """Returns the gradient noise scale along training, with the observed critical batch size.

    Args:
      table: as `noise_scale_along_training` returns it.
      critical_batch_size: from `fit_scaling`, in examples; None if it is unknown.
      result: the sweep's, for the caption.
      setting: the run's hyperparameters in words.

    Raises:
      ValueError: an argument is not as described above.
    """
    with house_style():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(table["step"], table["noise_scale"], "o-", color=LINE_COLOR, markersize=3.5, label="noise scale")
        if critical_batch_size is not None and math.isfinite(critical_batch_size):
            label = f"observed critical batch size, {critical_batch_size:.0f}"
            axes.axhline(critical_batch_size, color="0.2", linestyle="--", label=label)
        axes.set(xlabel="training steps", ylabel="batch size (examples)", yscale="log")
        log_ticks(axes, "y", *axes.get_ylim())
        axes.grid(alpha=0.3)
        figure.legend(
            title=f"{result.attrs['dataset']}, training split, {setting}", title_fontsize=11, alignment="left",
            loc="outside upper left", ncols=2, frameon=False, fontsize=9,
        )  # fmt: skip
        source = "simple noise scale, McCandlish et al. 2018, equations A.2 and A.3"
        write_result_caption(figure, result, source, "1 seed", on_axes=PLANE)
    return figure


def _hatch(axes: Axes, x_edges: np.ndarray, y_edges: np.ndarray, cells: np.ndarray) -> None:
    axes.set_facecolor("white")
    if cells.any():
        masked = np.ma.masked_where(~cells, cells)
        axes.pcolormesh(x_edges, y_edges, masked, cmap=mpl.colors.ListedColormap([DIVERGED_COLOR]))
        axes.pcolor(x_edges, y_edges, masked, hatch="////", edgecolor="0.55", facecolor="none", linewidth=0)


def _steps_map(figure: Figure, axes: Axes, result: xr.Dataset, table: pd.DataFrame) -> None:
    steps = table.pivot(index="batch_size", columns="learning_rate", values="steps").to_numpy()
    _, x_edges = set_scale(axes, "x", "learning_rate", result["learning_rate"].values, max_ticks=5)
    _, y_edges = set_scale(axes, "y", "batch_size", result["batch_size"].values)
    masked = np.ma.masked_invalid(steps)
    ends = (max(masked.min(), 1), max(masked.max(), 2)) if masked.count() else None
    norm = None if ends is None else LogNorm(*ends)
    mesh = axes.pcolormesh(x_edges, y_edges, masked, cmap=f"{COLORMAP}_r", norm=norm)
    others = [name for name in result["diverged_step"].dims if name not in ("batch_size", "learning_rate")]
    _hatch(axes, x_edges, y_edges, result["diverged_step"].notnull().any(others).transpose("batch_size", ...).values)
    bar = figure.colorbar(mesh, ax=axes, label="steps to the target")
    if ends is not None:
        log_ticks(bar.ax, "y", *ends)


def _against_batch_size(axes: Axes, best: pd.DataFrame, column: str) -> None:
    sizes, values = best["batch_size"].to_numpy(float), best[column].to_numpy(float)
    half_width = best["half_width"].fillna(0).to_numpy() * (1 if column == "steps" else sizes)
    # An interval may reach below 0, which a logarithmic axis cannot show.
    errors = np.stack([np.minimum(half_width, 0.9 * values), half_width])
    axes.errorbar(sizes, values, errors, fmt="o-", color=LINE_COLOR, markersize=4, capsize=2, linewidth=1.2)
    perfect = values[0] * sizes[0] / sizes if column == "steps" else np.full(len(sizes), values[0])
    axes.plot(sizes, perfect, "--", color="0.5", linewidth=1.2, label="perfect scaling")
    axes.set(xscale="log", yscale="log", xlabel="batch size (examples)", ylabel=f"{column} to the target")
    log_ticks(axes, "y", *axes.get_ylim())
    shown = _far_apart(sizes)
    axes.set_xticks(sizes[shown], [f"{size:.0f}" for size in sizes[shown]], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    if column == "steps":
        # Beside the points, they would lie on lines and error bars.
        top = axes.secondary_xaxis("top")
        top.set_xticks(sizes[shown], [f"{rate:.2g}" for rate in best["learning_rate"].iloc[shown]], fontsize=8)
        top.set_xticks([], minor=True)
        top.set_xlabel("retuned learning rate", fontsize=8)


def _far_apart(sizes: np.ndarray) -> list[int]:
    """Returns the places of some ascending sizes, the last among them, whose labels do not touch on a logarithm."""
    kept = [len(sizes) - 1]
    for place in range(len(sizes) - 2, -1, -1):
        if MAX_SIZES * math.log(sizes[kept[0]] / sizes[place]) >= math.log(sizes[-1] / sizes[0]):
            kept.insert(0, place)
    return kept

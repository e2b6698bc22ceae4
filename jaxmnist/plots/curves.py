"""Figures of recorded curves: accuracy and loss against training steps, and accuracy against the learning rate.

A line is a mean over seeds, with a band around it; lines differ in colour, lightness, dashes and markers. A line ends
at the step at which a run of its setting diverges, and the figure says so: from there on, there is no mean of all runs.
"""

import functools
import itertools
from collections.abc import Hashable, Iterable, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import (
    ANY_SPLIT,
    METRIC,
    SETTINGS,
    SEVERAL_METRICS,
    WORDS,
    IsResult,
    check_result,
    metric_names,
    varied,
)
from jaxmnist.analysis.curves import curve_table, seed_curves
from jaxmnist.analysis.metrics import is_share, judged, named, several_named
from jaxmnist.analysis.selection import SEVERAL, Settings, select
from jaxmnist.checks import FLAG, Choice, Choices, Optional, checked_by
from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.plots.lines import (
    MIN_LATE_POINTS,
    Band,
    Line,
    draw,
    is_cut_off,
    late_step,
    quantity_of,
    set_limits,
    split_words,
)
from jaxmnist.plots.style import Figure, house_style, hyperparameter_words, write_result_caption

LATE_SHARE = 0.2
LEGEND_ROW = 0.2  # inches
MAX_CURVES = 8  # a figure with more lines cannot be read
BANDS = {"std": "one standard deviation", "half_width": "95 % t interval"}


BAND = Choice(tuple(BANDS))


def _check_log_axes(given: SimpleNamespace) -> None:
    steps = given.result.coords.get("step", np.ones(1))
    if given.log_log and not (steps > 0).any():
        raise ValueError("log_log is True, but the result records no step above 0, which logarithmic axes need")


def _check_accuracy(given: SimpleNamespace) -> None:
    check_result(given.result, (f"recorded_{given.split}_{named(given.result, given.metric)}", "diverged_step"))
    _check_log_axes(given)


@checked_by(_check_accuracy, result=IsResult((), WORDS), split=ANY_SPLIT, log_log=FLAG, band=BAND, metric=METRIC)
def accuracy_curve(
    result: xr.Dataset,
    split: str = "test",
    *,
    log_log: bool = False,
    band: Band = "std",
    metric: str | None = None,
) -> Figure:
    """Returns accuracy, or another metric, against training steps, a line per setting, as in the original notebook.

    Nearly all of an accuracy's rise happens in the first steps, so the rest is drawn once more, enlarged. A metric that
    falls by more than a factor of ten has a logarithmic axis, except for a cross-entropy.

    Args:
      result: with `recorded_{split}_{metric}`.
      split: `"test"`, as in the original, `"validation"` or `"train"`.
      log_log: whether to draw the error, 1 - accuracy, on logarithmic axes, without step 0 and any enlarged part.
      band: what to draw around the mean: one standard deviation over seeds, `"std"`, or its 95 % interval,
        `"half_width"`.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.

    Raises:
      ValueError: there is no such curve.
    """
    metric = named(result, metric)
    table = curve_table(result, split, metric)
    lines = [Line(words, rows, split) for words, rows in _settings(result, table)]
    quantity = quantity_of(result, metric, lines, 0, log_log)
    with house_style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        late = table["step"].max() * LATE_SHARE
        draw(axes, lines, quantity, band, log_log)
        axes.set_xlabel("training steps")
        if is_share(metric) and not log_log:
            axes.set_ylim(0, 100)
            if sum(step >= late for step in result["step"].values) > MIN_LATE_POINTS and _is_drawn(lines, metric, late):
                zoomed = axes.inset_axes((0.36, 0.12, 0.6, 0.56))
                draw(zoomed, lines, quantity, band, log_log, first=late)
                zoomed.set_ylabel("")
                zoomed.tick_params(labelsize=8)
        _head(figure, axes, lines, title_words(result, split))
        _caption(figure, result, lines, band, log_log)
    return figure


def _check_curves(given: SimpleNamespace) -> None:
    result = given.result if given.settings is None else select(given.result, given.settings)
    splits = _splits(result, given.splits)
    pairs = itertools.product(splits, _metrics(result, given.metrics))
    check_result(result, [*(f"recorded_{split}_{metric}" for split, metric in pairs), "diverged_step"])
    _check_log_axes(given)


def _splits(result: xr.Dataset, splits: Sequence[str] | None) -> list[str]:
    """Returns the splits that are drawn: all whose curves were recorded if none are given."""
    if splits is not None:
        return list(splits)
    held = [split for split in SPLIT_NAMES if f"recorded_{split}_loss" in result]
    return held or ["validation"]


def _metrics(result: xr.Dataset, metrics: str | Sequence[str] | None) -> list[str]:
    """Returns the metrics that are drawn, all of those of the result if none are given."""
    return metric_names(result) if metrics is None else several_named(result, metrics)


@checked_by(
    _check_curves, result=IsResult(SETTINGS, WORDS), settings=Optional(SEVERAL),
    splits=Optional(Choices(SPLIT_NAMES)), metrics=SEVERAL_METRICS, log_log=FLAG, band=BAND,
)  # fmt: skip
def curves(
    result: xr.Dataset,
    settings: Settings | None = None,
    splits: Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    *,
    log_log: bool = False,
    band: Band = "half_width",
) -> Figure:
    """Returns accuracy and loss, or other metrics, against training steps: mean, interval, and each seed thinly.

    One setting is drawn in a panel per metric, with a line per split; several in a panel per metric and split, with a
    line per setting. The range of a linear axis is that of the curves after the first tenth of the steps: the rise
    from chance would leave no room for anything else. A metric that falls by more than a factor of ten after that has a
    logarithmic axis, except for a cross-entropy.

    Args:
      result: with `recorded_{split}_{metric}`.
      settings: those to draw: a dictionary from hyperparameters to values, such as `jm.best(result).setting`, a
        sequence of them, or rows of `jm.settings(result)`; a dictionary of some hyperparameters alone stands for all
        settings with these values. Default all, or the 8 best on validation if there are more.
      splits: of `"train"`, `"validation"` and `"test"`; default those that were recorded.
      metrics: those of the result to draw; default all.
      log_log: whether the axes are logarithmic and show the error, 1 - accuracy, in place of accuracy.
      band: as for `accuracy_curve`.

    Raises:
      ValueError: there is no such curve, or no such setting.
    """
    result, selected = _selected(result, settings)
    splits, metrics = _splits(result, splits), _metrics(result, metrics)
    table = curve_table(result, splits, metrics)
    seeds = seed_curves(result, [f"{split}_{metric}" for split in splits for metric in metrics])
    settings_drawn = [(*each, held) for each, held in zip(_settings(result, table), seeds, strict=True)]
    is_single = len(settings_drawn) == 1
    panels = [[Line(words, rows, split, held) for words, rows, held in settings_drawn] for split in splits]
    if is_single:
        _, rows, held = settings_drawn[0]
        panels = [[Line(split_words(split), rows, split, held) for split in splits]]
    shape = (1, len(metrics)) if is_single else (len(metrics), len(splits))
    lines = panels[0]
    every = [line for panel in panels for line in panel]
    drawn = [quantity_of(result, metric, every, late_step(table), log_log) for metric in metrics]
    with house_style():
        height = 3.4 if is_single else 1.0 + 2.4 * len(metrics) + LEGEND_ROW * max(len(lines) - 4, 0)
        figure = Figure(figsize=(7.2, height), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False, sharex=not is_single, sharey=False if is_single else "row")
        flat = [(quantity, panel) for quantity in drawn for panel in panels]
        for axes, (quantity, panel) in zip(grid.flat, flat, strict=True):
            draw(axes, panel, quantity, band, log_log)
        for row, row_axes in enumerate(grid):
            groups = [[place] for place in range(len(row_axes))] if is_single else [list(range(len(row_axes)))]
            for places in groups:
                shown = [flat[row * len(row_axes) + place] for place in places]
                set_limits([row_axes[place] for place in places], shown, band, log_log)
            for place, axes in enumerate(row_axes):
                if not is_single and row == 0:
                    axes.set_title(f"{split_words(splits[place])} split", fontsize=10)
                if not is_single:
                    axes.set_ylabel("" if place else flat[row * len(row_axes)][0].label)
        for axes in grid[-1]:
            axes.set_xlabel("training steps")
        _head(figure, grid[0, 0], lines, title_words(result, *splits))
        panels_drawn = zip(grid.flat, flat, strict=True)
        is_cut = any(is_cut_off(axes, panel, quantity, band, log_log) for axes, (quantity, panel) in panels_drawn)
        outside = f"before step {late_step(table):g}, curves lie outside the axes" if is_cut else ""
        _caption(figure, result, every, band, log_log, selected, outside)
    return figure


def _selected(result: xr.Dataset, settings: Settings | None) -> tuple[xr.Dataset, str]:
    """Returns the settings to draw, and says which they are if there are too many to draw them all."""
    if settings is not None:
        return select(result, settings), ""
    ranked = results.settings(result, *judged(result))
    if len(ranked) <= MAX_CURVES:
        return result, ""
    return select(result, ranked.head(MAX_CURVES)), f"the {MAX_CURVES} best of {len(ranked)} settings on validation"


def _settings(result: xr.Dataset, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns the label and the rows of each setting."""
    names = varied(result)
    if not names:
        return [("", table)]
    groups: Iterable[tuple[Hashable, pd.DataFrame]] = table.groupby(names, sort=False)
    words = functools.partial(hyperparameter_words, result)
    return [(", ".join(map(words, names, key)), rows) for key, rows in groups]  # type: ignore[call-overload]


def title_words(result: xr.Dataset, *splits: str) -> str:
    """Returns data set, splits and budget in words."""
    *others, last = map(split_words, splits)
    shown = f"{', '.join(others)} and {last} splits" if others else f"{last} split"
    return f"{result.attrs['dataset']}, {shown}, {result.attrs['budget']}"


def _is_drawn(lines: list[Line], metric: str, first: float) -> bool:
    """Returns whether a line has points at this step or later."""
    return any(line.rows.loc[line.rows["step"] >= first, f"{line.split}_{metric}_mean"].notna().any() for line in lines)


def _head(figure: Figure, axes: Axes, lines: list[Line], title: str) -> None:
    """Writes the title, and names the lines below it; for a single setting, a panel says how many runs diverged."""
    diverged = [_num_diverged(line) for line in lines]
    if _is_one_setting(lines) and diverged[0]:
        words = diverged_words(*diverged[0])
        axes.text(0.5, 0.85, words, transform=axes.transAxes, ha="center", va="center", color="0.25")
    if len(lines) == 1:
        axes.set_title(title, loc="left")
        return
    handles, labels = axes.get_legend_handles_labels()
    for place, counts in enumerate(diverged):
        if counts and not _is_one_setting(lines):
            labels[place] += f" ({diverged_words(*counts)})"
    columns = next((count for count in (len(labels), 2) if count * max(map(len, labels)) < 75), 1)
    figure.legend(
        handles, labels, title=title, title_fontsize=11, alignment="left", loc="outside upper left",
        ncols=columns, frameon=False, fontsize=9, handlelength=3.6,
    )  # fmt: skip


def _num_diverged(line: Line) -> tuple[int, int] | None:
    """Returns how many of a line's runs diverged, of how many; None if none did."""
    count = int(line.rows["num_diverged"].max())
    return (count, int(line.rows["num_seeds"].iloc[0])) if count else None


def diverged_words(count: int, total: int) -> str:
    """Returns how many runs diverged in words."""
    return f"{count} of {total} runs diverged"


def seed_words(table: pd.DataFrame) -> str:
    """Returns how many seeds the settings of a table have in words."""
    least, most = int(table["num_seeds"].min()), int(table["num_seeds"].max())
    return f"{least} seed{'s' * (least > 1)}" if least == most else f"{least} to {most} seeds"


def mean_words(table: pd.DataFrame) -> str:
    """Returns over how many seeds the means of a table of settings are taken in words; a single one has no mean."""
    return f"mean over {seed_words(table)}" if table["num_seeds"].max() > 1 else seed_words(table)


def _caption(figure: Figure, result: xr.Dataset, lines: list[Line], band: Band, log_log: bool, *notes: str) -> None:
    rows = pd.concat([line.rows for line in lines])
    seeds = seed_words(rows)
    said = [f"mean and {BANDS[band]} over {seeds}" if rows["num_seeds"].max() > 1 else seeds]
    said += ["thin: each seed"] * any(len(curve) > 1 for line in lines for curve in line.seeds.values())
    settings = {line.label if line.label and not _is_one_setting(lines) else "": line for line in lines}
    diverged = [found for line in settings.values() if (found := _num_diverged(line))]
    if diverged:
        total = sum(int(line.rows["num_seeds"].iloc[0]) for line in settings.values())
        words = diverged_words(sum(count for count, _ in diverged), total)
        said.append(f"{words}: a line ends where the first of its runs diverges")
    if log_log:
        said.append("step 0 left out: logarithmic axes")
    write_result_caption(figure, result, *said, *notes)


def _is_one_setting(lines: list[Line]) -> bool:
    """Returns whether all lines are of one setting, and differ in the split."""
    return all(line.rows is lines[0].rows for line in lines)

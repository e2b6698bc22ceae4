"""Figures of recorded curves: accuracy and loss against training steps, and accuracy against the learning rate.

A line is a mean over seeds, with a band around it; lines differ in colour, lightness, dashes and markers. A line ends
at the step at which a run of its setting diverges, and the figure says so: from there on, there is no mean of all runs.
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from types import SimpleNamespace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import (
    ANY_SPLIT,
    WORDS,
    IsResult,
    check_result,
    varied,
)
from jaxmnist.checks import FLAG, Choice, Choices, checked_by
from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.plots.style import (
    Figure,
    house_style,
    hyperparameter_words,
    line_style,
    log_ticks,
    write_result_caption,
)

LATE_SHARE, MIN_LATE_POINTS = 0.2, 8
MANY_POINTS = 8
MARKER_GAP = 0.09  # of the diagonal of a panel
BANDS = {"std": "one standard deviation", "half_width": "95 % t interval"}
Band = Literal["std", "half_width"]


class _Line(NamedTuple):
    """A setting on a split.

    Attributes:
      label: what distinguishes it from the others.
      rows: of `results.curve_table`, one per recorded step.
      split: which columns of these to draw.
    """

    label: str
    rows: pd.DataFrame
    split: str


BAND = Choice(tuple(BANDS))


def _check_log_axes(given: SimpleNamespace) -> None:
    steps = given.result.coords.get("step", np.ones(1))
    if given.log_log and not (steps > 0).any():
        raise ValueError("log_log is True, but the result records no step above 0, which logarithmic axes need")


def _check_accuracy(given: SimpleNamespace) -> None:
    check_result(given.result, (f"recorded_{given.split}_accuracy", "diverged_step"))
    _check_log_axes(given)


@checked_by(_check_accuracy, result=IsResult((), WORDS), split=ANY_SPLIT, log_log=FLAG, band=BAND)
def accuracy_curve(result: xr.Dataset, split: str = "test", *, log_log: bool = False, band: Band = "std") -> Figure:
    """Returns accuracy against training steps, one line per setting, as the original notebook drew it.

    Nearly all of the rise happens in the first steps, so the rest is drawn once more, enlarged.

    Args:
      result: with `recorded_{split}_accuracy`.
      split: `"test"`, as in the original, `"validation"` or `"train"`.
      log_log: whether to draw the error, 1 - accuracy, on logarithmic axes, without step 0 and any enlarged part.
      band: what to draw around the mean: one standard deviation over seeds, `"std"`, or its 95 % interval,
        `"half_width"`.

    Raises:
      ValueError: there is no such curve.
    """
    table = results.curve_table(result, split)
    lines = [_Line(label, rows, split) for label, rows in _settings(result, table)]
    with house_style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        late = table["step"].max() * LATE_SHARE
        _draw(axes, lines, "accuracy", band, log_log)
        axes.set_xlabel("training steps")
        if not log_log:
            axes.set_ylim(0, 100)
            if sum(step >= late for step in result["step"].values) > MIN_LATE_POINTS and _is_drawn(lines, late):
                zoomed = axes.inset_axes((0.36, 0.12, 0.6, 0.56))
                _draw(zoomed, lines, "accuracy", band, log_log, first=late)
                zoomed.set_ylabel("")
                zoomed.tick_params(labelsize=8)
        _head(figure, axes, lines, title_words(result, split))
        _caption(figure, result, lines, band, log_log)
    return figure


def _check_learning(given: SimpleNamespace) -> None:
    pairs = itertools.product(results.as_list(given.splits), results.as_list(given.metrics))
    check_result(given.result, [*(f"recorded_{split}_{metric}" for split, metric in pairs), "diverged_step"])
    _check_log_axes(given)


@checked_by(
    _check_learning, result=IsResult((), WORDS), splits=Choices(SPLIT_NAMES), metrics=Choices(("accuracy", "loss")),
    log_log=FLAG, band=BAND,
)  # fmt: skip
def learning_curves(
    result: xr.Dataset,
    splits: Sequence[str] = ("train", "validation", "test"),
    metrics: Sequence[str] = ("accuracy", "loss"),
    *,
    log_log: bool = False,
    band: Band = "std",
) -> Figure:
    """Returns accuracy and loss on several splits against training steps.

    One setting is drawn in a panel per metric, with a line per split; several in a panel per metric and split, with a
    line per setting. The range of a linear axis is that of the curves after the first tenth of the steps: the rise
    from chance would leave no room for anything else.

    Args:
      result: with `recorded_{split}_{metric}` of all of them.
      splits: of `"train"`, `"validation"` and `"test"`.
      metrics: of `"accuracy"` and `"loss"`.
      log_log: whether the axes are logarithmic and show the error, 1 - accuracy, in place of accuracy.
      band: as for `accuracy_curve`.

    Raises:
      ValueError: there is no such curve.
    """
    table = results.curve_table(result, splits, metrics)
    settings = _settings(result, table)
    is_single = len(settings) == 1
    panels = [[_Line(label, rows, split) for label, rows in settings] for split in splits]
    if is_single:
        panels = [[_Line(split_words(split), settings[0][1], split) for split in splits]]
    shape = (1, len(metrics)) if is_single else (len(metrics), len(splits))
    lines = panels[0]
    with house_style():
        figure = Figure(figsize=(7.2, 3.4 if is_single else 1.0 + 2.4 * len(metrics)), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False, sharex=not is_single, sharey=False if is_single else "row")
        flat = [(metric, panel) for metric in metrics for panel in panels]
        for axes, (metric, panel) in zip(grid.flat, flat, strict=True):
            _draw(axes, panel, metric, band, log_log)
        for row, row_axes in enumerate(grid):
            groups = [[place] for place in range(len(row_axes))] if is_single else [list(range(len(row_axes)))]
            for places in groups:
                shown = [flat[row * len(row_axes) + place] for place in places]
                _set_limits([row_axes[place] for place in places], shown, band, log_log)
            for place, axes in enumerate(row_axes):
                if not is_single and row == 0:
                    axes.set_title(f"{split_words(splits[place])} split", fontsize=10)
                if not is_single:
                    axes.set_ylabel("" if place else _label(flat[row * len(row_axes)][0], log_log))
        for axes in grid[-1]:
            axes.set_xlabel("training steps")
        _head(figure, grid[0, 0], lines, title_words(result, *splits))
        shows_all = log_log or not _late(table)
        outside = "" if shows_all else f"before step {_late(table):g}, curves may lie outside the axes"
        _caption(figure, result, [line for panel in panels for line in panel], band, log_log, outside)
    return figure


def _settings(result: xr.Dataset, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns the label and the rows of each setting."""
    names = varied(result)
    if not names:
        return [("", table)]
    groups: Iterable[tuple[Hashable, pd.DataFrame]] = table.groupby(names, sort=False)
    return [(", ".join(map(hyperparameter_words, names, key)), rows) for key, rows in groups]  # type: ignore[call-overload]


def split_words(split: str) -> str:
    """Returns the name of a split in words."""
    return "training" if split == "train" else split


def title_words(result: xr.Dataset, *splits: str) -> str:
    """Returns data set, splits and budget in words."""
    *others, last = map(split_words, splits)
    shown = f"{', '.join(others)} and {last} splits" if others else f"{last} split"
    return f"{result.attrs['dataset']}, {shown}, {result.attrs['budget']}"


def _label(metric: str, log_log: bool) -> str:
    return {"accuracy": "error (%)" if log_log else "accuracy (%)", "loss": "loss (nats per example)"}[metric]


def _values(line: _Line, metric: str, band: Band, log_log: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns steps, mean and half the width of the band; accuracies and errors in per cent."""
    rows = line.rows[line.rows["step"] > 0] if log_log else line.rows
    mean, width = (rows[f"{line.split}_{metric}_{part}"].to_numpy(float) for part in ("mean", band))
    if metric == "accuracy":
        mean, width = 100 * (1 - mean if log_log else mean), 100 * width
    return rows["step"].to_numpy(float), mean, width


def _draw(axes: Axes, lines: list[_Line], metric: str, band: Band, log_log: bool, first: float = 0.0) -> None:
    """Draws the lines from a step on, each with its band."""
    for place, line in enumerate(lines):
        steps, mean, width = _values(line, metric, band, log_log)
        shown = steps >= first
        steps, mean, width = steps[shown], mean[shown], width[shown]
        style = line_style(place, len(lines))
        low = np.maximum(mean - width, 0.02 * mean) if log_log else mean - width
        axes.fill_between(steps, low, mean + width, color=style["color"], alpha=0.2, linewidth=0)
        # Few markers, and those of different lines at different places.
        many = len(lines) > 1 and np.isfinite(mean).sum() > MANY_POINTS
        marked = (MARKER_GAP * place / len(lines), MARKER_GAP) if many else None
        axes.plot(steps, mean, **style, markevery=marked, label=line.label, clip_on=first > 0 or log_log)
    has_one_split = len({line.split for line in lines}) == 1
    axes.set_ylabel(f"{split_words(lines[0].split)} " * has_one_split + _label(metric, log_log))
    axes.grid(alpha=0.3)
    last = max(line.rows["step"].max() for line in lines)
    if log_log:
        axes.set(xscale="log", yscale="log")
        first = min(line.rows["step"][line.rows["step"] > 0].min() for line in lines)
        axes.set_xlim(first / 1.1, last * 1.1)
        log_ticks(axes, "x", first, last)
        drawn = np.concatenate([_values(line, metric, band, True)[1] for line in lines])
        drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
        if drawn.size:
            log_ticks(axes, "y", drawn.min(), drawn.max())
        else:
            axes.set_ylim(1, 100)  # matplotlib finds no logarithmic scale if nothing is drawn
    elif not first:
        axes.set_xlim(0, last)
        axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _set_limits(panels: list[Axes], shown: list[tuple[str, list[_Line]]], band: Band, log_log: bool) -> None:
    """Gives panels that share an axis the range of their curves after the first tenth of the steps."""
    lows, highs = [], []
    for metric, lines in shown:
        for line in lines:
            steps, mean, width = _values(line, metric, band, log_log)
            late = np.isfinite(mean) & ((mean > 0) if log_log else (steps >= _late(line.rows)))
            width = np.nan_to_num(width[late])
            lows.extend(np.maximum(mean[late] - width, 0.5 * mean[late]) if log_log else mean[late] - width)
            highs.extend(mean[late] + width)
    if not lows or min(lows) >= max(highs):
        return
    low, high = min(lows), max(highs)
    if log_log:
        low, high = low / 1.05, high * 1.05
    else:
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    for axes in panels:
        axes.set_ylim(low, high)
        for drawn in axes.lines:
            drawn.set_clip_on(True)


def _late(table: pd.DataFrame) -> float:
    """Returns the step from which linear panels show everything, or 0 if too few points come after it."""
    steps = table["step"].unique()
    return steps.max() / 10 if (steps >= steps.max() / 10).sum() > MIN_LATE_POINTS else 0.0


def _is_drawn(lines: list[_Line], first: float) -> bool:
    """Returns whether a line has points at this step or later."""
    return any(line.rows.loc[line.rows["step"] >= first, f"{line.split}_accuracy_mean"].notna().any() for line in lines)


def _head(figure: Figure, axes: Axes, lines: list[_Line], title: str) -> None:
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


def _num_diverged(line: _Line) -> tuple[int, int] | None:
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


def _caption(figure: Figure, result: xr.Dataset, lines: list[_Line], band: Band, log_log: bool, *notes: str) -> None:
    rows = pd.concat([line.rows for line in lines])
    seeds = seed_words(rows)
    said = [f"mean and {BANDS[band]} over {seeds}" if rows["num_seeds"].max() > 1 else seeds]
    settings = {line.label if line.label and not _is_one_setting(lines) else "": line for line in lines}
    diverged = [found for line in settings.values() if (found := _num_diverged(line))]
    if diverged:
        total = sum(int(line.rows["num_seeds"].iloc[0]) for line in settings.values())
        words = diverged_words(sum(count for count, _ in diverged), total)
        said.append(f"{words}: a line ends where the first of its runs diverges")
    if log_log:
        said.append("step 0 left out: logarithmic axes")
    write_result_caption(figure, result, *said, *notes)


def _is_one_setting(lines: list[_Line]) -> bool:
    """Returns whether all lines are of one setting, and differ in the split."""
    return all(line.rows is lines[0].rows for line in lines)

"""Maps of a sweep: accuracy, or another metric, over any two hyperparameters, and the original notebook's scatter.

Each title names the data set, the split and the budget; each caption the model, the optimizer, the number of seeds
and the interval. Every function returns a matplotlib `Figure`; none trains, and none shows.
"""

import textwrap
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis import results, ties
from jaxmnist.analysis.arguments import BY, CHOOSING_SPLIT, LARGEST, SETTINGS, WORDS, IsResult, varied
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.analysis.words import margin_words
from jaxmnist.checks import STRING, Choice, Optional, checked_by
from jaxmnist.plots.cells import Cells, Layout, cells, layout, settings_table
from jaxmnist.plots.curves import mean_words, title_words
from jaxmnist.plots.metrics import color_bar, colors, in_unit, label, mean_width_words
from jaxmnist.plots.panels import (
    LETTER_WIDTH,
    MAX_VECTORS,
    draw_cells,
    font_size_of,
    is_dashed,
    outline,
    write_values,
)
from jaxmnist.plots.rulers import draw_ruler
from jaxmnist.plots.style import (
    MAX_TICKS,
    PLANE,
    Figure,
    axis_label,
    house_style,
    hyperparameter_words,
    places,
    title,
    write_result_caption,
)

MAX_PANELS = 8
NEEDED = (*WORDS, "num_validation", "num_test")
AXIS = Optional(STRING)
DRAWN = IsResult(SETTINGS, NEEDED, PLANE, PLANE)


def _check_map(given: SimpleNamespace) -> None:
    check_by(given)
    names = [name for name in results.hyperparameters(given.result) if name != "seed"]
    if len(names) < 2:
        raise ValueError(f"result has the hyperparameters {', '.join(names)}; a map needs two, besides the seed")
    asked = {"x": given.x, "y": given.y, "columns": given.columns, "rows": given.rows}
    for argument, name in asked.items():
        Optional(Choice(tuple(names))).check(argument, name)
        same = [other for other in asked if other != argument and name is not None and asked[other] == name]
        if same:
            raise ValueError(f"{argument} is {name!r}, as {same[0]} is; another hyperparameter is needed")
    for argument in ("columns", "rows"):
        values = results.hyperparameters(given.result)[asked[argument]] if asked[argument] else []
        if len(values) > MAX_PANELS:
            raise ValueError(
                f"{argument} is {asked[argument]!r}, which has {len(values)} values; one with at most {MAX_PANELS} is "
                "needed"
            )


@checked_by(
    _check_map, result=IsResult(SETTINGS, NEEDED), split=CHOOSING_SPLIT, x=AXIS, y=AXIS, columns=AXIS, rows=AXIS, by=BY,
    largest=LARGEST,
)  # fmt: skip
def heatmap(
    result: xr.Dataset,
    split: str = "validation",
    *,
    x: str | None = None,
    y: str | None = None,
    columns: str | None = None,
    rows: str | None = None,
    by: str | None = None,
    largest: bool | None = None,
) -> Figure:
    """Returns the mean accuracy, or another metric, over seeds as a map over two hyperparameters.

    Of further hyperparameters with several values, each cell has the best setting on validation; `columns` and `rows`
    draw a panel for each value instead. The values of an axis may be numbers, on the linear or logarithmic scale on
    which they are evenly spaced, or names. If the result is no grid and its settings were drawn at random, numbers are
    put into intervals. The caption says all of this.

    Cells with a run that diverged are hatched, show the share of such runs, and are never coloured. Nor are cells that
    were pruned, which are dotted, or that have not ended, which stay empty. Accuracies far below the others (under
    Tukey's lower fence) are black, so that they do not hide the differences among the rest; the colour bar then ends in
    an arrow. So are losses far above the others; losses that span more than a factor of ten have a logarithmic scale.
    The best setting and those that are as good are outlined, and those of which that cannot be told are outlined with
    dashes (`jm.ties`), unless there are more than 64. If the axes are learning rate and batch size and both are
    logarithmic, lines show linear and square-root scaling.

    Args:
      result: of a grid, a sample, a union or a search, or a selection of its runs.
      split: `"validation"` or `"test"`.
      x: hyperparameter of the horizontal axis; default the learning rate if the result has several, and otherwise the
        first hyperparameter of which it has several values.
      y: of the vertical axis; default the batch size, or the next hyperparameter with several values.
      columns: hyperparameter with a column of panels for each value, at most 8.
      rows: the same for rows.
      by: the metric to show and to find the best setting by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    metric = judged(result, by, largest)
    table = settings_table(result, metric)
    shown = layout(result, table, _axes_of_map(result, x, y, (columns, rows)), (columns, rows))
    found = cells(result, table, shown, f"{split}_{metric.name}", metric)
    scale = colors(found.values, metric)
    with house_style():
        figure, panels = _panels(result, shown, split)
        font_size = font_size_of(figure, found, metric)
        for (row, column), axes in np.ndenumerate(panels):
            at = Cells._make(each[row, column] for each in found)
            max_ticks = MAX_TICKS if panels.shape[1] == 1 else max(3, MAX_TICKS // panels.shape[1])
            x_centres, x_edges = draw_ruler(axes, "x", result, shown.x, max_ticks)
            y_centres, y_edges = draw_ruler(axes, "y", result, shown.y, MAX_TICKS)
            mesh = draw_cells(axes, at, scale, x_edges, y_edges)
            write_values(axes, at, scale, metric, (x_centres, y_centres, font_size))
            outline(axes, at.standing, x_edges, y_edges, is_dashed(found))
            if panels.size > 1:
                axes.label_outer()
        choice = _cell_notes(result, shown)
        is_plane = panels.size == 1 and tuple(shown.names) == PLANE
        is_scaled = is_plane and not choice and axes.get_xscale() == axes.get_yscale() == "log"
        guides = _draw_guides(axes, table, x_edges) if is_scaled else ""
        drawn = panels if panels.size > 1 else panels[0, 0]
        color_bar(figure, mesh, drawn, f"{split} {label(result, metric.name)}", scale.extend)
        notes = choice, *_notes(result, found, table, metric, font_size > 0)
        write_result_caption(figure, result, *notes, guides, on_axes=shown.names)
    return figure


def _axes_of_map(result: xr.Dataset, x: str | None, y: str | None, panels: tuple) -> tuple[str, str]:
    """Returns the hyperparameters of the axes: those asked for, and then those with several values."""
    several = varied(result)
    names = [name for name in (*PLANE, *results.hyperparameters(result)) if name in results.hyperparameters(result)]
    ordered = sorted(dict.fromkeys(names), key=lambda name: (name not in several, name not in PLANE))
    if set(several) <= {*PLANE} <= set(names):
        ordered = [*PLANE, *ordered]
    free = [name for name in ordered if name not in (x, y, *panels, "seed")]
    x = x if x is not None else free.pop(0)
    return x, y if y is not None else next(name for name in free if name != x)


def _panels(result: xr.Dataset, shown: Layout, split: str) -> tuple[Figure, np.ndarray]:
    """Returns a figure with titles and its axes, `[R, C]`."""
    rows, columns, *_ = shown.shape
    if rows == columns == 1:
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        panels = figure.subplots(squeeze=False)
        title(panels[0, 0], result, split)
        return figure, panels
    size = np.clip(1.6 + 2.3 * columns, 7.2, 11.0), np.clip(1.6 + 1.9 * rows, 3.6, 12.0)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title_words(result, split), x=0.01, ha="left", fontsize=11)
    letters = int(size[0] / columns / (9 * LETTER_WIDTH))
    for place, axes in np.ndenumerate(panels):
        pairs = [(each, at) for each, at in zip((shown.rows, shown.columns), place, strict=True) if each is not None]
        words = [hyperparameter_words(result, each.name, each.values[at]) for each, at in pairs]
        axes.set_title(textwrap.fill(", ".join(words), letters), loc="left", fontsize=9)
    return figure, panels


def _cell_notes(result: xr.Dataset, shown: Layout) -> str:
    """Returns in words which settings a cell has to choose from; empty if there is one alone."""
    rest = [axis_label(name).split(" (")[0] for name in varied(result) if name not in shown.names]
    has_intervals = any(each.edges is not None for each in (shown.x, shown.y))
    if not rest:
        return "each cell: the best setting in its intervals on validation" * has_intervals
    listed = " and ".join([", ".join(rest[:-1]), rest[-1]] if len(rest) > 1 else rest)
    return f"each cell: the best {listed}{' in its intervals' * has_intervals} on validation"


def _notes(result: xr.Dataset, found: Cells, table: pd.DataFrame, metric: Metric, is_labelled: bool) -> list[str]:
    """Returns what the marks of a map mean."""
    width = mean_width_words(metric.name, found.half_width, found.values.data)
    mean = mean_words(table)
    within = margin_words(metric.name, ties.default_margin(table, metric))
    num_unclear = int((found.standing == "unclear").sum())
    said = [f"solid outline: as good as the best on validation, {within}"] * bool((found.standing == "as good").any())
    said = said or ["solid outline: the best on validation"] * bool(num_unclear)
    if num_unclear and is_dashed(found):
        said.append("dashed outline: cannot be told with these seeds")
    elif num_unclear:
        said.append(f"not outlined: {num_unclear} that cannot be told from the best with these seeds")
    notes = {
        f"hatched: {'share of runs that' if is_labelled else 'a run'} diverged": found.share.any(),
        f"dotted: pruned after {_pruned_steps(result)} steps": found.pruned.any(),
        "empty: no setting": (np.ma.getmaskarray(found.values) & (found.share == 0) & ~found.pruned).any()
        and "run" in result.dims,
        "dead or x: stuck at log(classes)": found.dead.any(),
    }
    marks = [words for words, is_shown in notes.items() if is_shown]
    return [f"{mean}, {width}" if width else mean, *marks, "; ".join(said) + " (paired t tests, 5 %)" * bool(said)]


def _draw_guides(axes: Axes, table: pd.DataFrame, x_edges: np.ndarray) -> str:
    """Draws how learning rates would grow with the batch size from the best one at the smallest; returns it in words.

    Linearly (Goyal et al. 2017, arXiv:1706.02677) or with its root (Krizhevsky 2014, arXiv:1404.5997).
    """
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
        as_pixels = sane.size > MAX_VECTORS
        edges: dict = dict(edgecolors="0.3", linewidths=0.6 if size > 20 else 0.0)
        style: Any = dict(cmap=scale.cmap, norm=scale.norm, rasterized=as_pixels, **edges)
        dots = axes.scatter(x[sane], y[sane], c=values[sane].data, s=size, **style)
        axes.scatter(x[~sane], y[~sane], marker="x", c="0.3", s=max(size / 2, 12), rasterized=as_pixels)
        color_bar(figure, dots, axes, f"{split} {label(result, metric.name)}", scale.extend)
        crosses = "" if sane.all() else "crosses: a run diverged" + " or was pruned" * ("pruned_step" in table)
        title(axes, result, split)
        mean = mean_words(table)
        width = mean_width_words(metric.name, half_width[sane], values.data[sane])
        write_result_caption(figure, result, f"{mean}, {width}" if width else mean, crosses, on_axes=PLANE)
    return figure


def _pruned_steps(result: xr.Dataset) -> str:
    steps = result["pruned_step"].values if "pruned_step" in result else np.array([])
    return " or ".join(f"{step:.0f}" for step in np.unique(steps[np.isfinite(steps)]))

"""The figure of a published table: their numbers beside ours; see `jaxmnist.studies.published`."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from jaxmnist.plots.style import COLORMAP, Figure, house_style, write_caption
from jaxmnist.studies.published import Row, Table

UNITS = {"%": "accuracy (%)", "dimension": "box-counting dimension", "examples": "examples", "s": "time (s)"}
OFFSET = 0.14  # between theirs and ours, of the distance between rows


def figure(table: Table) -> Figure:
    """Returns a table as points: ours with 95 % intervals, theirs as open diamonds; a panel for each unit."""
    panels = {unit: [row for row in table.rows if row.unit == unit] for unit in {row.unit: None for row in table.rows}}
    counts = [len(rows) for rows in panels.values()]
    with house_style():
        drawn = Figure(figsize=(7.2, 1.6 + 0.36 * sum(counts) + 0.5 * len(counts)), layout="constrained")
        all_axes = drawn.subplots(len(counts), 1, height_ratios=counts, squeeze=False)[:, 0]
        for axes, (unit, rows) in zip(all_axes, panels.items(), strict=True):
            _panel(axes, rows)
            axes.set_xlabel(UNITS[unit])
        handles, labels = all_axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
        drawn.suptitle(table.title, x=0.01, ha="left", fontsize=11)
        write_caption(drawn, table.source, table.recipe, table.budget, table.seeds)
    return drawn


def _panel(axes: Axes, rows: list[Row]) -> None:
    """Draws rows of one unit, the first at the top."""
    places = np.arange(len(rows), dtype=float)
    means = np.array([row.ours.mean for row in rows])
    ends = np.array([[row.ours.mean - row.ours.low, row.ours.high - row.ours.mean] for row in rows]).T
    color = mpl.colormaps[COLORMAP](0.3)
    axes.errorbar(
        means, places + OFFSET, xerr=np.nan_to_num(ends), fmt="o", color=color, markersize=5, capsize=3, label="ours"
    )
    known = np.array([row.theirs is not None for row in rows])
    theirs = np.array([row.theirs for row in rows if row.theirs is not None])
    between = [row.theirs_interval or (row.theirs, row.theirs) for row in rows if row.theirs is not None]
    if known.any():
        bars = np.abs(np.array(between).T - theirs)
        style: Any = dict(fmt="D", color="0.25", markerfacecolor="white", markersize=5, capsize=3)
        axes.errorbar(theirs, places[known] - OFFSET, xerr=bars if bars.any() else None, label="theirs", **style)
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params("y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)

"""A panel of a map: its colours, hatches, numbers and outlines."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from jaxmnist.analysis.metrics import Metric
from jaxmnist.plots.cells import Cells
from jaxmnist.plots.metrics import Colors, cell_words
from jaxmnist.plots.style import DIVERGED_COLOR, Figure

MAX_LABELLED_CELLS = 64
MAX_DASHED = 64
MAX_VECTORS = 2000  # with more cells or dots than that, a figure holds them as pixels, also in SVG
FONT_SIZES = (9, 7)  # of numbers in cells, in one panel and in several
LETTER_WIDTH, LETTER_HEIGHT = 0.0085, 0.018  # in inches, of a font of one point
DASHED = (0, (4, 2.5))
DASHED_MARGIN = 0.06  # of a cell, so that the dashes of neighbours do not fall on one another


def draw_cells(axes: Axes, at: Cells, scale: Colors, x_edges: np.ndarray, y_edges: np.ndarray) -> QuadMesh:
    """Draws the colours and the hatches of a panel."""
    as_pixels = at.share.size > MAX_VECTORS
    mesh = axes.pcolormesh(x_edges, y_edges, at.values, cmap=scale.cmap, norm=scale.norm, rasterized=as_pixels)
    axes.set_facecolor(DIVERGED_COLOR)
    for hidden, hatch, color in ((at.share > 0, "////", "0.55"), (at.pruned, "..", "0.7")):
        if hidden.any():
            hatched = np.ma.masked_where(~hidden, hidden)
            style: dict = dict(edgecolor=color, facecolor="none", linewidth=0, rasterized=as_pixels)
            axes.pcolor(x_edges, y_edges, hatched, hatch=hatch, **style)
    return mesh


def font_size_of(figure: Figure, found: Cells, metric: Metric) -> int:
    """Returns the size of the font of the numbers in the cells; 0 if they are too many, or too long to be read."""
    rows, columns, height, width = found.share.shape
    if height * width > MAX_LABELLED_CELLS:
        return 0
    letters = max((len(cell_words(metric.name, value)) for value in found.values.compressed()), default=1)
    points = FONT_SIZES[rows * columns > 1]
    space = (figure.get_figwidth() - 1.8) / columns / width, (figure.get_figheight() - 1.4) / rows / height
    fits = space[0] > min(letters, 6) * points * LETTER_WIDTH and space[1] > points * LETTER_HEIGHT
    return points if fits else 0


def write_values(axes: Axes, at: Cells, scale: Colors, metric: Metric, where: tuple) -> None:
    """Writes numbers into the cells, or only crosses where runs are dead."""
    x, y, font_size = where
    for i, j in np.ndindex(at.share.shape if font_size else (0, 0)):
        diverged = at.share[i, j] > 0
        if not diverged and np.ma.getmaskarray(at.values)[i, j]:
            continue
        value = float(at.values.data[i, j])
        text = f"{100 * at.share[i, j]:.0f} %" if diverged else cell_words(metric.name, value)
        text += "\ndead" if at.dead[i, j] else ""
        color = "black" if diverged or scale.is_bright(value) else "white"
        # The numbers hide the lines of scaling that pass behind them.
        box = dict(facecolor=DIVERGED_COLOR if diverged else scale.cmap(scale.norm(value)), edgecolor="none", pad=1)
        axes.text(x[j], y[i], text, ha="center", va="center", fontsize=font_size, color=color, bbox=box)
    for i, j in np.argwhere(at.dead if not font_size else np.zeros_like(at.dead)):
        axes.plot(x[j], y[i], "x", color="white", markersize=4)


def is_dashed(found: Cells) -> bool:
    """Returns whether the settings that cannot be told from the best are few enough to be outlined one by one."""
    return int((found.standing == "unclear").sum()) <= MAX_DASHED


def outline(axes: Axes, standing: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray, is_dashed: bool) -> None:
    """Outlines the settings that are as good as the best, with dashes where that cannot be told."""
    outlined = ("best", "as good", "unclear") if is_dashed else ("best", "as good")
    for i, j in np.argwhere(np.isin(standing, outlined)):
        is_unclear = standing[i, j] == "unclear"
        margin = DASHED_MARGIN if is_unclear else 0.0
        left, right = _within(x_edges[j : j + 2], axes.get_xscale(), margin)
        low, high = _within(y_edges[i : i + 2], axes.get_yscale(), margin)
        cell: dict = dict(xy=(left, low), width=right - left, height=high - low, fill=False)
        axes.add_patch(Rectangle(**cell, edgecolor="white", lw=2.2 if is_unclear else 3.0))
        axes.add_patch(Rectangle(**cell, edgecolor="black", lw=1.2, ls=DASHED if is_unclear else "-"))


def _within(edges: np.ndarray, scale: str, margin: float) -> np.ndarray:
    """Returns the edges of a cell, moved inwards by a share of its size."""
    forth, back = (np.log, np.exp) if scale == "log" else (np.asarray, np.asarray)
    low, high = forth(edges)
    return back(np.array([low + margin * (high - low), high - margin * (high - low)]))

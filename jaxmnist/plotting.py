"""Figures of saved results. Every function returns a matplotlib `Figure`; none trains, and none shows.

Each title names the data set, the split and the budget, and each caption the number of seeds.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxmnist import results

COLORMAP = "viridis"  # monotone in lightness: it survives greyscale and colour blindness
MAX_LABELLED_CELLS = 64
MAX_TICKS = 12
STYLE = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
LABELS = {
    "learning_rate": "learning rate",
    "batch_size": "batch size (examples)",
    "step": "training step",
    "weight_decay": "weight decay",
}


def heatmap(result: xr.Dataset, split: str = "validation") -> Figure:
    """Returns the mean accuracy over seeds as a map of learning rate by batch size.

    Cells of which a run diverged are hatched, with their share of diverged runs, and never coloured.

    Args:
      result: of a full grid, with at most `learning_rate`, `batch_size` and `seed` longer than 1.
      split: `"validation"` or `"test"`.
    """
    accuracy, share = _map(result, split)
    x, y = accuracy["learning_rate"].values, accuracy["batch_size"].values
    values = 100 * np.ma.masked_where(share.values > 0, accuracy.values)
    labelled = values.size <= MAX_LABELLED_CELLS
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        x_edges, y_edges = _set_scale(axes, "x", x), _set_scale(axes, "y", y)
        mesh = axes.pcolormesh(x_edges, y_edges, values, cmap=COLORMAP)
        _hatch(axes, x_edges, y_edges, share.values, labelled)
        for i, j in np.ndindex(values.shape):
            if labelled and values[i, j] is not np.ma.masked:
                color = "black" if mesh.norm(values[i, j]) > 0.6 else "white"
                where = dict(ha="center", va="center", fontsize=9, color=color)
                axes.text(x[j], y[i], f"{values[i, j]:.1f}", **where)
        figure.colorbar(mesh, ax=axes, label=f"{split} accuracy (%)")
        axes.set_xlabel(LABELS["learning_rate"])
        axes.set_ylabel(LABELS["batch_size"])
        _caption(figure, axes, result, split, f"{_seeds(result)}{_hatch_words(share.values)}")
    return figure


def scatter(result: xr.Dataset, split: str = "test") -> Figure:
    """Returns the original notebook's scatter: one dot per setting, coloured by its mean accuracy over seeds.

    Args:
      result: of a full grid, with at most `learning_rate`, `batch_size` and `seed` longer than 1.
      split: `"test"`, as the original drew it, or `"validation"`.
    """
    accuracy, share = _map(result, split)
    x, y = np.meshgrid(accuracy["learning_rate"].values, accuracy["batch_size"].values)
    sane = share.values == 0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        _set_scale(axes, "x", accuracy["learning_rate"].values)
        _set_scale(axes, "y", accuracy["batch_size"].values)
        colors = 100 * accuracy.values[sane]
        dots = axes.scatter(x[sane], y[sane], c=colors, s=140, cmap=COLORMAP, edgecolors="0.3", linewidths=0.6)
        axes.scatter(x[~sane], y[~sane], marker="x", c="0.3", s=60)
        figure.colorbar(dots, ax=axes, label=f"{split} accuracy (%)")
        axes.set_xlabel(LABELS["learning_rate"])
        axes.set_ylabel(LABELS["batch_size"])
        diverged = "; x: a run diverged" if not sane.all() else ""
        _caption(figure, axes, result, split, f"{_seeds(result)}{diverged}")
    return figure


def accuracy_curve(result: xr.Dataset, split: str = "test") -> Figure:
    """Returns accuracy against training steps: the mean over seeds, and the band of one standard deviation.

    Args:
      result: with `recorded_{split}_accuracy` over `seed` and `step`; other dims of length 1.
      split: `"test"`, as the original drew it, or `"validation"`.
    """
    curves = 100 * result[f"recorded_{split}_accuracy"].squeeze().transpose(..., "step")
    runs = np.atleast_2d(curves.values)
    mean, std = runs.mean(axis=0), runs.std(axis=0, ddof=1) if len(runs) > 1 else 0.0
    steps = result["step"].values
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        color = mpl.colormaps[COLORMAP](0.3)
        axes.fill_between(steps, mean - std, mean + std, color=color, alpha=0.25, linewidth=0)
        axes.plot(steps, mean, "o-", color=color, markersize=3.5, linewidth=1.2)
        axes.set_xlim(0, None)
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
        axes.set_xlabel("training steps")
        axes.set_ylabel(f"{split} accuracy (%)")
        band = "mean and one standard deviation over" if len(runs) > 1 else ""
        fixed = ", ".join(f"{LABELS[name].split(' (')[0]} {result[name].item():g}" for name in ("learning_rate", "batch_size"))
        _caption(figure, axes, result, split, f"{fixed}; {band} {_seeds(result)}")
    return figure


def _map(result, split):
    """Returns mean accuracy and share of diverged runs, `[batch_size, learning_rate]`."""
    missing = {"learning_rate", "batch_size"} - set(result.dims)
    extra = [name for name in results.axes(result) if name not in ("learning_rate", "batch_size", "seed")]
    wide = [name for name in extra if result.sizes.get(name, 1) > 1]
    if missing or wide:
        raise ValueError(
            f"a map needs a grid over learning_rate and batch_size alone; select one value of {wide or sorted(missing)}"
        )
    result = result.squeeze(extra) if extra else result
    accuracy = result[f"{split}_accuracy"].mean("seed", skipna=False)
    share = result["diverged_step"].notnull().mean("seed")
    return (array.transpose("batch_size", "learning_rate") for array in (accuracy, share))


def _set_scale(axes: Axes, which: str, values: np.ndarray) -> np.ndarray:
    """Gives an axis the scale in which its values are evenly spaced and returns the edges of their cells."""
    logarithmic = len(values) > 2 and values.min() > 0 and _unevenness(np.log(values)) < _unevenness(values)
    forward, backward = (np.log, np.exp) if logarithmic else (lambda x: x, lambda x: x)
    points = forward(np.asarray(values, np.float64))
    gaps = np.diff(points) if len(points) > 1 else np.array([1.0])
    middles = (points[1:] + points[:-1]) / 2
    edges = backward(np.concatenate([[points[0] - gaps[0] / 2], middles, [points[-1] + gaps[-1] / 2]]))
    getattr(axes, f"set_{which}scale")("log" if logarithmic else "linear")
    ticks = values[:: -(-len(values) // MAX_TICKS)]
    getattr(axes, f"set_{which}ticks")(ticks, [f"{tick:.3g}" for tick in ticks])
    getattr(axes, f"set_{which}ticks")([], minor=True)
    getattr(axes, f"set_{which}lim")(edges[0], edges[-1])
    return edges


def _unevenness(points: np.ndarray) -> float:
    gaps = np.diff(points)
    return float(gaps.std() / gaps.mean())


def _hatch(axes: Axes, x_edges, y_edges, share: np.ndarray, labelled: bool) -> None:
    """Marks the cells of which a run diverged, with their share where cells carry numbers."""
    from matplotlib.patches import Rectangle

    for i, j in np.argwhere(share > 0):
        corner = (x_edges[j], y_edges[i])
        size = (x_edges[j + 1] - x_edges[j], y_edges[i + 1] - y_edges[i])
        axes.add_patch(Rectangle(corner, *size, facecolor="0.93", edgecolor="0.55", hatch="////", linewidth=0))
        if labelled:
            to_pixels = axes.transData
            low, high = to_pixels.transform(corner), to_pixels.transform((x_edges[j + 1], y_edges[i + 1]))
            x, y = to_pixels.inverted().transform((low + high) / 2)
            box = dict(facecolor="0.93", edgecolor="none", pad=1)
            axes.text(x, y, f"{100 * share[i, j]:.0f} %", ha="center", va="center", fontsize=9, bbox=box)


def _hatch_words(share: np.ndarray) -> str:
    return "; hatched: share of runs that diverged" if (share > 0).any() else ""


def _seeds(result: xr.Dataset) -> str:
    count = result.sizes.get("seed", 1)
    return f"{count} seed" + "s" * (count > 1)


def _caption(figure: Figure, axes: Axes, result: xr.Dataset, split: str, below: str) -> None:
    budget = result.attrs["budget"]
    axes.set_title(f"{result.attrs['dataset']}, {split} split, {budget}", loc="left")
    figure.supxlabel(f"{result.attrs['model']}, {result.attrs['optimizer']}; mean over {below}".replace("mean over learning", "learning"), fontsize=8.5, color="0.35")

"""Figures of saved results. Every function returns a matplotlib `Figure`; none trains, and none shows.

Each title names the data set, the split and the budget; each caption the model, the optimizer, the number of seeds
and the interval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from jaxmnist import results

COLORMAP = "viridis"  # monotone in lightness: it survives greyscale and colour blindness
UNDER_COLOR = "black"
DIVERGED_COLOR = "0.93"
MAX_LABELLED_CELLS = 64
MAX_TICKS = 9
MAX_GAP_RATIO = 3.0
MIN_LOG_RANGE = 10
STYLE: Any = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
LABELS = {"learning_rate": "learning rate", "batch_size": "batch size (examples)"}


class _Map(NamedTuple):
    """What a map shows, `[batch_size, learning_rate]` each.

    Attributes:
      accuracy: mean over seeds in per cent, masked where a run diverged, was pruned or has not ended.
      share: share of the runs that diverged.
      pruned: whether runs were pruned.
      half_width: half of the 95 % interval of the mean, in points.
    """

    accuracy: np.ma.MaskedArray
    share: np.ndarray
    pruned: np.ndarray
    half_width: np.ndarray


def heatmap(result: xr.Dataset, split: str = "validation") -> Figure:
    """Returns the mean accuracy over seeds as a map of learning rate by batch size.

    Cells of which a run diverged are hatched, with their share of diverged runs, and never coloured; nor are those that
    were pruned, which are dotted, and those that have not ended, which stay empty. Accuracies far
    below the others (under Tukey's lower fence) are black, so that they do not hide the differences among the rest; the
    colour bar then ends in an arrow.

    Args:
      result: of a full grid, with at most `learning_rate`, `batch_size` and `seed` longer than 1.
      split: `"validation"` or `"test"`.

    Raises:
      ValueError: the result has other long dims.
    """
    shown = _map(result, split)
    labelled = shown.share.size <= MAX_LABELLED_CELLS
    with mpl.rc_context(STYLE):
        figure, axes, (x, x_edges), (y, y_edges) = _map_figure(result)
        mesh = axes.pcolormesh(x_edges, y_edges, shown.accuracy, cmap=_colormap(), vmin=_lower_fence(shown.accuracy))
        axes.set_facecolor(DIVERGED_COLOR)
        if shown.share.any():
            hatched = np.ma.masked_where(shown.share == 0, shown.share)
            axes.pcolor(x_edges, y_edges, hatched, hatch="////", edgecolor="0.55", facecolor="none", linewidth=0)
        if shown.pruned.any():
            dotted = np.ma.masked_where(~shown.pruned, shown.pruned)
            axes.pcolor(x_edges, y_edges, dotted, hatch="..", edgecolor="0.7", facecolor="none", linewidth=0)
        for i, j in np.ndindex(shown.share.shape if labelled else (0, 0)):
            diverged = shown.share[i, j] > 0
            if not diverged and np.ma.getmaskarray(shown.accuracy)[i, j]:
                continue
            text = f"{100 * shown.share[i, j]:.0f} %" if diverged else f"{shown.accuracy[i, j]:.1f}"
            color = "black" if diverged or mesh.norm(shown.accuracy[i, j]) > 0.6 else "white"
            box = dict(facecolor=DIVERGED_COLOR, edgecolor="none", pad=1) if diverged else None
            axes.text(x[j], y[i], text, ha="center", va="center", fontsize=9, color=color, bbox=box)
        figure.colorbar(mesh, ax=axes, label=f"{split} accuracy (%)", extend=_extend(shown.accuracy))
        hatching = f"hatched: {'share of runs that' if labelled else 'a run'} diverged" if shown.share.any() else ""
        dots = f"dotted: pruned at {result.attrs.get('rungs', '')} steps" if shown.pruned.any() else ""
        _caption(figure, axes, result, split, _mean_words(result, shown.half_width), hatching, dots)
    return figure


def scatter(result: xr.Dataset, split: str = "test") -> Figure:
    """Returns the original notebook's scatter: one dot per setting, coloured by its mean accuracy over seeds.

    Args:
      result: of a grid or a sample, whose settings differ in `learning_rate` and `batch_size` alone.
      split: `"test"`, as the original drew it, or `"validation"`.

    Raises:
      ValueError: the settings differ in something else.
    """
    table = results.settings(result)
    if len(table) != len(table[["learning_rate", "batch_size"]].drop_duplicates()):
        raise ValueError("a scatter shows learning_rate and batch_size; select one value of every other hyperparameter")
    table = table[::-1]  # the best are drawn last, over the others
    sane = (table["num_diverged"] == 0).to_numpy()
    if "pruned_step" in table:
        sane = sane & table["pruned_step"].isna().to_numpy()
    accuracy = np.ma.masked_array(100 * table[f"{split}_accuracy"].to_numpy(float), ~sane)
    half_width = 100 * table[f"{split}_accuracy_half_width"].to_numpy(float)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        x, y = (
            _places(axes, which, name, table[name].to_numpy(float), is_sample="run" in result.dims)
            for which, name in (("x", "learning_rate"), ("y", "batch_size"))
        )
        size = float(np.clip(3000 / sane.size, 8, 140))
        style: Any = dict(
            cmap=_colormap(), vmin=_lower_fence(accuracy), edgecolors="0.3", linewidths=0.6 if size > 20 else 0.0
        )
        dots = axes.scatter(x[sane], y[sane], c=accuracy[sane].data, s=size, **style)
        axes.scatter(x[~sane], y[~sane], marker="x", c="0.3", s=max(size / 2, 12))
        figure.colorbar(dots, ax=axes, label=f"{split} accuracy (%)", extend=_extend(accuracy))
        crosses = "" if sane.all() else "crosses: a run diverged" + " or was pruned" * ("pruned_step" in table)
        _caption(figure, axes, result, split, _mean_words(result, half_width[sane]), crosses)
    return figure


def training_curves(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Returns loss and error on validation against training steps, on logarithmic axes, one line per seed.

    Args:
      rows: with `seed`, `step`, `validation_loss`, `validation_accuracy`; what training did at step 0 is left out.
      title: of the figure.
    """
    panels = (("validation_loss", "validation loss (nats)"), ("validation_accuracy", "validation error (%)"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for seed in sorted({row["seed"] for row in rows}):
                shown = [row for row in rows if row["seed"] == seed and row["step"] > 0]
                values = np.array([row[name] for row in shown])
                values = 100 * (1 - values) if name == "validation_accuracy" else values
                axes.plot([row["step"] for row in shown], values, "o-", markersize=3, linewidth=1, alpha=0.8)
            axes.set(xlabel="training steps", ylabel=label, yscale="log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="y", which="minor", labelsize=7)
            axes.grid(alpha=0.3, which="both")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def confusion(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Returns the confusion matrix: how many images of each class were taken for which; the diagonal is not coloured.

    Args:
      labels: `[N]` int.
      predicted: `[N]` int.
      class_names: `[K]`.
      title: of the figure.
    """
    num_classes = len(class_names)
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (labels, predicted), 1)
    wrong = np.ma.masked_array(counts, mask=np.eye(num_classes, dtype=bool))
    most = max(int(wrong.max()), 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(wrong, cmap="Blues", vmin=0, vmax=most)
        for i, j in np.ndindex(counts.shape):
            color = "white" if i != j and counts[i, j] > 0.6 * most else "black" if counts[i, j] else "0.7"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=color)
        ticks = range(num_classes)
        axes.set_xticks(ticks, class_names, rotation=0 if max(map(len, class_names)) < 3 else 45)
        axes.set_yticks(ticks, class_names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"{title}, {int(wrong.sum())} wrong", loc="left")
        figure.colorbar(picture, ax=axes, label="images taken for another class", shrink=0.8)
    return figure


def mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Returns images with the probability of their true class, and of the likeliest one where that is another.

    Args:
      images: `[N, H, W, C]` uint8, at most 25.
      labels: `[N]` int.
      probabilities: `[N, K]`.
      class_names: `[K]`.
      title: of the figure.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 8.2), layout="constrained")
        for axes in figure.subplots(5, 5).flat:
            axes.set_axis_off()
        for axes, image, label, row in zip(figure.axes, images, labels, probabilities, strict=False):
            axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=255)
            likeliest = row.argmax()
            words = f"true {class_names[label]}: {100 * row[label]:.1f} %"
            if likeliest != label:
                words = f"taken for {class_names[likeliest]}: {100 * row[likeliest]:.1f} %\n{words}"
            axes.set_title(words, fontsize=8)
        figure.suptitle(f"{title}: the least probable labels", x=0.01, ha="left", fontsize=11)
    return figure


def predictions(
    images: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], names: Sequence[str]
) -> Figure:
    """Returns each image as the network sees it, beside its class probabilities.

    Args:
      images: `[N, H, W]` uint8.
      probabilities: `[N, K]`.
      class_names: `[K]`.
      names: `[N]`, a title for each.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.0 * len(images)), layout="constrained")
        rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 3))
        for (left, right), image, row, name in zip(rows, images, probabilities, names, strict=True):
            left.imshow(image, cmap="gray", vmin=0, vmax=255)
            left.set_axis_off()
            left.set_title(name, fontsize=8)
            right.bar(range(len(row)), 100 * row, color=mpl.colormaps[COLORMAP](0.3))
            right.set_xticks(range(len(row)), class_names)
            right.set(ylim=(0, 100), ylabel="probability (%)")
        rows[-1][1].set_xlabel("class")
    return figure


def filters(kernel: np.ndarray, title: str) -> Figure:
    """Returns the kernels of a convolution, one picture each, the first input channel.

    Args:
      kernel: `[height, width, C, F]`.
      title: of the figure.
    """
    num_filters = kernel.shape[-1]
    columns = min(8, num_filters)
    rows = -(-num_filters // columns)
    limit = float(np.abs(kernel[:, :, 0]).max()) or 1.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 * rows + 0.9), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if index < num_filters:
                picture = axes.imshow(kernel[:, :, 0, index], cmap="RdBu_r", vmin=-limit, vmax=limit)
        figure.colorbar(picture, ax=grid, label="weight", shrink=0.8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _map(result: xr.Dataset, split: str) -> _Map:
    result = results.with_all_dims(result)
    others = [name for name in results.axes(result) if name not in ("learning_rate", "batch_size", "seed")]
    wide = [name for name in others if result.sizes.get(name, 1) > 1]
    missing = sorted({"learning_rate", "batch_size", "seed"} - set(result.dims))
    if missing or wide:
        problem = f"without the dims {missing}" if missing else f"with several values of {wide}"
        raise ValueError(f"a map shows a full grid over learning_rate and batch_size, not a result {problem}")
    result = result.squeeze(others).transpose("batch_size", "learning_rate", "seed", ...)
    accuracy = result[f"{split}_accuracy"].values
    share = result["diverged_step"].notnull().mean("seed").values
    nowhere = np.zeros(accuracy.shape, bool)
    ended = result["finished"].values if "finished" in result else ~nowhere
    pruned = (result["pruned_step"].notnull().values if "pruned_step" in result else nowhere).any(axis=-1)
    hidden = (share > 0) | ~ended.all(axis=-1) | pruned
    half_width = np.full(share.shape, np.nan)
    for place in zip(*np.nonzero(~hidden), strict=True):
        interval = results.interval(accuracy[place], result.attrs[f"num_{split}"])
        half_width[place] = 100 * (interval.high - interval.low) / 2
    mean = np.ma.masked_array(100 * accuracy.mean(axis=-1), mask=hidden)
    return _Map(mean, share, pruned & (share == 0), half_width)


def _map_figure(result: xr.Dataset):
    """Returns a figure, its axes, and centres and edges of the cells in both directions."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    cells = [
        _set_scale(axes, which, name, result[name].values)
        for which, name in (("x", "learning_rate"), ("y", "batch_size"))
    ]
    return figure, axes, *cells


def _set_scale(axes: Axes, which: str, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives an axis the scale in which its values lie evenly, and returns centres and edges of their cells.

    That is the linear or the logarithmic one; where they are uneven in both, one place each in their order.
    """
    values = np.asarray(values, np.float64)
    scale, points, note = "linear", values, ""
    if len(values) > 2:
        linear = _gap_ratio(values)
        logarithmic = _gap_ratio(np.log(values)) if values.min() > 0 else np.inf
        if min(linear, logarithmic) > MAX_GAP_RATIO:
            points, note = np.arange(len(values), dtype=np.float64), ", values spaced evenly"
        elif logarithmic < linear:
            scale, points = "log", np.log(values)
    backward: Callable[[np.ndarray], np.ndarray] = np.exp if scale == "log" else np.asarray
    gaps = np.diff(points) if len(points) > 1 else np.array([max(abs(points[0]), 1.0)])
    middles = (points[1:] + points[:-1]) / 2
    edges = backward(np.concatenate([[points[0] - gaps[0] / 2], middles, [points[-1] + gaps[-1] / 2]]))
    centres = backward(points)
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_TICKS)).round().astype(int))
    names = [f"{value:.0f}" if name == "batch_size" else f"{float(f'{value:.2g}'):g}" for value in values[shown]]
    axes.set(**{f"{which}scale": scale, f"{which}label": LABELS[name] + note})
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(centres[shown], names)
    axis.set_ticks([], minor=True)
    axes.set(**{f"{which}lim": (edges[0], edges[-1])})
    return centres, edges


def _places(axes: Axes, which: str, name: str, column: np.ndarray, is_sample: bool) -> np.ndarray:
    """Gives an axis its scale and returns where the values of a column lie on it."""
    if is_sample:
        wide = column.min() > 0 and column.max() > MIN_LOG_RANGE * column.min()
        axes.set(**{f"{which}scale": "log" if wide else "linear", f"{which}label": LABELS[name]})
        return column
    values, place = np.unique(column, return_inverse=True)
    return _set_scale(axes, which, name, values)[0][place]


def _gap_ratio(points: np.ndarray) -> float:
    gaps = np.diff(points)
    return float(gaps.max() / gaps.min())


def _colormap() -> Colormap:
    # What lies under the scale must not look like its lower end.
    return mpl.colormaps[COLORMAP].with_extremes(under=UNDER_COLOR)


def _lower_fence(accuracy: np.ma.MaskedArray) -> float | None:
    """Returns the least accuracy that is no outlier: Tukey's fence, 1.5 interquartile ranges under the quartile."""
    values = accuracy.compressed()
    if not values.size:
        return None
    low, high = np.percentile(values, [25, 75])
    return float(values[values >= low - 1.5 * (high - low)].min())


def _extend(accuracy: np.ma.MaskedArray) -> str:
    low = _lower_fence(accuracy)
    return "min" if low is not None and accuracy.min() < low else "neither"


def _mean_words(result: xr.Dataset, half_width: np.ndarray) -> str:
    mean = f"mean over {_seeds(result)}" if len(results.axes(result)["seed"]) > 1 else _seeds(result)
    if np.isnan(half_width).all():
        return mean
    return f"{mean}, 95 % interval ±{np.nanmedian(half_width):.1f} points (median cell)"


def _seeds(result: xr.Dataset) -> str:
    count = len(results.axes(result)["seed"])
    return f"{count} seed" + "s" * (count > 1)


def _caption(figure: Figure, axes: Axes, result: xr.Dataset, split: str, *notes: str) -> None:
    attrs = result.attrs
    fixed = {name: axis[0] for name, axis in results.axes(result).items() if len(axis) == 1}
    notes = (*(f"{name} {value:g}" for name, value in fixed.items() if name not in ("seed", *LABELS)), *notes)
    axes.set_title(f"{attrs['dataset']}, {split} split, {attrs['budget']}", loc="left")
    parts = [attrs["model"].split("(")[0], attrs["optimizer"], *(note for note in notes if note)]
    figure.supxlabel("; ".join(parts), fontsize=8, color="0.35")

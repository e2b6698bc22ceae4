"""Figures of training, and of a network's predictions. Each function returns a `Figure`; none trains."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxmnist.checks import STRING, Array, Strings, Where, checked_by, is_sequence, raise_invalid
from jaxmnist.data.dataset import check_labels
from jaxmnist.plots.metrics import is_wide
from jaxmnist.plots.style import COLORMAP, Figure, house_style, log_ticks

NUM_PLACES = 25


ROW_NAMES = ("seed", "step", "validation_loss")


def _are_rows(value: object) -> bool:
    # A loss of nan or infinity is what a diverged run has.
    return is_sequence(value) and all(
        isinstance(row, Mapping) and _are_numbers(map(row.get, (*ROW_NAMES, *_measured(value)))) for row in value
    )


def _measured(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Returns the metrics of the rows on validation, the loss first; without rows, those of a classification."""
    if not len(rows) or not isinstance(rows[0], Mapping):
        return ["validation_loss", "validation_accuracy"]
    names = [name for name in rows[0] if str(name).startswith("validation_")]
    return sorted(names, key=lambda name: name != "validation_loss")


def _are_numbers(values: Iterable) -> bool:
    return all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values)


@checked_by(rows=Where(f"a sequence of mappings with numbers for {', '.join(ROW_NAMES)}", _are_rows), title=STRING)
def training_curves(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Returns loss and error on validation against training steps, on logarithmic axes, one line per seed.

    Other metrics are drawn in place of the error, on linear axes unless they span orders of magnitude.

    Args:
      rows: with `seed`, `step`, `validation_loss`, and `validation_accuracy` or other metrics, as `train_run` reports
        them; rows of step 0 are left out.
      title: of the figure.

    Raises:
      ValueError: an argument is not as described above.
    """
    names = _measured(rows)
    labels = {"validation_accuracy": "validation error (%)"}
    if "validation_accuracy" in names:
        labels["validation_loss"] = "validation loss (nats)"
    with house_style():
        figure = Figure(figsize=(3.6 * max(len(names), 2), 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            every = np.array([row[name] for row in rows if row["step"] > 0], float)
            is_log = name in ("validation_loss", "validation_accuracy") or is_wide(name, every)
            for seed in sorted({row["seed"] for row in rows}):
                shown = [row for row in rows if row["seed"] == seed and row["step"] > 0]
                values = np.array([row[name] for row in shown])
                values = 100 * (1 - values) if name == "validation_accuracy" else values
                axes.plot([row["step"] for row in shown], values, "o-", markersize=3, linewidth=1, alpha=0.8)
            axes.set(xlabel="training steps", ylabel=labels.get(name, name.replace("_", " ")))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if is_log:
                axes.set_yscale("log")
                log_ticks(axes, "y", *axes.get_ylim())
            axes.grid(alpha=0.3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


LABELS = Where("an integer array of labels", lambda value: np.asarray(value, object).size > 0)


def _check_confusion(given: SimpleNamespace) -> None:
    num_classes, labels = len(given.class_names), np.asarray(given.labels)
    check_labels("labels", labels, labels.size, num_classes)
    check_labels("predicted", np.asarray(given.predicted), len(labels), num_classes)


@checked_by(_check_confusion, labels=LABELS, predicted=LABELS, class_names=Strings(), title=STRING)
def confusion(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Returns the confusion matrix: how many images of each class were put in each class; the diagonal is not coloured.

    Args:
      labels: `[N]` int.
      predicted: `[N]` int.
      class_names: `[K]`.
      title: of the figure.

    Raises:
      ValueError: an argument is not as described above.
    """
    num_classes, labels, predicted = len(class_names), np.asarray(labels), np.asarray(predicted)
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (labels, predicted), 1)
    wrong = np.ma.masked_array(counts, mask=np.eye(num_classes, dtype=bool))
    most = max(int(wrong.max()), 1)
    with house_style():
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


SHARES = Array("a float array [N, K] of numbers in [0, 1]", "f", (None, None))


def _check_probabilities(given: SimpleNamespace) -> None:
    shape = len(given.images), len(given.class_names)

    def are_shares(values):  # nan is what a diverged network gives
        return bool((np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-5))).all())

    words = f"a float array [{shape[0]}, {shape[1]}] of numbers in [0, 1]"
    Array(words, "f", shape, is_allowed=are_shares).check("probabilities", given.probabilities)


def _check_mistakes(given: SimpleNamespace) -> None:
    if len(given.images) > NUM_PLACES or given.images.shape[-1] not in (1, 3, 4):
        raise_invalid("images", given.images, f"at most {NUM_PLACES} images of 1, 3 or 4 channels")
    check_labels("labels", given.labels, len(given.images), len(given.class_names))
    _check_probabilities(given)


def _check_names(given: SimpleNamespace) -> None:
    Strings(len(given.images)).check("names", given.names)
    _check_probabilities(given)


@checked_by(
    _check_mistakes, images=Array("a uint8 array [N, H, W, C], N from 1 on,", "u", (None,) * 4), labels=LABELS,
    probabilities=SHARES, class_names=Strings(), title=STRING,
)  # fmt: skip
def mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Returns images with the probability of their true class, and of the likeliest one if that differs.

    Args:
      images: `[N, H, W, C]` uint8, at most 25.
      labels: `[N]` int.
      probabilities: `[N, K]`.
      class_names: `[K]`.
      title: of the figure.

    Raises:
      ValueError: an argument is not as described above.
    """
    with house_style():
        figure = Figure(figsize=(7.2, 8.2), layout="constrained")
        for axes in figure.subplots(5, NUM_PLACES // 5).flat:
            axes.set_axis_off()
        for axes, image, label, row in zip(figure.axes, images, labels, probabilities, strict=False):
            axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=255)
            axes.set_anchor("N")
            # A frame, since the images' own empty border would pass for a gap under the title.
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="0.85")
            likeliest = row.argmax()
            words = f"true {class_names[label]}: {_per_cent(row[label])}"
            if likeliest != label:
                words = f"taken for {class_names[likeliest]}: {_per_cent(row[likeliest])}\n{words}"
            axes.set_title(words, fontsize=8, pad=3)
        figure.suptitle(f"{title}: the least probable labels", x=0.01, ha="left", fontsize=11)
    return figure


@checked_by(
    _check_names, images=Array("a uint8 array [N, H, W], N from 1 on,", "u", (None,) * 3), probabilities=SHARES,
    class_names=Strings(), names=Strings(),
)  # fmt: skip
def predictions(
    images: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], names: Sequence[str]
) -> Figure:
    """Returns each image as the network sees it, beside its class probabilities.

    Args:
      images: `[N, H, W]` uint8.
      probabilities: `[N, K]`.
      class_names: `[K]`.
      names: `[N]`, a title for each.

    Raises:
      ValueError: an argument is not as described above.
    """
    with house_style():
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


KERNEL = Array(
    "a float array [height, width, C, F] of finite numbers", "f", (None,) * 4,
    is_allowed=lambda values: bool(np.isfinite(values).all()),
)  # fmt: skip


@checked_by(kernel=KERNEL, title=STRING)
def filters(kernel: np.ndarray, title: str) -> Figure:
    """Returns the kernels of a convolution, one picture each, the first input channel.

    Args:
      kernel: `[height, width, C, F]`.
      title: of the figure.

    Raises:
      ValueError: an argument is not as described above.
    """
    num_filters = kernel.shape[-1]
    columns = min(8, num_filters)
    rows = -(-num_filters // columns)
    limit = float(np.abs(kernel[:, :, 0]).max()) or 1.0
    with house_style():
        figure = Figure(figsize=(7.2, 0.9 * rows + 0.9), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if index < num_filters:
                picture = axes.imshow(kernel[:, :, 0, index], cmap="RdBu_r", vmin=-limit, vmax=limit)
        figure.colorbar(picture, ax=grid, label="weight", shrink=0.8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _per_cent(share: float) -> str:
    """Returns a probability in per cent, never rounded to none or all."""
    return "< 0.1 %" if share < 0.001 else "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"

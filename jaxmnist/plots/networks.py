"""Figures of training, and of what a network makes of images. Each function returns a `Figure`; none trains."""

import numbers
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from jaxmnist import checks
from jaxmnist.data.dataset import check_labels
from jaxmnist.plots.style import COLORMAP, Figure, house_style

NUM_PLACES = 25


def training_curves(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Returns loss and error on validation against training steps, on logarithmic axes, one line per seed.

    Args:
      rows: with `seed`, `step`, `validation_loss`, `validation_accuracy`; what training did at step 0 is left out.
      title: of the figure.

    Raises:
      ValueError: an argument is none of these.
    """
    checks.text("title", title)
    names = ("seed", "step", "validation_loss", "validation_accuracy")
    # A loss of nan or infinity is what a diverged run has.
    if not checks.is_sequence(rows) or not all(
        isinstance(row, Mapping) and _are_numbers(map(row.get, names)) for row in rows
    ):
        checks.raise_invalid("rows", rows, f"a sequence of mappings with numbers for {', '.join(names)}")
    panels = (("validation_loss", "validation loss (nats)"), ("validation_accuracy", "validation error (%)"))
    with house_style():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for seed in sorted({row["seed"] for row in rows}):
                shown = [row for row in rows if row["seed"] == seed and row["step"] > 0]
                values = np.array([row[name] for row in shown])
                values = 100 * (1 - values) if name == "validation_accuracy" else values
                axes.plot([row["step"] for row in shown], values, "o-", markersize=3, linewidth=1, alpha=0.8)
            axes.set(xlabel="training steps", ylabel=label, yscale="log")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(_log_locator(*axes.get_ylim()))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def confusion(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Returns the confusion matrix: how many images of each class were taken for which; the diagonal is not coloured.

    Args:
      labels: `[N]` int.
      predicted: `[N]` int.
      class_names: `[K]`.
      title: of the figure.

    Raises:
      ValueError: an argument is none of these.
    """
    checks.texts("class_names", class_names)
    checks.text("title", title)
    num_classes = len(class_names)
    labels = np.asarray(labels)
    check_labels("labels", labels, labels.size, num_classes)
    predicted = np.asarray(predicted)
    check_labels("predicted", predicted, len(labels), num_classes)
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

    Raises:
      ValueError: an argument is none of these.
    """
    checks.texts("class_names", class_names)
    checks.text("title", title)
    checks.array("images", images, "a uint8 array [N, H, W, C], N from 1 on,", "u", None, None, None, None)
    if len(images) > NUM_PLACES or images.shape[-1] not in (1, 3, 4):
        checks.raise_invalid("images", images, f"at most {NUM_PLACES} images of 1, 3 or 4 channels")
    check_labels("labels", labels, len(images), len(class_names))
    _check_probabilities(probabilities, len(images), len(class_names))
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
      ValueError: an argument is none of these.
    """
    checks.array("images", images, "a uint8 array [N, H, W], N from 1 on,", "u", None, None, None)
    checks.texts("class_names", class_names)
    checks.texts("names", names, len(images))
    _check_probabilities(probabilities, len(images), len(class_names))
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


def filters(kernel: np.ndarray, title: str) -> Figure:
    """Returns the kernels of a convolution, one picture each, the first input channel.

    Args:
      kernel: `[height, width, C, F]`.
      title: of the figure.

    Raises:
      ValueError: an argument is none of these.
    """
    checks.array(
        "kernel",
        kernel,
        "a float array [height, width, C, F] of finite numbers",
        "f",
        *[None] * 4,
        is_allowed=lambda values: bool(np.isfinite(values).all()),
    )
    checks.text("title", title)
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


def _are_numbers(values: Iterable) -> bool:
    return all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values)


def _check_probabilities(probabilities: np.ndarray, num_images: int, num_classes: int) -> None:
    """Raises ValueError where these are no probabilities; nan is what a diverged network gives."""
    allowed = f"a float array [{num_images}, {num_classes}] of numbers in [0, 1]"

    def is_share(values):
        return bool((np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-5))).all())

    checks.array("probabilities", probabilities, allowed, "f", num_images, num_classes, is_allowed=is_share)


def _log_locator(low: float, high: float) -> MaxNLocator | LogLocator:
    """Returns what puts a handful of round numbers on a logarithmic axis between these limits."""
    if high < 5 * low:
        return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    return LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))


def _per_cent(share: float) -> str:
    """Returns a probability in per cent, never rounded to none or all."""
    return "< 0.1 %" if share < 0.001 else "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"

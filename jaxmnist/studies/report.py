"""What is saved of a finished training of one or more seeds, and how it is reported, in words and figures.

Shapes: M seeds, N test images, K classes, a first convolution's kernel `[height, width, C, F]`.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmnist.analysis import intervals
from jaxmnist.checks import Array
from jaxmnist.core.layers import standardise
from jaxmnist.core.state import NEVER
from jaxmnist.data.dataset import Dataset, check_labels
from jaxmnist.host.files import read_arrays, write_atomically, write_text
from jaxmnist.networks.classifier import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_NAME = "predictions.npz"
METRICS = ("seed", "step", "seconds", "training_accuracy", "training_loss", "validation_accuracy", "validation_loss")
NUM_MISTAKES = 25
LEAST_PROBABILITY = 1e-30
MILESTONES = (0.99, 0.992)


class Predictions(NamedTuple):
    """The test probabilities from which figures and table are made, and where they come from.

    Attributes:
      recipe: how it was trained, in words.
      dataset: name of the data set.
      class_names: `[K]`.
      num_steps: training steps of each seed.
      batch_size: examples per step.
      seeds: `[M]` int.
      diverged_steps: `[M]` int, as in `State`.
      probabilities: `[M, N, K]` float32, for all test images.
      labels: `[N]` int32.
      worst: indices of at most 25 test images, those to whose labels the ensemble gives the lowest probabilities.
      worst_images: `[25, H, W, C]` uint8.
      filters: `[height, width, C, F]`, the kernel that the first convolution of the first usable seed applies.
    """

    recipe: str
    dataset: str
    class_names: Sequence[str]
    num_steps: int
    batch_size: int
    seeds: np.ndarray
    diverged_steps: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    worst: np.ndarray
    worst_images: np.ndarray
    filters: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """`[M]` bool: whether all of a seed's predictions are finite; only these are in the ensemble."""
        return np.isfinite(self.probabilities).all(axis=(1, 2))

    @property
    def ensemble(self) -> np.ndarray:
        """`[N, K]`: the mean of the usable seeds' probabilities; nan if there are none."""
        if not self.usable.any():
            return np.full(self.probabilities.shape[1:], np.nan)
        return self.probabilities[self.usable].mean(axis=0)


def predict(
    classifier: Classifier,
    dataset: Dataset,
    *,
    recipe: str,
    num_steps: int,
    batch_size: int,
    seeds: Sequence[int],
    diverged_steps: Sequence[int],
) -> Predictions:
    """Returns the predictions of trained seeds for all test images; the arguments are as in `Predictions`.

    Raises:
      ValueError: the data set has no classes, so that there is no accuracy.
    """
    if not dataset.class_names:
        raise ValueError(f"dataset {dataset.name} has no classes; predictions are reported of a classification")
    labels = np.asarray(dataset.test.targets)
    found = Predictions(
        recipe, dataset.name, dataset.class_names, num_steps, batch_size, np.asarray(seeds), np.asarray(diverged_steps),
        classifier.each(dataset.test.inputs), labels, np.empty(0, int), np.empty(0), np.empty(0),
    )  # fmt: skip
    worst = np.argsort(found.ensemble[np.arange(len(labels)), labels])[: NUM_MISTAKES * found.usable.any()]
    filters = _applied_kernel(classifier.params[int(found.usable.argmax())]["Conv_0"])
    return found._replace(worst=worst, worst_images=dataset.test.inputs[worst], filters=filters)


def _applied_kernel(layer) -> np.ndarray:
    """Returns the kernel that a convolution with these parameters applies."""
    if "gain" not in layer:
        return np.asarray(layer["kernel"])
    return np.asarray(standardise(layer["kernel"]) * layer["gain"][None, None, None, :])


def save_predictions(folder: Path, predictions: Predictions) -> None:
    """Writes `predictions.npz` into a folder, atomically."""
    arrays: Any = {name: np.asarray(value) for name, value in predictions._asdict().items()}
    write_atomically(folder / FILE_NAME, lambda path: np.savez_compressed(path, **arrays))


def load_predictions(folder: Path) -> Predictions:
    """Returns what `save_predictions` wrote.

    Raises:
      ValueError: the folder holds no predictions, or they cannot be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished training: it has no {FILE_NAME}")
    try:
        arrays: dict[str, Any] = read_arrays(path.read_bytes(), path.name)
        found = Predictions(**{name: arrays[name] for name in Predictions._fields})
        _check(found)
        return found._replace(
            recipe=str(found.recipe),
            dataset=str(found.dataset),
            class_names=[str(name) for name in found.class_names],
            num_steps=int(found.num_steps),
            batch_size=int(found.batch_size),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is damaged or of an earlier version: remove it, and --resume makes it again from the checkpoints"
        ) from None


def _check(found: Predictions) -> None:
    """Raises ValueError if arrays are not as in `Predictions`; a stranger may have written any."""
    num_seeds, num_images, num_classes = found.probabilities.shape
    Array("floats", "f", (None,) * 3).check("probabilities", found.probabilities)
    check_labels("labels", found.labels, num_images, num_classes)
    for name, kinds, extent in (("seeds", "iu", num_seeds), ("diverged_steps", "iu", num_seeds)):
        Array(f"an array [{extent}]", kinds, (extent,)).check(name, getattr(found, name))
    Array(f"an array [{num_classes}]", "U", (num_classes,)).check("class_names", found.class_names)
    for name in ("recipe", "dataset"):
        Array("a string", "U", ()).check(name, getattr(found, name))
    for name in ("num_steps", "batch_size"):
        Array("a whole number", "iu", ()).check(name, getattr(found, name))
    if found.usable.any():
        count = len(found.worst)
        check_labels("worst", found.worst, count, num_images)
        Array("images", "u", (count, None, None, None)).check("worst_images", found.worst_images)
        Array("a kernel", "f", (None,) * 4).check("filters", found.filters)


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of `METRICS` to `metrics.csv` in a folder, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, METRICS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metrics.csv", text.getvalue())


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Returns what `write_metrics` wrote.

    Raises:
      ValueError: it is not there, or cannot be read.
    """
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != METRICS:
                raise ValueError("other columns")
            return [{name: float(row[name]) for name in METRICS} for row in reader]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise ValueError(f"{folder / 'metrics.csv'}, which the curves are drawn from, cannot be read") from None


def figures(predictions: Predictions, metrics: Sequence[Mapping[str, float]]) -> dict[str, "Figure"]:
    """Returns figures by name; if no seed is usable, the curves only."""
    from jaxmnist.plots import networks

    found, together = predictions, predictions.ensemble
    num_seeds, num_usable = len(found.seeds), int(found.usable.sum())
    title = f"{found.dataset}, {num_seeds} seed{'s' * (num_seeds > 1)}, batch size {found.batch_size}"
    curves = networks.training_curves(metrics, title)
    if not num_usable:
        return {"curves": curves}
    title = f"{found.dataset}, test split, {len(together)} images"
    title += f", mean of {num_usable} members" if num_usable > 1 else ""
    names, worst = found.class_names, found.worst
    kernels = (
        f"{found.dataset}, seed {found.seeds[found.usable.argmax()]}: kernels as the first convolution applies them"
    )
    return {
        "curves": curves,
        "confusion": networks.confusion(found.labels, together.argmax(axis=1), names, title),
        "mistakes": networks.mistakes(found.worst_images, found.labels[worst], together[worst], names, title),
        "filters": networks.filters(found.filters, kernels),
    }


def recipe(preset: str, changed: Mapping[str, Any]) -> str:
    """Returns a recipe in words: the name of a preset, and the options that differ from it with their values."""
    words = [
        f"{name} {' '.join(f'{number:g}' for number in value) if isinstance(value, tuple) else value}"
        for name, value in changed.items()
    ]
    return f"preset {preset}" + (f" with {', '.join(words)}" if words else "")


def progress_lines(rows: Sequence[Mapping[str, float]], num_reported: int) -> Iterator[str]:
    """Yields lines about the evaluations of one run that have not been reported, and the milestones they reach.

    Args:
      rows: all evaluations so far, as `train_run` reports them.
      num_reported: how many of them have been reported before.
    """
    for number in range(num_reported, len(rows)):
        row = rows[number]
        yield (
            f"step {row['step']}, training accuracy {row['training_accuracy']:.4f} (next batch), "
            f"validation accuracy {row['validation_accuracy']:.4f}, loss {row['validation_loss']:.5f}"
        )
        before = max([0.0, *(earlier["validation_accuracy"] for earlier in rows[:number])])
        for milestone in MILESTONES:
            if before < milestone <= row["validation_accuracy"]:
                yield (
                    f"validation accuracy {100 * milestone:.1f} % first reached at step {row['step']}, "
                    f"{row['seconds']:.0f} s"
                )


def milestone_lines(metrics: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """Yields a line for each milestone that a seed reaches: median, least and largest time to it over these seeds.

    Args:
      metrics: as `read_metrics` returns them.
    """
    num_seeds = len({row["seed"] for row in metrics})
    for milestone in MILESTONES:
        first: dict[float, float] = {}
        for row in metrics:
            if row["validation_accuracy"] >= milestone:
                first.setdefault(row["seed"], row["seconds"])
        if first:
            times = sorted(first.values())
            yield (
                f"validation accuracy {100 * milestone:.1f} % first reached by {len(times)} of {num_seeds} seeds, "
                f"after {np.median(times):.0f} s (median; {times[0]:.0f} to {times[-1]:.0f} s)"
            )


def divergence(seed: int, diverged_step: int) -> str:
    """Returns the sentence about a seed that diverged."""
    return f"seed {seed} diverged at step {diverged_step}"


def table(predictions: Predictions) -> list[str]:
    """Returns the lines of a report: recipe, divergence, accuracy by class and on all test images."""
    labels, usable, ensemble = predictions.labels, predictions.usable, predictions.ensemble
    right = np.where(np.isfinite(ensemble).all(axis=1), ensemble.argmax(axis=1) == labels, np.nan)
    seeds = _numbers(predictions.seeds)
    lines = [
        f"{predictions.dataset}, {predictions.recipe}, {seeds}, {predictions.num_steps} steps of "
        f"{predictions.batch_size} examples"
    ]
    for seed, step, is_usable in zip(predictions.seeds, predictions.diverged_steps, usable, strict=True):
        if step != NEVER or not is_usable:
            sentence = divergence(seed, step) if step != NEVER else f"seed {seed} did not diverge in training"
            lines.append(sentence + ("" if is_usable else "; its predictions are not finite, and it is left out"))
    lines.append("class            images  test accuracy")
    for index, name in enumerate(predictions.class_names):
        in_class = right[labels == index]
        lines.append(f"{name:16s} {len(in_class):6d}" + (f"  {in_class.mean():.4f}" if len(in_class) else ""))
    if len(usable) > 1 and usable.any():
        accuracies = (predictions.probabilities[usable].argmax(axis=2) == labels).mean(axis=1)
        mean, low, high, kind = intervals.interval(accuracies, len(labels))
        lines.append(f"members: {' '.join(f'{accuracy:.4f}' for accuracy in accuracies)}")
        lines.append(f"members' mean test accuracy {mean:.5f} [{low:.5f}, {high:.5f}] ({kind})")
        seeds = _numbers(predictions.seeds[usable])
        lines.append(f"below: the ensemble of {usable.sum()}, the mean of the probabilities of {seeds}")
    log_loss = -np.log(np.maximum(ensemble[np.arange(len(labels)), labels], LEAST_PROBABILITY)).mean()
    lines.append(f"test log loss {log_loss:.5f} nats")
    mean, low, high, _ = intervals.interval([right.mean()], len(labels))
    lines.append(f"test accuracy {mean:.4f} [{low:.4f}, {high:.4f}] on {len(labels)} images")
    return lines


def _numbers(seeds: np.ndarray) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"

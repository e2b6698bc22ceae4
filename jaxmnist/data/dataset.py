"""Data sets as arrays: splits of images and labels.

Shapes: N images of a split, H x W x C an image, K classes.
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmnist import checks

SPLIT_NAMES = ("train", "validation", "test")


# A validation split is this share of train: 5,000 of MNIST's 60,000, as in the original.
VALIDATION_SHARE = 1 / 12


MAX_EXAMPLES = 2**31 - 1


class DataError(ValueError):
    """A data set that cannot be used; the message is one sentence for the person who asked for it."""


class DatasetUnavailable(DataError):  # noqa: N818 (it is a state of the world, not a mistake)
    """Nothing is prepared and nothing can be downloaded."""


def _describe(value: Any) -> str:
    """Returns dtype and shape of an array, traced or not, and anything else in a few words."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return checks.shown(value) if shape is None or dtype is None else f"{dtype}{list(shape)}"


class Split(NamedTuple):
    """Images and labels of one split.

    Attributes:
      images: `[N, H, W, C]` uint8.
      labels: `[N]` int32 in `[0, K)`.
    """

    images: Any
    labels: Any

    def __repr__(self) -> str:
        return f"Split(images={_describe(self.images)}, labels={_describe(self.labels)})"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set held in memory.

    Attributes:
      name: the name it is loaded by.
      class_names: K names.
      train: the split to train on.
      validation: the split for every choice.
      test: the split that chooses nothing.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def __repr__(self) -> str:
        try:
            counts = ", ".join(f"{name}={len(getattr(self, name).labels)}" for name in SPLIT_NAMES)
            shape, num_classes = tuple(self.train.images.shape[1:]), len(self.class_names)
        except (AttributeError, TypeError):  # its fields are not what they should be
            return object.__repr__(self)
        return f"Dataset({self.name!r}, {counts}, image_shape={shape}, num_classes={num_classes})"


def check_split(name: str, split: Split, num_classes: int | None = None, image_shape=(None, None, None)) -> None:
    """Raises ValueError where a split is none.

    Args:
      name: what to call it.
      split: images and labels, which may be traced; then their values are not looked at.
      num_classes: K, where it is known.
      image_shape: H, W and C, where they are known.
    """
    if not isinstance(split, Split):
        checks.refuse(name, split, "a Split of images and labels")
    images = f"uint8 [N, {', '.join(str(extent or letter) for extent, letter in zip(image_shape, 'HWC', strict=True))}]"
    checks.array(f"{name}.images", split.images, f"an array {images}, N from 1 on,", "u", None, *image_shape)
    if split.images.dtype != np.uint8:
        checks.refuse(f"{name}.images", split.images, f"an array {images}")
    check_labels(f"{name}.labels", split.labels, split.images.shape[0], num_classes)


def check_labels(name: str, labels: Any, num_examples: int, num_classes: int | None = None) -> None:
    """Raises ValueError where labels are not `[num_examples]` whole numbers from 0 to below `num_classes`."""
    top = "K" if num_classes is None else str(num_classes)

    def is_in_range(values):
        return values.min() >= 0 and (num_classes is None or values.max() < num_classes)

    allowed = f"an integer array [{num_examples}] of labels in [0, {top})"
    checks.array(name, labels, allowed, "iu", num_examples, is_allowed=is_in_range)


def check_dataset(dataset: Dataset) -> None:
    """Raises ValueError where a data set is none that can be trained and evaluated on."""
    if not isinstance(dataset, Dataset):
        checks.refuse("dataset", dataset, "a Dataset, as load returns it,")
    checks.text("dataset.name", dataset.name)
    checks.texts("dataset.class_names", dataset.class_names)
    image_shape: tuple = (None, None, None)
    for split in SPLIT_NAMES:
        check_split(f"dataset.{split}", getattr(dataset, split), len(dataset.class_names), image_shape)
        image_shape = dataset.train.images.shape[1:]


def prepared_folder(name: str, root: Path) -> Path | None:
    """Returns the folder of the newest version that TFDS has prepared below `root`, or None."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        versions = [
            (tuple(map(int, entry.name.split("."))), entry)
            for entry in (root / name).iterdir()
            if re.fullmatch(r"\d+\.\d+\.\d+", entry.name) and (entry / "dataset_info.json").exists()
        ]
        if versions:
            return max(versions)[1]
    return None


def split_train(images: np.ndarray, labels: np.ndarray) -> tuple[Split, Split]:
    """Returns train and validation: the last twelfth of the examples, rounded, is held out."""
    num_train = len(labels) - round(len(labels) * VALIDATION_SHARE)
    return Split(images[:num_train], labels[:num_train]), Split(images[num_train:], labels[num_train:])

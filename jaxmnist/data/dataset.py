"""Data sets as arrays: splits of images and labels.

Shapes: N images of a split, H x W x C an image, K classes.
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmnist.checks import STRING, Array, Kind, Strings, raise_invalid, shown

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
    return shown(value) if shape is None or dtype is None else f"{dtype}{list(shape)}"


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


class Batch(NamedTuple):
    """Images and labels of one training step, and what each of them counts.

    Attributes:
      images: `[B, H, W, C]` uint8.
      labels: `[B]` int32 in `[0, K)`.
      weights: `[B]` float32; 0 marks padding.
    """

    images: Any
    labels: Any
    weights: Any


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


@dataclasses.dataclass(frozen=True)
class IsSplit(Kind):
    """A split whose images and labels belong together; of traced arrays, shapes and dtypes alone are known.

    Attributes:
      num_classes: K; None for any.
      image_shape: H, W and C; None for any extent.
    """

    num_classes: int | None = None
    image_shape: tuple[int | None, ...] = (None, None, None)
    words = "a Split of images and labels"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Split):
            raise_invalid(name, value, self.words)
        extents = (str(extent or letter) for extent, letter in zip(self.image_shape, "HWC", strict=True))
        words = f"an array uint8 [N, {', '.join(extents)}], N from 1 on,"
        Array(words, "u", (None, *self.image_shape), dtype="uint8").check(f"{name}.images", value.images)
        check_labels(f"{name}.labels", value.labels, value.images.shape[0], self.num_classes)


def check_labels(name: str, labels: Any, num_examples: int, num_classes: int | None = None) -> None:
    """Raises ValueError unless labels are `[num_examples]` whole numbers from 0 to below `num_classes`."""
    top = "K" if num_classes is None else str(num_classes)

    def is_in_range(values):
        return values.min() >= 0 and (num_classes is None or values.max() < num_classes)

    words = f"an integer array [{num_examples}] of labels in [0, {top})"
    Array(words, "iu", (num_examples,), is_allowed=is_in_range).check(name, labels)


class IsDataset(Kind):
    """A data set that can be trained and evaluated on."""

    words = "a Dataset, as load returns it,"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Dataset):
            raise_invalid(name, value, self.words)
        STRING.check(f"{name}.name", value.name)
        Strings().check(f"{name}.class_names", value.class_names)
        image_shape: tuple = (None, None, None)
        for split in SPLIT_NAMES:
            IsSplit(len(value.class_names), image_shape).check(f"{name}.{split}", getattr(value, split))
            image_shape = value.train.images.shape[1:]


SPLIT, DATASET = IsSplit(), IsDataset()


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

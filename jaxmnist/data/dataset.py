"""Data sets as arrays: splits of inputs and targets.

Shapes: N examples of a split, H x W x C an image, K classes.
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmnist.checks import STRING, Array, Kind, Strings, raise_invalid, shown
from jaxmnist.host.display import listed, with_table
from jaxmnist.values import is_floating, is_traced

SPLIT_NAMES = ("train", "validation", "test")


# A validation split is this share of train: 5,000 of MNIST's 60,000, as in the original.
VALIDATION_SHARE = 1 / 12


MAX_EXAMPLES = 2**31 - 1


class DataError(ValueError):
    """A data set that cannot be used; the message is one sentence for the person who asked for it."""


class DatasetUnavailable(DataError):  # noqa: N818 (it is a state of the world, not a mistake)
    """Nothing is prepared and nothing can be, here and now."""


def _describe(value: Any) -> str:
    """Returns dtype and shape of an array, traced or not, and anything else in a few words."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return shown(value) if shape is None or dtype is None else f"{dtype}{list(shape)}"


@with_table(lambda split: {name: _describe(field) for name, field in split._asdict().items()})
class Split(NamedTuple):
    """Inputs and targets of one split.

    Attributes:
      inputs: `[N, ...]` numbers; uint8 is scaled to [0, 1] for the model, all others are given to it as they are.
        Of images `[N, H, W, C]` uint8.
      targets: `[N, ...]` numbers; of a classification labels, `[N]` int32 in `[0, K)`.
    """

    inputs: Any
    targets: Any

    def __repr__(self) -> str:
        return f"Split(inputs={_describe(self.inputs)}, targets={_describe(self.targets)})"


class Batch(NamedTuple):
    """Inputs and targets of one training step, and what each of them counts.

    Attributes:
      inputs: `[B, ...]` numbers, as in `Split`.
      targets: `[B, ...]` numbers.
      weights: `[B]` float32; 0 marks padding.
    """

    inputs: Any
    targets: Any
    weights: Any


def _dataset_rows(dataset: Any) -> dict[str, str]:
    splits = {name: getattr(dataset, name) for name in SPLIT_NAMES}
    counts = {name: f"{len(split.targets):,} examples" for name, split in splits.items()}
    inputs, targets = (f"{_describe(field)} in train" for field in dataset.train)
    classes = {"classes": listed(dataset.class_names, "names")} if dataset.class_names else {}
    return {"name": dataset.name, **counts, "inputs": inputs, "targets": targets, **classes}


@with_table(_dataset_rows)
@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set held in memory.

    Attributes:
      name: the name it is loaded by.
      class_names: K names; none if the targets are not labels.
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
            counts = ", ".join(f"{name}={len(getattr(self, name).targets)}" for name in SPLIT_NAMES)
            shape, num_classes = tuple(self.train.inputs.shape[1:]), len(self.class_names)
        except (AttributeError, TypeError):  # its fields are not what they should be
            return object.__repr__(self)
        classes = f", num_classes={num_classes}" if num_classes else f", targets={_describe(self.train.targets)}"
        return f"Dataset({self.name!r}, {counts}, input_shape={shape}{classes})"


class IsSplit(Kind):
    """A split whose inputs and targets belong together; of traced arrays, shapes and dtypes alone are known."""

    words = "a Split of inputs and targets"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Split):
            raise_invalid(name, value, self.words)
        check_arrays(name, value)


def check_arrays(name: str, examples: Any) -> None:
    """Raises ValueError unless inputs `[N, ...]` and targets `[N, ...]` are arrays of finite numbers, N from 1 on."""
    inputs, targets = examples.inputs, examples.targets
    INPUTS.check(f"{name}.inputs", inputs)
    num_examples = inputs.shape[0]
    Numeric(f"an array [{num_examples}, ...] of finite numbers", num_examples).check(f"{name}.targets", targets)


@dataclasses.dataclass(frozen=True)
class Numeric(Kind):
    """An array of numbers, all of them finite, of any shape but `[]`.

    Attributes:
      words: say what is allowed.
      length: the first extent; None for any from 1 on.
    """

    words: str
    length: int | None = None

    def accepts(self, value: Any) -> bool:
        shape = getattr(value, "shape", None)
        is_number = getattr(getattr(value, "dtype", None), "kind", "O") in "bui" or is_floating(value)
        if not (isinstance(shape, tuple) and shape and 0 not in shape and is_number):
            return False
        return self.length in (None, shape[0])

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        if is_floating(value) and not is_traced(value):
            wrong = ~np.isfinite(np.asarray(value))
            if wrong.any():
                place = ", ".join(map(str, np.argwhere(wrong)[0]))
                raise ValueError(f"{name} is {np.asarray(value)[wrong][0]} at [{place}]; {self.words} is needed")


def check_labels(name: str, labels: Any, num_examples: int, num_classes: int | None = None) -> None:
    """Raises ValueError unless labels are `[num_examples]` whole numbers from 0 to below `num_classes`."""
    top = "K" if num_classes is None else str(num_classes)

    def is_in_range(values):
        return values.min() >= 0 and (num_classes is None or values.max() < num_classes)

    words = f"an integer array [{num_examples}] of labels in [0, {top})"
    Array(words, "iu", (num_examples,), is_allowed=is_in_range).check(name, labels)


class IsDataset(Kind):
    """A data set that can be trained and evaluated on."""

    words = "a Dataset, as load and from_arrays return it,"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Dataset):
            raise_invalid(name, value, self.words)
        STRING.check(f"{name}.name", value.name)
        if not (isinstance(value.class_names, tuple) and len(value.class_names) == 0):
            Strings().check(f"{name}.class_names", value.class_names)
        for split_name in SPLIT_NAMES:
            split, path = getattr(value, split_name), f"{name}.{split_name}"
            SPLIT.check(path, split)
            if value.class_names:
                check_labels(f"{path}.targets", split.targets, len(split.inputs), len(value.class_names))
            for field, array in split._asdict().items():
                like = getattr(value.train, field)
                if array.shape[1:] != like.shape[1:] or array.dtype != like.dtype:
                    needed = f"{like.dtype}[N, {', '.join(map(str, like.shape[1:]))}], as in train,"
                    raise_invalid(f"{path}.{field}", array, needed.replace(", ]", "]"))


SPLIT, DATASET = IsSplit(), IsDataset()
INPUTS = Numeric("an array [N, ...] of finite numbers, N from 1 on,")


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


def split_train(inputs: np.ndarray, targets: np.ndarray) -> tuple[Split, Split]:
    """Returns train and validation: the last twelfth of the examples, rounded, is held out."""
    num_train = len(targets) - round(len(targets) * VALIDATION_SHARE)
    return Split(inputs[:num_train], targets[:num_train]), Split(inputs[num_train:], targets[num_train:])

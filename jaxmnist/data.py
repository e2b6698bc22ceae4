"""Data sets as arrays: `load` for the splits, `example_order` and `batches` for the order of examples.

Shapes: N images of a split, H x W x C an image, K classes, B examples of a batch.

This module imports neither TensorFlow nor tensorflow-datasets: after the first load, which prepares and
decodes the data by way of `jaxmnist.preparation`, a data set comes from a decoded cache in a fraction of a second.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmnist import arguments
from jaxmnist.files import write_atomically

DEFAULT_DATASET = "mnist"
CACHE_NAME = "jaxmnist_decoded.npz"
ALIGNMENT = 64
SPLIT_NAMES = ("train", "validation", "test")
# A validation split is this share of train: 5,000 of MNIST's 60,000, as in the original.
VALIDATION_SHARE = 1 / 12
MAX_EXAMPLES = 2**31 - 1


class DataError(ValueError):
    """A data set that cannot be used; the message is one sentence for the person who asked for it."""


class DatasetUnavailable(DataError):  # noqa: N818 (it is a state of the world, not a mistake)
    """Nothing is prepared and nothing can be downloaded."""


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


def _describe(value: Any) -> str:
    """Returns dtype and shape of an array, traced or not, and anything else in a few words."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return arguments.shown(value) if shape is None or dtype is None else f"{dtype}{list(shape)}"


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
        arguments.refuse(name, split, "a Split of images and labels")
    images = f"uint8 [N, {', '.join(str(extent or letter) for extent, letter in zip(image_shape, 'HWC', strict=True))}]"
    arguments.array(f"{name}.images", split.images, f"an array {images}, N from 1 on,", "u", None, *image_shape)
    if split.images.dtype != np.uint8:
        arguments.refuse(f"{name}.images", split.images, f"an array {images}")
    check_labels(f"{name}.labels", split.labels, split.images.shape[0], num_classes)


def check_labels(name: str, labels: Any, num_examples: int, num_classes: int | None = None) -> None:
    """Raises ValueError where labels are not `[num_examples]` whole numbers from 0 to below `num_classes`."""
    top = "K" if num_classes is None else str(num_classes)

    def is_in_range(values):
        return values.min() >= 0 and (num_classes is None or values.max() < num_classes)

    allowed = f"an integer array [{num_examples}] of labels in [0, {top})"
    arguments.array(name, labels, allowed, "iu", num_examples, is_allowed=is_in_range)


def check_dataset(dataset: Dataset) -> None:
    """Raises ValueError where a data set is none that can be trained and evaluated on."""
    if not isinstance(dataset, Dataset):
        arguments.refuse("dataset", dataset, "a Dataset, as load returns it,")
    arguments.text("dataset.name", dataset.name)
    arguments.texts("dataset.class_names", dataset.class_names)
    image_shape: tuple = (None, None, None)
    for split in SPLIT_NAMES:
        check_split(f"dataset.{split}", getattr(dataset, split), len(dataset.class_names), image_shape)
        image_shape = dataset.train.images.shape[1:]


def load(name: str = DEFAULT_DATASET, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns a data set, preparing it first where that was not done yet.

    Args:
      name: `"digits"` (1,797 digits that ship with scikit-learn, never needs a network), `"mnist"`,
        `"fashion_mnist"`, `"kmnist"`, or any TFDS data set of fixed-size uint8 images with an integer label.
      data_dir: the TFDS folder; default the variable `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Raises:
      DatasetUnavailable: it is not prepared, and there is no network to download it.
      DataError: it is unknown, of another kind, or its files are damaged.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]\w*(/[\w.-]*\w[\w.-]*)?", name, re.ASCII):
        named = arguments.shown(name)
        raise DataError(f"dataset {named} is not a name such as 'mnist', 'fashion_mnist' or 'emnist/digits'")
    if data_dir is not None:
        arguments.path("data_dir", data_dir)
    if name == "digits":
        return _digits()
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        folder = prepared_folder(name, root)
        if folder is None:
            from jaxmnist import preparation

            preparation.prepare(name, root)
            folder = prepared_folder(name, root)
            if folder is None:
                raise DataError(
                    f"dataset {name!r} is not whole in {root / name}: its folder there has no dataset_info.json; "
                    "remove it, and it is prepared again"
                )
        return _load_prepared(name, folder)
    except OSError as error:
        raise DataError(f"dataset {name!r} cannot be read from {root}: {error}") from None


def load_or_digits(name: str | None, data_dir: str | os.PathLike | None = None) -> tuple[Dataset, str | None]:
    """Returns the data set of that name; for None, MNIST where it can be had and the digits elsewhere.

    Returns:
      The data set, and a sentence to show where the digits stand in for MNIST (None otherwise).

    Raises:
      DataError: as `load`; never for None where MNIST is merely unavailable.
    """
    if name is not None:
        return load(name, data_dir), None
    try:
        return load(DEFAULT_DATASET, data_dir), None
    except DatasetUnavailable as error:
        return load("digits"), f"using the embedded 'digits' (1,797 images, not MNIST): {error}"


def example_order(num_examples: int, seed: int, length: int, start: int = 0) -> np.ndarray:
    """Returns `length` examples of a seed's order: one permutation per epoch, one after another.

    Args:
      num_examples: N, size of the training split.
      seed: decides the order, together with the epoch alone.
      length: how many examples are needed; any number of epochs.
      start: the place in the order of the first of them.

    Returns:
      `[length]` int32 in `[0, N)`.

    Raises:
      ValueError: a number is no whole one, or out of range.
    """
    arguments.whole("num_examples", num_examples, 1, MAX_EXAMPLES, "2**31 - 1")
    arguments.seed(seed)
    arguments.whole("length", length, 0, MAX_EXAMPLES, "2**31 - 1")
    arguments.whole("start", start, 0)
    # Of numpy's 32 bits, sums could be beyond them.
    num_examples, seed, length, start = int(num_examples), int(seed), int(length), int(start)
    first, offset = divmod(start, num_examples)
    last = -(-(start + length) // num_examples)
    epochs = [_permutation(num_examples, seed, epoch) for epoch in range(first, last)]
    return np.concatenate([*epochs, np.empty(0, np.int32)])[offset : offset + length]


@functools.lru_cache(maxsize=256)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    # On CPU, numpy's permutation is 30 times cheaper than jax.random's, which sorts twice.
    order = np.random.default_rng([seed, epoch]).permutation(num_examples).astype(np.int32)
    order.setflags(write=False)
    return order


def batches(split: Split, batch_size: int, seed: int = 0) -> Iterator[Split]:
    """Yields, without end, the very batches that a run of this batch size and seed trains on, in its order.

    A batch that reaches the end of an epoch goes on into the next.

    Args:
      split: the training split.
      batch_size: B, from 1 to N.
      seed: the run's seed.

    Raises:
      ValueError: the batch size is not in that range, the seed is none, or there is no split.
    """
    check_split("split", split)
    num_examples = len(split.labels)
    if not arguments.is_whole(batch_size) or not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size {arguments.shown(batch_size)} is not between 1 and the {num_examples} training images"
        )
    arguments.seed(seed)
    orders = (example_order(num_examples, seed, batch_size, step * batch_size) for step in itertools.count())
    return (Split(split.images[rows], split.labels[rows]) for rows in orders)


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


def _digits() -> Dataset:
    """Returns scikit-learn's digits at 28x28: each pixel three times in both directions, a border of 2."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))[..., None]
    labels = bunch.target[order].astype(np.int32)
    parts = [Split(images[a:b], labels[a:b]) for a, b in ((0, 1257), (1257, 1437), (1437, 1797))]
    return Dataset("digits", tuple(str(digit) for digit in range(10)), *parts)


def _load_prepared(name: str, folder: Path) -> Dataset:
    """Returns the data set from its decoded cache, made anew where it is missing, stale or damaged."""
    fingerprint = _fingerprint(folder)
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxmnist"
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    places = [folder / CACHE_NAME, user_cache / f"{name.replace('/', '-')}-{key}.npz"]
    for place in places:
        dataset = _read_cache(name, place, fingerprint)
        if dataset is not None:
            return dataset
    from jaxmnist import preparation

    dataset = preparation.decode(name, folder)
    for place in places:
        # Where neither folder can be written, the next load decodes again: slower, not wrong.
        with contextlib.suppress(OSError):
            _write_cache(place, dataset, fingerprint)
            break
    return dataset


def _fingerprint(folder: Path) -> str:
    """Returns what changes whenever a prepared file does: names, sizes and times of modification."""
    files = sorted(path for path in folder.iterdir() if path.suffix != ".npz" and not path.name.startswith("."))
    return json.dumps([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _read_cache(name: str, place: Path, fingerprint: str) -> Dataset | None:
    """Returns the cached data set, or None where there is none, or it is stale or damaged."""
    # zipfile compares each member's CRC-32 as it is read, so an altered byte does not go unnoticed.
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as cache:
            header = json.loads(str(cache["header"]))
            if header["fingerprint"] != fingerprint:
                return None
            splits = [Split(_aligned(cache[f"{split}_images"]), cache[f"{split}_labels"]) for split in SPLIT_NAMES]
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile):
        return None
    return Dataset(name, tuple(header["class_names"]), *splits)


def _aligned(array: np.ndarray) -> np.ndarray:
    """Returns a copy that begins at a multiple of 64 bytes, which jax uses on CPU without copying it once more."""
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _write_cache(place: Path, dataset: Dataset, fingerprint: str) -> None:
    """Writes the decoded data set, atomically."""
    arrays = {
        f"{split}_{field}": array for split in SPLIT_NAMES for field, array in getattr(dataset, split)._asdict().items()
    }
    header = json.dumps({"fingerprint": fingerprint, "class_names": dataset.class_names})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda passing: np.savez(passing, header=np.array(header), **arrays))

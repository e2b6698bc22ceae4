"""Loading of data sets by name, from a decoded cache.

This module imports neither TensorFlow nor tensorflow-datasets: after the first load, which prepares and decodes the
data by way of `jaxmnist.data.preparation`, a data set comes from the cache in a fraction of a second.
"""

import contextlib
import hashlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.checks import PATH, Kind, Optional, checked_by, shown
from jaxmnist.data.dataset import (
    SPLIT_NAMES,
    DataError,
    Dataset,
    DatasetUnavailable,
    Split,
    prepared_folder,
    split_train,
)
from jaxmnist.host.files import write_atomically

DEFAULT_DATASET = "mnist"
CACHE_NAME = "jaxmnist_decoded.npz"
ALIGNMENT = 64


class IsName(Kind):
    """The name of a data set that is not a path."""

    words = "a name such as 'mnist', 'fashion_mnist' or 'emnist/digits'"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(r"[a-z]\w*(/[\w.-]*\w[\w.-]*)?", value, re.ASCII):
            raise DataError(f"dataset {shown(value)} is not {self.words}")


NAME = IsName()


@checked_by(name=NAME, data_dir=Optional(PATH))
def load(name: str = DEFAULT_DATASET, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns a data set, and prepares it first if that has not been done yet.

    Args:
      name: `"digits"` (1,797 digits that ship with scikit-learn, never needs a network), `"mnist1d"` (made by its
        package, without a network), `"mnist"`, `"fashion_mnist"`, `"kmnist"`, or any TFDS data set of fixed-size uint8
        images with an integer label.
      data_dir: the TFDS folder; default the variable `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Raises:
      DatasetUnavailable: it is not prepared, and there is no network to download it, no folder to prepare it in, or no
        package array_record, which prepared files need.
      DataError: it is unknown, of another kind, or its files are damaged.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    root = _root(name, data_dir)
    try:
        folder = prepared_folder(name, root)
        if folder is None:
            from jaxmnist.data import preparation

            preparation.prepare(name, root)
            folder = prepared_folder(name, root)
            if folder is None:
                raise DataError(
                    f"dataset {name!r} is incomplete in {root / name}: its folder there has no dataset_info.json; "
                    "remove it, and it is prepared again"
                )
        return _load_prepared(name, folder)
    except OSError as error:
        raise DataError(f"dataset {name!r} cannot be read from {root}: {error}") from None


def _root(name: str, data_dir: str | os.PathLike | None) -> Path:
    """Returns the TFDS folder; DatasetUnavailable if it would be in a home that does not exist."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        return Path(root).expanduser()
    except RuntimeError:
        raise DatasetUnavailable(
            f"dataset {name!r} is looked for in {root}, and that home is not known here: name a folder by the "
            "variable TFDS_DATA_DIR"
        ) from None


@checked_by(name=Optional(NAME), data_dir=Optional(PATH))
def load_or_digits(name: str | None, data_dir: str | os.PathLike | None = None) -> tuple[Dataset, str | None]:
    """Returns the data set of that name; for None, MNIST if it is available, and otherwise the digits.

    Returns:
      The data set, and a sentence to show if the digits stand in for MNIST (None otherwise).

    Raises:
      DataError: as `load`; never for None if MNIST is merely unavailable.
    """
    if name is not None:
        return load(name, data_dir), None
    try:
        return load(DEFAULT_DATASET, data_dir), None
    except DatasetUnavailable as error:
        return load("digits"), f"using the embedded 'digits' (1,797 images, not MNIST): {error}"


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


def _mnist1d() -> Dataset:
    """Returns MNIST-1D, 40 numbers an example, as its package makes it (Greydanus & Kobak 2024, arXiv:2011.14439)."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise DataError("dataset 'mnist1d' needs the package mnist1d: pip install mnist1d") from None
    states = random.getstate(), np.random.get_state()
    made = make_dataset(get_dataset_args())  # which seeds the random numbers that a person may be drawing
    random.setstate(states[0])
    np.random.set_state(states[1])
    train, validation = split_train(made["x"].astype(np.float32), made["y"].astype(np.int32))
    test = Split(made["x_test"].astype(np.float32), made["y_test"].astype(np.int32))
    return Dataset("mnist1d", tuple(str(digit) for digit in range(10)), train, validation, test)


# Those that are made here, without files of a data folder.
EMBEDDED = {"digits": _digits, "mnist1d": _mnist1d}


def _load_prepared(name: str, folder: Path) -> Dataset:
    """Returns the data set from its decoded cache, which is made anew if it is missing, stale or damaged."""
    fingerprint = _fingerprint(folder)
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    places = [folder / CACHE_NAME]
    with contextlib.suppress(RuntimeError):  # a user without a home has no cache there
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxmnist"
        places.append(user_cache / f"{name.replace('/', '-')}-{key}.npz")
    for place in places:
        dataset = _read_cache(name, place, fingerprint)
        if dataset is not None:
            return dataset
    from jaxmnist.data import preparation

    dataset = preparation.decode(name, folder)
    for place in places:
        # If neither folder can be written, the next load decodes again: slower, not wrong.
        with contextlib.suppress(OSError):
            _write_cache(place, dataset, fingerprint)
            break
    return dataset


def _fingerprint(folder: Path) -> str:
    """Returns what changes whenever a prepared file does: names, sizes and times of modification."""
    files = sorted(path for path in folder.iterdir() if path.suffix != ".npz" and not path.name.startswith("."))
    return json.dumps([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _read_cache(name: str, place: Path, fingerprint: str) -> Dataset | None:
    """Returns the cached data set, or None if there is none, or if it is stale or damaged."""
    # zipfile compares each member's CRC-32 as it is read, so an altered byte does not go unnoticed.
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as cache:
            header = json.loads(str(cache["header"]))
            if header["fingerprint"] != fingerprint:
                return None
            splits = [Split(_aligned(cache[f"{split}_images"]), cache[f"{split}_labels"]) for split in SPLIT_NAMES]
    except Exception:  # of broken files, zipfile and numpy raise whatever their parsing runs into
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
    arrays: dict[str, Any] = {}
    for name in SPLIT_NAMES:
        split = getattr(dataset, name)
        arrays |= {f"{name}_images": split.inputs, f"{name}_labels": split.targets}
    header = json.dumps({"fingerprint": fingerprint, "class_names": dataset.class_names})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda temporary: np.savez(temporary, header=np.array(header), **arrays))

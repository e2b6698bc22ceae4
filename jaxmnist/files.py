"""Files that are whole or not there, and say in which format they are."""

import io
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np

# Of results, options, models and unfinished sweeps; to be raised where a reader of today would misread them.
FORMAT = 1
NAMES = "_names"
# What numpy and zipfile raise where a file is damaged; `NotImplementedError` and `RuntimeError` where it seems to be
# compressed by unknown means, or encrypted.
UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


def check_format(found: SupportsInt, place: Path) -> None:
    """Raises ValueError where a later version has written a file; those without a number are of the first format."""
    if int(found) > FORMAT:
        raise ValueError(
            f"{place} was written by a later version of jaxmnist, in format {int(found)}; this one reads formats up to "
            f"{FORMAT}: update jaxmnist"
        )


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Calls `write` with a passing name in the same folder, and moves the file into place once it is whole."""
    descriptor, passing = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(descriptor)
    try:
        write(passing)
        # Without this, a machine that loses its power may keep the name and lose the content.
        with open(passing, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(passing, 0o644)
        os.replace(passing, path)
    except BaseException as error:
        os.unlink(passing)
        if isinstance(error, OSError) and error.strerror:
            error.filename = str(path)  # rather than the passing name, or none, as where a disk is full
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda passing: Path(passing).write_text(text))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays atomically, for `read_arrays`."""
    names = np.array(list(arrays))
    write_atomically(path, lambda passing: np.savez(passing, allow_pickle=False, **{NAMES: names}, **arrays))


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays in the content of a file of `write_arrays`; raises one of `UNREADABLE` where it is damaged.

    Zip has a checksum of each array, but none of its directory, from which a flipped bit may remove some.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    if arrays.pop(NAMES).tolist() != list(arrays):
        raise ValueError("arrays are missing")
    return arrays


def remove_passing_files(folder: Path, names: Iterable[str]) -> None:
    """Removes what a kill left half written of these files: `write_atomically` gives it a hidden, random name."""
    for suffix in {Path(name).suffix for name in names}:
        for path in folder.glob(f".????????{suffix}"):
            path.unlink()

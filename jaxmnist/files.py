"""Files that are whole or not there, and say in which format they are; strangers' files, read without executing them.

A file that a person got from somebody else may claim anything. What reads one here takes at most `MAX_BYTES`, or
`MAX_EXPANSION` times the file's own size, and raises nothing but ValueError and OSError.
"""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Of results, options, models and unfinished sweeps; to be raised where a reader of today would misread them.
FORMAT = 1
MAX_BYTES = 2**28
MAX_EXPANSION = 16
MAX_TEXT_BYTES = 2**24
NAMES = "_names"


def check_format(found: object, place: Path) -> None:
    """Raises ValueError where a later version has written a file; those without a number are of the first format."""
    if not isinstance(found, int | np.integer):
        raise ValueError(f"{place} says that its format is {str(found)[:80]!r}; a whole number is needed")
    if found > FORMAT:
        raise ValueError(
            f"{place} was written by a later version of jaxmnist, in format {found}; this one reads formats up to "
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


def check_room(declared: int, stored: int) -> None:
    """Raises ValueError where what a file holds would take much more room than the file: a decompression bomb."""
    most = max(MAX_BYTES, MAX_EXPANSION * stored)
    if declared > most:
        raise ValueError(f"{stored:,} bytes claim to hold {declared:,}, of which {most:,} are allowed")


def read_json(path: Path) -> dict:
    """Returns the JSON object in a text file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is something else, or larger than 16 MiB.
    """
    with path.open("rb") as file:
        text = file.read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_TEXT_BYTES:,} bytes")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays atomically, for `read_arrays`."""
    names = np.array(list(arrays))
    write_atomically(path, lambda passing: np.savez(passing, allow_pickle=False, **{NAMES: names}, **arrays))


def read_arrays(content: bytes, name: str = "it") -> dict[str, np.ndarray]:
    """Returns the arrays in the content of an `.npz` file; those that would need pickle are refused.

    Zip has a checksum of each array, but none of its directory, from which a flipped bit may remove some: where
    `write_arrays` has written the file, they are counted.

    Raises:
      ValueError: it is damaged, something else, or a decompression bomb; says so of `name`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_room(sum(member.file_size for member in archive.infolist()), len(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = dict(arrays)
        # Of what is no array, numpy returns the bytes.
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise ValueError("it holds something else than arrays")
        if NAMES in found and found.pop(NAMES).tolist() != list(found):
            raise ValueError("arrays are missing")
        return found
    except Exception as error:  # of broken files, zipfile and numpy raise whatever their parsing runs into
        raise ValueError(f"{name} cannot be read: {str(error).strip() or type(error).__name__}") from None


def check_links(folder: Path) -> None:
    """Raises ValueError where something in a folder leads out of it."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ValueError(f"{path.relative_to(folder)} leads out of the folder")


def stored_bytes(folder: Path) -> int:
    """Returns how large the files of a folder are together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove_passing_files(folder: Path, names: Iterable[str]) -> None:
    """Removes what a kill left half written of these files: `write_atomically` gives it a hidden, random name."""
    for suffix in {Path(name).suffix for name in names}:
        for path in folder.glob(f".????????{suffix}"):
            path.unlink()

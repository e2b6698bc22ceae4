"""Files: written atomically, in a numbered format, and known as ours; files of others are read without being executed.

Only files that are ours are ever removed or replaced.

A file that a person got from somebody else may claim anything. What reads one here takes at most `MAX_BYTES`, or
`MAX_EXPANSION` times the file's own size, and raises nothing but ValueError and OSError.
"""

import contextlib
import io
import itertools
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Of results, options, models and unfinished sweeps; to be raised when today's reader would misread them.
FORMAT = 1
# What a sweep says of itself that may change between its beginning and its end.
NOT_COMPARED = frozenset(
    {"format", "versions", "backend", "num_devices", "axes", "objects", "memory", "programs_crc32", "layout"}
    | {"computations"}
)
MAX_BYTES = 2**28
MAX_EXPANSION = 16
MAX_TEXT_BYTES = 2**24
NAMES = "_names"
# By these, files of this package are known. Archives: their first array, of `write_arrays` or `save_predictions`.
FIRST_ARRAYS = (f"{NAMES}.npy".encode(), b"recipe.npy")
# Tables: some of their columns.
COLUMNS = re.compile(
    rb"(.*,)?(seed,(step,)?(train|validation|test|diverged|pruned)_|seed,step,seconds,|step,num_seeds,|step,trace,squared_norm,"
    rb"|optimizer,learning_rate,validation_|table,row,unit,)"
)
# Figures: a comment.
MARK = "written by jaxmnist"
HEADER_BYTES, HEAD_BYTES = 64, 4096
CHECKSUM, CHECKSUM_BYTES = re.compile(rb"\njaxmnist crc32 ([0-9a-f]{8})\n\Z"), 25
TEMPORARY_PREFIX = ".jaxmnist-"


def check_format(found: object, place: Path) -> None:
    """Raises ValueError if a later version has written a file; a file without a number has the first format."""
    if not isinstance(found, int | np.integer):
        raise ValueError(f"{place} says that its format is {str(found)[:80]!r}; a whole number is needed")
    if found > FORMAT:
        raise ValueError(
            f"{place} was written by a later version of jaxmnist, in format {found}; this one reads formats up to "
            f"{FORMAT}: update jaxmnist"
        )


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Calls `write` with the name of a temporary file in the same folder, and moves that into place at the end."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX, suffix=path.suffix)
    os.close(descriptor)
    try:
        write(temporary)
        # Without this, a machine that loses its power may keep the name and lose the content. Windows does it only for
        # a file that may be written.
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.strerror:
            error.filename = str(path)  # rather than the temporary name, or none, as on a full disk
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, the same bytes on every system."""
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(text.encode()))


def with_checksum(content: bytes | memoryview) -> bytes:
    """Returns the content of a file and, after it, its checksum; readers of HDF5 ignore what follows the content."""
    return b"".join((content, b"\njaxmnist crc32 %08x\n" % zlib.crc32(content)))


def check_checksum(content: bytes) -> None:
    """Raises ValueError if the content of a file is not that of which `with_checksum` wrote the checksum at its end.

    A file without one is of an earlier version, or was changed since: by HDF5, which cuts it off.
    """
    found = CHECKSUM.search(content, max(0, len(content) - CHECKSUM_BYTES))
    if found and int(found[1], 16) != zlib.crc32(memoryview(content)[: found.start()]):
        raise ValueError("its content does not match its checksum")


def check_room(declared: int, stored: int) -> None:
    """Raises ValueError if the content of a file would take far more room than the file: a decompression bomb."""
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
    write_atomically(path, lambda temporary: np.savez(temporary, allow_pickle=False, **{NAMES: names}, **arrays))


def read_arrays(content: bytes, name: str = "it") -> dict[str, np.ndarray]:
    """Returns the arrays in the content of an `.npz` file; those that would need pickle are refused.

    Zip has a checksum of each array, but none of its directory, from which a flipped bit may remove some: in a file
    that `write_arrays` wrote, they are counted.

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
    """Raises ValueError if a link in a folder leads out of it."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ValueError(f"{path.relative_to(folder)} leads out of the folder")


def stored_bytes(folder: Path) -> int:
    """Returns how large the files of a folder are together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def is_ours(path: Path) -> bool:
    """Returns whether this package wrote a file, as its first bytes tell; a link is a person's."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix == ".json":
            return isinstance(read_json(path).get("format"), int)
        if path.suffix == ".nc":
            import h5py

            with h5py.File(path, "r") as file:
                return "axes" in file.attrs
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if path.suffix == ".npz":
            if any(name in head[:HEADER_BYTES] for name in FIRST_ARRAYS):
                return True
            # Named at its end too, so that an archive with one damaged byte is known.
            with zipfile.ZipFile(path) as archive:
                return any(name.decode() in archive.namelist() for name in FIRST_ARRAYS)
        if path.suffix == ".csv":
            return COLUMNS.match(head) is not None
        return MARK.encode() in head
    except Exception:  # of files of any content, h5py and zipfile raise whatever their parsing runs into
        return False


def check_ours(path: Path) -> None:
    """Raises ValueError if the name of a file that is to be written is taken by something that is not ours."""
    if os.path.lexists(path) and not is_ours(path):
        raise ValueError(
            f"{path} cannot be read, or was not written by jaxmnist: choose another folder or name, or move it away"
        )


def check_folder(folder: Path) -> None:
    """Raises ValueError if a file has the name of a folder that is to be made, or of one above it."""
    place = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not place.is_dir():
        raise ValueError(f"{place} is not a folder, but a folder is needed there: choose another folder")


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be read, and returns its new path, which was free and which nothing looks for."""
    names = (path.with_name(f"{path.stem}.unreadable-{number}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def remove_if_empty(folder: Path) -> None:
    """Removes a folder, unless it holds something."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_temporary_files(folder: Path) -> None:
    """Removes what `write_atomically` had half written in a folder when it was killed."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}????????.*"):
        if path.is_file():
            path.unlink()

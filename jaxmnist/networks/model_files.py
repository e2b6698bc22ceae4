"""The files of a saved model: which of them are its own, and their checksum."""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

from jaxmnist import checks
from jaxmnist.host.files import check_folder, check_ours, is_ours, read_json, remove_if_empty, remove_temporary_files

MODEL_FOLDER, DESCRIPTION = "model", "model.json"
# The files that orbax writes for one seed's parameters, and the suffix of a folder that is not complete yet.
ORBAX_FILES = re.compile(
    r"_CHECKPOINT_METADATA|_METADATA|_sharding|_strings\.json|commit_success\.txt|array_metadatas/process_\d+"
    r"|(ocdbt\.process_\d+/)?(d/[0-9a-f]{32}|manifest\.ocdbt)(\.__lock)?"
)
ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"


def check_model(folder: Path, seeds: Iterable[int]) -> None:
    """Raises ValueError if a model of these seeds cannot be saved, because something else has a name that it needs."""
    place = folder / MODEL_FOLDER
    check_folder(place)
    check_ours(place / DESCRIPTION)
    for saved in _params_folders(place, seeds):
        if not _is_orbax(saved):
            raise ValueError(f"{saved} holds what jaxmnist did not write: choose another folder, or move it out")


def remove_model(folder: Path, seeds: Iterable[int] = ()) -> None:
    """Removes the model that `save_model` wrote into a folder, and what it left behind for these seeds if killed."""
    place = folder / MODEL_FOLDER
    description = place / DESCRIPTION
    named: list = []
    if is_ours(description):
        named = read_json(description).get("seeds", [])
        # First, since it says that the parameters are complete.
        description.unlink()
    for saved in _params_folders(place, [*filter(checks.is_whole, named), *seeds]):
        if _is_orbax(saved):
            shutil.rmtree(saved)
    remove_temporary_files(place)
    remove_if_empty(place)


def _params_folders(place: Path, seeds: Iterable[int]) -> list[Path]:
    """Returns the existing paths with the names of these seeds' parameters, complete or still being written."""
    names = [f"params_{seed}{suffix}" for seed in dict.fromkeys(seeds) for suffix in ("", ORBAX_TEMPORARY)]
    return [place / name for name in names if os.path.lexists(place / name)]


def _is_orbax(folder: Path) -> bool:
    """Returns whether a folder holds only what orbax writes."""
    paths = [folder, *folder.rglob("*")]
    files = [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]
    return not any(path.is_symlink() for path in paths) and all(map(ORBAX_FILES.fullmatch, files))


def checksum(place: Path, description: dict) -> int:
    """Returns the CRC-32 of a description and of all files of the parameters that it names."""
    crc = zlib.crc32(json.dumps(description).encode())
    for seed in description["seeds"]:
        folder = place / f"params_{int(seed)}"
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        # Orbax does not notice damage to large arrays. Files that a file manager adds to a folder do not count.
        for name in filter(ORBAX_FILES.fullmatch, names):
            crc = zlib.crc32((folder / name).read_bytes(), zlib.crc32(name.encode(), crc))
    return crc

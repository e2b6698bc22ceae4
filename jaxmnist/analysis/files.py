"""Results in files: writing is atomic; reading a file from a stranger executes nothing and reads no other file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from jaxmnist.analysis.arguments import IsResult, check_result
from jaxmnist.analysis.results import hyperparameters, label, table
from jaxmnist.checks import PATH, Where, checked_by, is_sequence, reason, shown
from jaxmnist.host.files import (
    FORMAT,
    NOT_COMPARED,
    check_checksum,
    check_folder,
    check_format,
    check_ours,
    check_room,
    remove_temporary_files,
    with_checksum,
    write_atomically,
)

FILE_NAME, TABLE_NAME = "results.nc", "results.csv"


@checked_by(result=IsResult(one_seed=False), folder=PATH)
def save(result: xr.Dataset, folder: str | os.PathLike) -> None:
    """Writes `results.nc` (everything) and `results.csv` (a row per run) into a folder, each atomically.

    Args:
      result: of a sweep.
      folder: created if it does not exist; a result in it is replaced.

    Raises:
      ValueError: the argument is not a result, or the folder holds files of these names that jaxmnist did not write.
      OSError: the folder cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    for name in (FILE_NAME, TABLE_NAME):
        check_ours(folder / name)
    remove_temporary_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(result, folder)
    write_atomically(folder / TABLE_NAME, lambda path: table(result).to_csv(path, index=False))


def write(result: xr.Dataset, folder: str | os.PathLike) -> None:
    """Writes `results.nc` into a folder, atomically."""
    # By way of memory, since HDF5 itself crashes the process, some time later, if the disk is full.
    content = with_checksum(result.to_netcdf(engine="h5netcdf"))
    write_atomically(Path(folder) / FILE_NAME, lambda path: Path(path).write_bytes(content))


def _are_files(value: object) -> bool:
    return is_sequence(value) and all(map(PATH.accepts, value))


@checked_by(files=Where("a sequence of files or folders", _are_files))
def merge(files: Sequence[str | os.PathLike]) -> xr.Dataset:
    """Returns the result of a whole sweep from those of its shards.

    Args:
      files: each shard's `results.nc`, or the folder that holds it, in any order.

    Raises:
      ValueError: a shard is missing, given twice or not finished, or the shards are not of one sweep.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        # The folder of a mistyped file may hold a result that nobody has asked for.
        if path.name != FILE_NAME and not path.is_dir():
            raise ValueError(f"files hold {path}, which is neither a folder nor a {FILE_NAME}")
    parts = [load_results(path if path.is_dir() else path.parent) for path in paths]
    if not parts:
        raise ValueError("merge() needs the files of the shards")
    first = parts[0].attrs
    found: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        shard = part.attrs.get("shard")
        if shard is None or "finished" in part:
            raise ValueError(f"{path} is not {'a shard' if shard is None else 'finished'}")
        if shard in found:
            raise ValueError(f"{path} and {found[shard]} are both the shard {shard}")
        found[shard] = path
        for name in set(first) - NOT_COMPARED - {"shard"}:
            if part.attrs.get(name) != first[name]:
                raise ValueError(f"{path} and {paths[0]} are not of one sweep: {name} differs")
    num_shards = _num_shards(first["shard"])
    missing = [f"{i}/{num_shards}" for i in range(1, num_shards + 1) if f"{i}/{num_shards}" not in found]
    if missing:
        raise ValueError(f"shards are missing: {', '.join(missing)}")
    whole = xr.concat(parts, "run", combine_attrs="override").sortby("row")
    if not np.array_equal(whole["row"], np.arange(first["num_runs"])):
        raise ValueError("the shards do not hold each run once")
    runs = {name: whole[name].values for name in hyperparameters(parts[0])}
    values = {str(name): array.values for name, array in whole.data_vars.items()}
    steps = whole["step"].values.tolist() if "step" in whole else ()
    attrs = {name: value for name, value in first.items() if name not in ("shard", "plan_crc32", "axes")}
    return label(runs, values, steps, attrs)


def _num_shards(shard: object) -> int:
    found = re.fullmatch(r"\d{1,9}/(\d{1,9})", str(shard))
    if not found:
        raise ValueError(f"the shard {shown(shard)} is not I/N, such as 3/16")
    return int(found[1])


@checked_by(folder=PATH)
def load_results(folder: str | os.PathLike) -> xr.Dataset:
    """Returns the result that `save` wrote into a folder.

    Raises:
      ValueError: there is none, it is damaged, or it was written by a later version.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no {FILE_NAME}; it is not the output folder of a finished sweep")
    try:
        check_checksum(path.read_bytes())
        _check_file(path)
        result = xr.load_dataset(path, engine="h5netcdf", decode_times=False)
        found = result.attrs.get("format", FORMAT)
        if not isinstance(found, int | np.integer) or found <= FORMAT:
            check_result(result, [str(name) for name in result.data_vars])
    except Exception as error:  # on broken files, h5py and xarray raise whatever their parsing runs into
        raise ValueError(f"{path} is damaged, or was not written by jaxmnist: {reason(error)}") from None
    check_format(found, path)
    return result


def _check_file(path: Path) -> None:
    """Raises ValueError if a netCDF file would read other files, or take much more room in memory than on disk."""
    import h5py

    with h5py.File(path, "r") as file:
        declared = 0
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
            item = file[name]
            if not isinstance(item, h5py.Dataset):
                raise ValueError(f"{name} is not an array")
            if item.external or item.is_virtual:
                raise ValueError(f"{name} is kept in another file")
            declared += item.size * item.dtype.itemsize
        check_room(declared, path.stat().st_size)

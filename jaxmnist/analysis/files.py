"""Results in files: writing is atomic; reading a file from a stranger executes nothing and reads no other file."""

import os
from pathlib import Path

import numpy as np
import xarray as xr

from jaxmnist.analysis.arguments import IsResult, check_result
from jaxmnist.analysis.results import table
from jaxmnist.checks import PATH, checked_by, reason
from jaxmnist.host.files import (
    FORMAT,
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
    content = with_checksum(bytes(result.to_netcdf(engine="h5netcdf")))
    write_atomically(Path(folder) / FILE_NAME, lambda path: Path(path).write_bytes(content))


@checked_by(folder=PATH)
def load_results(folder: str | os.PathLike) -> xr.Dataset:
    """Returns the result that `save` wrote into a folder.

    Raises:
      ValueError: there is none, it is damaged, or it was written by a later version.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise ValueError(f"there is no {path}; {folder} is not the output folder of a finished sweep")
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

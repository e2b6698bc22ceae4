"""The output folder: whose files are in it, how a script begins there, and how figures are saved."""

import dataclasses
import functools
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jaxmnist as jm
from jaxmnist.host.files import MARK, is_ours, remove_temporary_files, write_atomically
from jaxmnist.sweeps.folder import SweepFolder, is_unfinished

from .config import CONFIG_NAME, OPTIONS_OF_ONE_CALL, load_config, resolved, save_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ("results.nc", "results.csv")
# Marks figures as ours. Without its date, the same picture is the same file.
METADATA = {".png": {"comment": MARK}, ".svg": {"Description": MARK, "Date": None}}
OTHER_FOLDER = "give --overwrite to replace it, or another --output-dir"


def begin_sweeps(options, dataset: jm.Dataset, places: Sequence[Path], figures: Iterable[Path]) -> None:
    """Does what `begin_folder` does, for a script that sweeps.

    Args:
      options: the options of the script.
      dataset: the data set to which they refer.
      places: the folders of the script's sweeps, including the output folder.
      figures: the other files that it writes.

    Raises:
      ValueError: as for `begin_folder`, or a name that a sweep needs belongs to a file that this package did not write.
    """

    def clear():
        for place in places:
            SweepFolder(place).clear()

    files = [*files_in(places, RESULTS), *figures]
    begin_folder(options, dataset, files, any(map(is_unfinished, places)), clear)
    for place in places:
        SweepFolder(place).check()


def begin_folder(
    options, dataset: jm.Dataset, files: Sequence[Path], is_interrupted: bool, clear: Callable[[], None]
) -> None:
    """Saves the options in the output folder, unless something else is there; from then on, it can be resumed.

    A folder that was begun with the same options stays as it is, and the script continues there. With --overwrite,
    everything that the script has written is removed.

    Args:
      options: the options of the script.
      dataset: the data set to which they refer.
      files: all files that the script writes, except options and states.
      is_interrupted: whether there are states of a training that has not ended.
      clear: removes the states.

    Raises:
      ValueError: the folder holds something else, or an interrupted training.
    """
    folder = options.output_dir
    config = folder / CONFIG_NAME
    claim_files(files, options.overwrite)
    if options.resume is not None:
        return
    claim_files([config], options.overwrite)
    if options.overwrite:
        # This file goes first, since it says that there is something to resume.
        config.unlink(missing_ok=True)
        clear()
        for path in files:
            path.unlink(missing_ok=True)
    elif is_interrupted or any(map(os.path.lexists, files)):
        check_begun(options, dataset, is_interrupted)
    save_config(options, dataset)


def check_begun(options, dataset: jm.Dataset, is_interrupted: bool) -> None:
    """Raises ValueError if the training in the output folder was begun with other options, or was interrupted."""
    folder = options.output_dir
    try:
        saved = load_config(type(options), folder)
    except ValueError as error:
        raise ValueError(f"output_dir {folder} holds something else: {error}; {OTHER_FOLDER}") from None
    if is_interrupted:
        raise ValueError(
            f"output_dir {folder} holds an interrupted training: continue it with --resume {shlex.quote(str(folder))}, "
            f"or {OTHER_FOLDER}"
        )
    given = resolved(options, dataset)
    for field in dataclasses.fields(options):
        found, value = getattr(saved, field.name), getattr(given, field.name)
        if field.name not in OPTIONS_OF_ONE_CALL and found != value:
            raise ValueError(
                f"output_dir {folder} holds a training that was begun with {field.name} {found}, not {value}; "
                f"{OTHER_FOLDER}"
            )


def claim_files(files: Sequence[Path], overwrite: bool, remedy: str = OTHER_FOLDER) -> None:
    """Makes sure that files may be written, and removes temporary files beside them that a killed program has left.

    Args:
      files: the files to be written.
      overwrite: whether to replace existing files, whoever wrote them.
      remedy: what the user can do instead, for the message.

    Raises:
      ValueError: such a name belongs to a folder, or to a file that this package did not write.
    """
    for path in files:
        if path.is_dir():
            raise ValueError(f"{path} cannot be written: it is a folder")
        if os.path.lexists(path) and not overwrite and not is_ours(path):
            raise ValueError(f"{path} is not known to have been written by jaxmnist; {remedy}")
    for place in {path.parent for path in files}:
        remove_temporary_files(place)


def files_in(places: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Returns the paths of the files with these names in each of these folders."""
    names = list(names)
    return [place / name for place in places for name in names]


def figure_names(*names: str) -> tuple[str, ...]:
    """Returns the names of the files that `save_figure` writes."""
    return tuple(f"{name}{kind}" for name in names for kind in METADATA)


def make_output_dir(folder: Path) -> None:
    """Creates the output folder, and tries to write to it before hours of training rely on it.

    Raises:
      ValueError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"output_dir {folder} cannot be written: {error.strerror}") from None


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure to a path, and as SVG beside it, both atomically."""
    write_atomically(path, functools.partial(figure.savefig, dpi=150, metadata=METADATA.get(path.suffix)))
    write_atomically(path.with_suffix(".svg"), functools.partial(figure.savefig, metadata=METADATA[".svg"]))

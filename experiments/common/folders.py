"""The output folder of a script: who uses it, how the script begins there, and how figures are saved."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jaxmnist as jm
from jaxmnist.studies import output

from .config import CONFIG_NAME, OPTIONS_OF_ONE_CALL, load_config, resolved, save_config
from .program import usage_errors

RESULTS = ("results.nc", "results.csv")
PAGE = "report.html"
OTHER_FOLDER = "give --overwrite to replace it, or another --output-dir"
WAIT = "give --wait to wait for it, or another --output-dir"
save_figure = output.write_figure


def begin_sweeps(options, dataset: jm.Dataset | None, places: Sequence[Path], figures: Iterable[Path]) -> None:
    """Does what `begin_folder` does, for a script that sweeps.

    Args:
      options: the options of the script.
      dataset: the data set to which they refer; None if they name none.
      places: the folders of the script's sweeps, including the output folder.
      figures: the other files that it writes.

    Raises:
      ValueError: as for `begin_folder`.
    """
    begin_folder(options, dataset, [*files_in(places, RESULTS), *figures], output.SavedSweeps(places))


def begin_folder(options, dataset: jm.Dataset | None, files: Sequence[Path], saved: output.Saved) -> None:
    """Saves the options in the output folder, unless something else is there; from then on, it can be resumed.

    A folder that was begun with the same options stays as it is, and the script continues there. With --overwrite,
    everything that the script has written is removed.

    Args:
      options: the options of the script.
      dataset: the data set to which they refer; None if they name none.
      files: all files that the script writes, except the options and what its training saves to resume.
      saved: what its training has saved to resume.

    Raises:
      ValueError: the folder holds something else, or an interrupted training, or a name that the training needs belongs
        to a file that this package did not write.
    """
    claim_files(files, options.overwrite)
    if options.resume is None:
        config = options.output_dir / CONFIG_NAME
        claim_files([config], options.overwrite)
        if options.overwrite:
            # This file goes first, since it says that there is something to resume.
            config.unlink(missing_ok=True)
            saved.clear()
            for path in files:
                path.unlink(missing_ok=True)
        elif saved.is_interrupted() or any(map(os.path.lexists, files)):
            check_begun(options, dataset, saved.is_interrupted())
        save_config(options, dataset)
    saved.check()


def check_begun(options, dataset: jm.Dataset | None, is_interrupted: bool) -> None:
    """Raises ValueError if the training in the output folder was begun with other options, or was interrupted."""
    folder = options.output_dir
    try:
        saved = load_config(type(options), folder)
    except ValueError as error:
        raise ValueError(f"output_dir {folder} holds something else: {error}; {OTHER_FOLDER}") from None
    if is_interrupted:
        resume = shlex.join(["--resume", str(folder), *options.code()])
        raise ValueError(
            f"output_dir {folder} holds an interrupted training: continue it with {resume}, or {OTHER_FOLDER}"
        )
    given = resolved(options, dataset)
    ignored = OPTIONS_OF_ONE_CALL | given.grows_from(saved)
    for field in dataclasses.fields(options):
        found, value = getattr(saved, field.name), getattr(given, field.name)
        if field.name not in ignored and found != value:
            raise ValueError(
                f"output_dir {folder} holds a training that was begun with {field.name} {found}, not {value}; "
                f"{OTHER_FOLDER}"
            )


def claim_files(files: Sequence[Path], overwrite: bool, remedy: str = OTHER_FOLDER) -> None:
    """Does what `output.claim_files` does, with the remedy that most scripts have."""
    output.claim_files(files, overwrite, remedy)


def files_in(places: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Returns the paths of the files with these names in each of these folders."""
    names = list(names)
    return [place / name for place in places for name in names]


def figure_names(*names: str) -> tuple[str, ...]:
    """Returns the names of the files that `save_figure` writes."""
    return tuple(f"{name}{kind}" for name in names for kind in output.METADATA)


def save_page(result, folder: Path, by: str | None = None) -> str:
    """Writes the interactive page of a result into a folder, where `claim_files` has allowed it, and returns its path.

    If Bokeh, an extra, is not installed, no page is written, and the text that is returned says so.
    """
    path = folder / PAGE
    try:
        if not output.is_ours(path):
            path.unlink(missing_ok=True)
        jm.interactive(result, path, by=by)
    except ValueError as error:
        return f"no {path} ({error})"
    return str(path)


@contextlib.contextmanager
def output_dir_held(folder: Path | None, wait: bool) -> Iterator[None]:
    """Creates the output folder, and keeps other programs out of it while the block runs; None is no folder.

    If that is impossible, or another program uses it and the script was not told to wait, one sentence and exit status
    2 end the script.
    """
    with contextlib.ExitStack() as stack:
        with usage_errors():
            if folder is not None:
                make_output_dir(folder)
            stack.enter_context(output.hold(folder, wait, WAIT))
        yield


def make_output_dir(folder: Path) -> None:
    """Creates the output folder, and tries to write to it before hours of training rely on it.

    Raises:
      ValueError: the folder cannot be created or written.
    """
    try:
        output.make_folder(folder)
    except OSError as error:
        raise ValueError(f"output_dir {folder} cannot be written: {error.strerror}") from None

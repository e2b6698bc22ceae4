"""The output folder of a program: who uses it, its options, what it resumes from, whose files are in it, how to write.

Programs such as those in `experiments/` write into a folder that a person may use for other things as well. Only what
jaxmnist wrote is removed or replaced there, unless the person asks for more.
"""

import functools
import json
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from jaxmnist.checks import shown
from jaxmnist.host.checkpoints import check_states, remove_states, saved_states
from jaxmnist.host.files import (
    FORMAT,
    MARK,
    check_format,
    read_json,
    remove_if_empty,
    remove_temporary_files,
    write_atomically,
    write_text,
)
from jaxmnist.host.files import is_ours as is_ours
from jaxmnist.host.lock import hold as hold
from jaxmnist.networks.model_files import check_model, remove_model
from jaxmnist.studies import report
from jaxmnist.sweeps.folder import SweepFolder, has_kept_states, is_begun, is_unfinished
from jaxmnist.values import with_tuples

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Marks figures as ours. Without its date, the same picture is the same file.
METADATA = {".png": {"comment": MARK}, ".svg": {"Description": MARK, "Date": None}}


class Saved(Protocol):
    """What a training has saved of itself, besides the files that it is for."""

    def is_interrupted(self) -> bool:
        """Returns whether there is a training that has saved something and not ended."""

    def clear(self) -> None:
        """Removes it."""

    def check(self) -> None:
        """Raises ValueError if something that this package did not write has a name that the training needs."""


class SavedSweeps:
    """What sweeps have saved in their folders, and need to resume."""

    def __init__(self, folders: Iterable[Path]):
        self._folders = list(folders)

    def is_begun(self) -> bool:
        """Returns whether there is a sweep that has not ended."""
        return any(map(is_begun, self._folders))

    def is_interrupted(self) -> bool:
        """Returns whether there is a sweep that has saved something and not ended, or goes on from kept states."""
        return any(map(is_unfinished, self._folders)) or (self.is_begun() and any(map(has_kept_states, self._folders)))

    def clear(self) -> None:
        """Removes what the sweeps need to resume; their results stay."""
        for folder in self._folders:
            SweepFolder(folder).clear()

    def check(self) -> None:
        """Raises ValueError if something that this package did not write has a name that a sweep needs."""
        for folder in self._folders:
            SweepFolder(folder).check()


class SavedRuns:
    """What long runs of several seeds have saved in one folder: the states that they resume from, and their model.

    Attributes:
      folder: the output folder.
      seeds: of the runs that are to be trained.
    """

    def __init__(self, folder: Path, seeds: Sequence[int]):
        self.folder, self.seeds = folder, seeds

    def states(self, seed: int) -> Path:
        """Returns the folder of the states of a seed."""
        return self.folder / "checkpoints" / f"seed_{seed}"

    def is_finished(self) -> bool:
        """Returns whether the runs have ended: their predictions are saved last."""
        return (self.folder / report.FILE_NAME).is_file()

    def is_interrupted(self) -> bool:
        """Returns whether runs, of whatever seeds, have saved states and not ended."""
        return any(map(saved_states, self._folders())) and not self.is_finished()

    def clear(self) -> None:
        """Removes the states and the model."""
        for place in self._folders():
            remove_states(place)
        remove_if_empty(self.folder / "checkpoints")
        remove_model(self.folder)

    def check(self) -> None:
        """Raises ValueError if something that this package did not write has a name that the runs need."""
        for seed in self.seeds:
            check_states(self.states(seed))
        check_model(self.folder, self.seeds)

    def _folders(self) -> list[Path]:
        return list(self.folder.glob("checkpoints/seed_[0-9]*"))


def claim_files(files: Sequence[Path], overwrite: bool, remedy: str) -> None:
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


def make_folder(folder: Path) -> None:
    """Creates a folder, and tries to write to it before hours of training rely on it.

    Raises:
      OSError: the folder cannot be created or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_table(table: "pd.DataFrame", path: Path, float_format: str | None = None) -> None:
    """Writes a table as CSV, atomically."""
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False, float_format=float_format))


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure to a path, and as SVG beside it, both atomically."""
    write_atomically(path, functools.partial(figure.savefig, dpi=150, metadata=METADATA.get(path.suffix)))
    write_atomically(path.with_suffix(".svg"), functools.partial(figure.savefig, metadata=METADATA[".svg"]))


def write_options(options: Mapping[str, Any], path: Path) -> None:
    """Writes options, which JSON can hold, to a file, atomically."""
    write_text(path, json.dumps({"format": FORMAT, **options}, indent=2) + "\n")


def read_options(path: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that `write_options` wrote, with tuples in place of lists.

    Args:
      path: of the file, which a stranger may have written.
      hints: the type of each option that may be in it.

    Raises:
      OSError: there is no such file.
      ValueError: it cannot be read, comes from a later version, or holds other options or other types.
    """
    found = read_json(path)
    check_format(found.pop("format", FORMAT), path)
    for name, value in found.items():
        if name not in hints:
            raise ValueError(f"{shown(name)} is not an option that is saved")
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {shown(value)}, which has the wrong type")
    return with_tuples(found)


def fits(value: object, hint: Any) -> bool:
    """Returns whether a value from a JSON file has the type of an option."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        each = inner[:1] * len(value) if inner[-1] is Ellipsis and isinstance(value, list) else inner
        return isinstance(value, list) and len(value) == len(each) and all(map(fits, value, each))
    if hint is Path:
        return isinstance(value, str)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)

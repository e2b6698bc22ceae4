"""What a sweep saves in its folder along the way, so that nothing is lost: plan, finished programs, the newest state.

A folder holds `results.nc` and `results.csv`, updated along the way, and until the sweep has ended, a folder
`progress` with what is needed to resume it. Every file is written atomically, and reading one executes nothing. Other
files in these folders stay as they are.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmnist.host.checkpoints import Checkpoints, check_states, remove_states
from jaxmnist.host.files import (
    FORMAT,
    check_folder,
    check_format,
    check_ours,
    is_ours,
    read_arrays,
    read_json,
    remove_if_empty,
    remove_temporary_files,
    write_arrays,
    write_text,
)
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.fingerprint import raise_if_different

if TYPE_CHECKING:
    import xarray as xr

FOLDER = "progress"
DIGITS = "[0-9]" * 6
Outcome = dict[str, np.ndarray]


class SweepFolder:
    """The folder of one sweep.

    Attributes:
      folder: where results and figures are saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._progress = folder / FOLDER
        self._file = self._progress / "sweep.json"

    def finished_result(self, description: dict) -> "xr.Dataset | None":
        """Returns the result in this folder if its sweep has ended, otherwise None.

        Raises:
          ValueError: it is the result of another sweep, or something that jaxmnist did not write.
        """
        from jaxmnist.analysis import files as result_files

        self.check()
        if self._file.is_file() or not (self.folder / result_files.FILE_NAME).is_file():
            return None
        result = result_files.load_results(self.folder)
        raise_if_different(f"the sweep in {self.folder}", result.attrs, description)
        return result

    def begin(self, description: dict, programs: list[planning.Program]) -> list[planning.Program]:
        """Returns the plan to follow: that of an interrupted sweep in this folder, or the given one, then saved.

        Args:
          description: what the sweep is, as numbers and strings.
          programs: the plan to use if none was saved.

        Raises:
          ValueError: the folder's sweep is another one, comes from a later version, or cannot be read; or a file that
            this package did not write has a name that the sweep needs.
        """
        from jaxmnist.analysis import files as result_files

        self.check()
        if not self._file.is_file():
            # A sweep that was killed while it cleaned up may have left files here.
            self.clear()
            self._progress.mkdir(parents=True, exist_ok=True)
            write_arrays(self._progress / "plan.npz", _pack(programs))
            # Written last: if this file exists, the plan is complete.
            write_text(self._file, json.dumps(description, indent=2) + "\n")
            return programs
        try:
            saved = read_json(self._file)
            check_format(saved.get("format", FORMAT), self._file)
            planned = _unpack(read_arrays((self._progress / "plan.npz").read_bytes(), "plan.npz"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"the sweep in {self.folder} cannot be read: {error}") from None
        raise_if_different(f"the sweep in {self.folder}", saved, description)
        if (self.folder / result_files.FILE_NAME).is_file():
            # A user may have saved the result of another sweep here in the meantime.
            raise_if_different(f"the sweep in {self.folder}", result_files.load_results(self.folder).attrs, description)
        if not planning.hold_the_same(planned, programs):
            raise ValueError(f"the sweep in {self.folder} cannot be read: its plan is not one of these runs")
        return planned

    def outcome(self, index: int, like: Mapping[str, tuple[int, ...]] | None = None) -> Outcome | None:
        """Returns the results of a program, or None if it has not ended or its file is damaged.

        Args:
          index: number of the program.
          like: the names and shapes that its results must have; None accepts any.
        """
        try:
            found = read_arrays((self._progress / f"{index:06d}.npz").read_bytes())
        except (OSError, ValueError):
            return None
        if like is not None and {name: array.shape for name, array in found.items()} != like:
            return None
        return found if all(array.dtype.kind == "f" for array in found.values()) else None

    def finish(self, index: int, outcome: Outcome) -> None:
        """Saves the results of a program that has ended, and removes its states."""
        write_arrays(self._progress / f"{index:06d}.npz", outcome)
        remove_states(self._states(index))

    def checkpoints(self, index: int) -> Checkpoints:
        """Returns where the states of a program are kept while it is running."""
        return Checkpoints(self._states(index))

    def has_states(self, index: int) -> bool:
        """Returns whether a program was interrupted after it had saved states."""
        return self._states(index).is_dir()

    def refresh(self, result: "xr.Dataset") -> None:
        """Writes the results so far; whoever has the old file open can still read it."""
        from jaxmnist.analysis import files as result_files

        result_files.write(result, self.folder)

    def end(self, result: "xr.Dataset") -> None:
        """Writes the result, and removes what was needed to resume the sweep."""
        from jaxmnist.analysis import files as result_files

        result_files.save(result, self.folder)
        self.clear()

    def check(self) -> None:
        """Raises ValueError if something that this package did not write has a name that a sweep needs."""
        from jaxmnist.analysis import files as result_files

        check_folder(self._progress)
        for path in (self.folder / result_files.FILE_NAME, self.folder / result_files.TABLE_NAME, *self._files()):
            check_ours(path)
        for folder in self._states_folders():
            check_states(folder)

    def clear(self) -> None:
        """Removes what is needed to resume a sweep."""
        for path in filter(is_ours, self._files()):
            path.unlink()
        for folder in self._states_folders():
            remove_states(folder)
        remove_temporary_files(self._progress)
        remove_if_empty(self._progress)

    def _files(self) -> list[Path]:
        """Returns the paths in `progress`, beginning with the file that marks a sweep as unfinished."""
        return [self._file, self._progress / "plan.npz", *self._progress.glob(f"{DIGITS}.npz")]

    def _states_folders(self) -> list[Path]:
        return list(self._progress.glob(f"states_{DIGITS}"))

    def _states(self, index: int) -> Path:
        return self._progress / f"states_{index:06d}"


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a sweep that has begun and not ended."""
    return is_ours(folder / FOLDER / "sweep.json")


def is_unfinished(folder: Path) -> bool:
    """Returns whether a folder holds a sweep that has saved something and not ended."""
    progress = folder / FOLDER
    saved = itertools.chain(progress.glob(f"{DIGITS}.npz"), progress.glob(f"states_{DIGITS}"))
    return is_begun(folder) and any(saved)


def _pack(programs: list[planning.Program]) -> Outcome:
    """Returns a plan as named arrays of numbers and strings, without objects."""
    packed = {"num_programs": np.array(len(programs))}
    for index, program in enumerate(programs):
        packed |= {f"{index}/{field}": np.asarray(value) for field, value in program._asdict().items()}
        packed[f"{index}/static"] = np.array(json.dumps(program.static))
    return packed


def _unpack(packed: Outcome) -> list[planning.Program]:
    programs = []
    for index in range(int(packed["num_programs"])):
        missing = [field for field in planning.Program._fields if f"{index}/{field}" not in packed]
        if missing:
            raise ValueError(f"plan.npz has no {missing[0]}; another version of jaxmnist began it")
        of = {field: packed[f"{index}/{field}"] for field in planning.Program._fields}
        static = tuple((name, value) for name, value in json.loads(str(of["static"])))
        sizes, at_once = tuple(map(int, of["padded_batch_sizes"])), int(of["at_once"])
        programs.append(planning.Program(sizes, at_once, of["batch_size"], of["seed"], of["rows"], static))
    return programs

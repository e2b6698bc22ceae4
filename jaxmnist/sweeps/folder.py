"""What a sweep saves in its folder along the way, so that nothing is lost: plan, finished programs, the newest state.

A folder holds `results.nc` and `results.csv`, updated along the way, and until the sweep has ended, a folder
`progress` with what is needed to resume it. Every file is written atomically, and reading one executes nothing. Other
files in these folders stay as they are.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
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
# The numbers of the programs whose results a file holds.
PROGRAMS = "programs"
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

    def outcomes(self, shapes: Callable[[int], Mapping[str, tuple[int, ...]]]) -> Iterator[tuple[int, Outcome]]:
        """Yields the number and the results of each program that has ended, except those in damaged files.

        Args:
          shapes: returns the names and shapes that the results of a program must have; KeyError for no such program.
        """
        for path in sorted(self._progress.glob(f"{DIGITS}.npz")):
            try:
                outcomes = _split(read_arrays(path.read_bytes()), shapes)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield from outcomes.items()

    def finish(self, finished: Mapping[int, Outcome]) -> None:
        """Saves the results of programs that have ended, by their numbers, in one file, and removes their states."""
        names = next(iter(finished.values()))
        joined = {name: np.concatenate([each[name].ravel() for each in finished.values()]) for name in names}
        write_arrays(self._progress / f"{min(finished):06d}.npz", {PROGRAMS: np.array([*finished])} | joined)
        for index in finished:
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


def _split(arrays: Outcome, shapes: Callable[[int], Mapping[str, tuple[int, ...]]]) -> dict[int, Outcome]:
    """Returns the results of the programs in a file; ValueError or KeyError if these are others than expected."""
    expected = {index: shapes(index) for index in arrays.pop(PROGRAMS).tolist()}
    outcomes: dict[int, Outcome] = {index: {} for index in expected}
    if set(arrays) != set(next(iter(expected.values()), ())):
        raise ValueError("it holds other results")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{name} holds other things than numbers")
        shapes_of_it = [each[name] for each in expected.values()]
        parts = _divide(array, np.array([math.prod(shape) for shape in shapes_of_it]))
        for outcome, part, shape in zip(outcomes.values(), parts, shapes_of_it, strict=True):
            outcome[name] = part.reshape(shape)
    return outcomes


def _pack(programs: list[planning.Program]) -> Outcome:
    """Returns a plan as named arrays of numbers and strings, without objects, each with the values of all programs."""
    numbers = [field for field in planning.Program._fields if field != "static"]
    packed = {field: np.concatenate([np.ravel(getattr(each, field)) for each in programs]) for field in numbers}
    return packed | {
        "static": np.array([json.dumps(program.static) for program in programs]),
        "num_sizes": np.array([len(program.padded_batch_sizes) for program in programs]),
        "num_groups": np.array([len(program.rows) for program in programs]),
        "num_runs": np.array([program.rows.size for program in programs]),
    }


def _unpack(packed: Outcome) -> list[planning.Program]:
    lengths = dict(padded_batch_sizes="num_sizes", batch_size="num_groups", seed="num_groups", rows="num_runs")
    missing = [name for name in (*planning.Program._fields, *lengths.values()) if name not in packed]
    if missing:
        raise ValueError(f"plan.npz has no {missing[0]}; another version of jaxmnist began it")
    parts = {name: _divide(packed[name], packed[length]) for name, length in lengths.items()}
    sizes = [tuple(part.tolist()) for part in parts["padded_batch_sizes"]]
    rows = [part.reshape(number, -1) for part, number in zip(parts["rows"], packed["num_groups"], strict=True)]
    static = [tuple((name, value) for name, value in json.loads(text)) for text in packed["static"].tolist()]
    at_once = packed["at_once"].tolist()
    columns = zip(sizes, at_once, parts["batch_size"], parts["seed"], rows, static, strict=True)
    return [planning.Program(*values) for values in columns]


def _divide(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Returns parts of some lengths; ValueError if these are not lengths, or not together that of the values."""
    ends = np.cumsum(lengths)
    if not ends.size or values.ndim != 1 or ends[-1] != len(values) or (lengths < 1).any():
        raise ValueError(f"{len(ends)} parts do not make up an array of shape {values.shape}")
    return np.split(values, ends[:-1])

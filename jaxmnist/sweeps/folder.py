"""What a sweep saves in its folder along the way, so that nothing is lost: plan, finished programs, the newest state.

A folder holds `results.nc` and `results.csv`, updated along the way, and until the sweep has ended, a folder
`progress` with what is needed to resume it. A folder `states` keeps the states that its runs have reached, if that is
wanted, so that they can be trained for more steps. Every file is written atomically, and reading one executes nothing.
Other files in these folders stay as they are.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmnist.host.checkpoints import Checkpoints, check_states, remove_states, saved_states
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
from jaxmnist.sweeps.fingerprint import COMPUTATION, LENGTH, RUNS, difference, raise_if_different, without
from jaxmnist.sweeps.plan_files import PLAN, Outcome, join_outcomes, pack_plan, split_outcomes, unpack_plan
from jaxmnist.values import as_scalar

if TYPE_CHECKING:
    import xarray as xr

FOLDER, KEPT = "progress", "states"
DIGITS = "[0-9]" * 6


class Held(NamedTuple):
    """What a folder holds of a sweep.

    Attributes:
      description: what the sweep is, as numbers and strings.
      runs: name to `[K]` values of its runs.
      planned: name to the values of the runs that the programs are of.
      programs: those of an unfinished sweep, or those whose states are kept; their rows are places among `planned`.
      result: the results of the runs that have ended; None if no run has.
      is_finished: whether the sweep has ended.
    """

    description: dict
    runs: dict[str, np.ndarray]
    planned: dict[str, np.ndarray]
    programs: list[planning.Program]
    result: "xr.Dataset | None"
    is_finished: bool

    @property
    def num_steps(self) -> int:
        """Steps for which its runs train."""
        return int(self.description["num_steps"])

    def result_of(self, description: dict) -> "xr.Dataset | None":
        """Returns the result if the sweep has ended and is the one that is described, otherwise None."""
        is_same = self.is_finished and difference(self.description, description) is None
        return self.result if is_same else None


class SweepFolder:
    """The folder of one sweep.

    Attributes:
      folder: where results and figures are saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._progress = folder / FOLDER
        self._kept = folder / KEPT
        self._file = self._progress / "sweep.json"

    def held(self) -> Held | None:
        """Returns what this folder holds of a sweep, or None if it holds none.

        Raises:
          ValueError: it cannot be read or comes from a later version, or a file that this package did not write has a
            name that the sweep needs.
        """
        from jaxmnist.analysis import files as result_files
        from jaxmnist.analysis import results

        self.check()
        has_result = (self.folder / result_files.FILE_NAME).is_file()
        result = result_files.load_results(self.folder) if has_result else None
        if not self._file.is_file():
            if result is None:
                return None
            attrs = {name: as_scalar(value) for name, value in result.attrs.items() if name != "axes"}
            return Held(attrs, results.runs(result), *self._kept_plan(), result, "finished" not in result)
        try:
            saved = read_json(self._file)
            check_format(saved.get("format", FORMAT), self._file)
            int(saved["num_steps"])
            runs, programs = unpack_plan(read_arrays((self._progress / PLAN).read_bytes(), PLAN))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"the sweep in {self.folder} cannot be read: {error}") from None
        if result is not None:
            # A user may have saved the result of another sweep here in the meantime.
            ignored = RUNS | LENGTH | {COMPUTATION}
            what = f"the result beside the unfinished sweep in {self.folder}"
            raise_if_different(what, without(ignored, result.attrs), without(ignored, saved))
        return Held(saved, runs, runs, programs, result, False)

    def begin(self, description: dict, runs: Mapping[str, np.ndarray], programs: list[planning.Program]) -> None:
        """Saves what is needed to resume a sweep.

        Args:
          description: what the sweep is, as numbers and strings.
          runs: name to `[R]` values.
          programs: its plan, beginning with the programs that the folder holds of it.
        """
        if not self._file.is_file():
            # A sweep that was killed while it cleaned up may have left files here.
            self._clear_progress()
        self._progress.mkdir(parents=True, exist_ok=True)
        write_arrays(self._progress / PLAN, pack_plan(runs, programs))
        # Written last: if this file exists, the plan is complete.
        write_text(self._file, json.dumps(description, indent=2) + "\n")

    def keep(self, runs: Mapping[str, np.ndarray], programs: list[planning.Program]) -> None:
        """Prepares the folder to keep the states that the runs of these programs reach."""
        self._kept.mkdir(parents=True, exist_ok=True)
        write_arrays(self._kept / PLAN, pack_plan(runs, programs))

    def forget(self) -> None:
        """Removes the states that were kept."""
        for folder in self._kept.glob(DIGITS):
            remove_states(folder)
        if is_ours(self._kept / PLAN):
            (self._kept / PLAN).unlink()
        remove_temporary_files(self._kept)
        remove_if_empty(self._kept)

    def _kept_plan(self) -> tuple[dict[str, np.ndarray], list[planning.Program]]:
        """Returns the runs whose states are kept, and their programs."""
        if not any(map(saved_states, self._kept.glob(DIGITS))):
            return {}, []
        try:
            return unpack_plan(read_arrays((self._kept / PLAN).read_bytes(), PLAN))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"the states in {self._kept} cannot be read: {error}; remove that folder to go on without them"
            ) from None

    def outcomes(self, shapes: Callable[[int], Mapping[str, tuple[int, ...]]]) -> Iterator[tuple[int, Outcome]]:
        """Yields the number and the results of each program that has ended, except those in damaged files.

        Args:
          shapes: returns the names and shapes that the results of a program must have; KeyError for no such program.
        """
        for path in sorted(self._progress.glob(f"{DIGITS}.npz")):
            try:
                outcomes = split_outcomes(read_arrays(path.read_bytes()), shapes)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield from outcomes.items()

    def finish(self, finished: Mapping[int, Outcome]) -> None:
        """Saves the results of programs that have ended, by their numbers, in one file, and removes their states."""
        write_arrays(self._progress / f"{min(finished):06d}.npz", join_outcomes(finished))
        for index in finished:
            remove_states(self._states(index))

    def checkpoints(self, index: int) -> Checkpoints:
        """Returns where the states of a program are kept while it is running."""
        return Checkpoints(self._states(index))

    def kept(self, index: int) -> Checkpoints:
        """Returns where the states are kept that the runs of a program have reached at its end."""
        return Checkpoints(self._kept / f"{index:06d}")

    def refresh(self, result: "xr.Dataset") -> None:
        """Writes the results so far; whoever has the old file open can still read it."""
        from jaxmnist.analysis import files as result_files

        result_files.write(result, self.folder)

    def end(self, result: "xr.Dataset") -> None:
        """Writes the result, and removes what was needed to resume the sweep."""
        from jaxmnist.analysis import files as result_files

        result_files.save(result, self.folder)
        self._clear_progress()

    def check(self) -> None:
        """Raises ValueError if something that this package did not write has a name that a sweep needs."""
        from jaxmnist.analysis import files as result_files

        for place in (self._progress, self._kept):
            check_folder(place)
        results = (self.folder / result_files.FILE_NAME, self.folder / result_files.TABLE_NAME)
        for path in (*results, self._kept / PLAN, *self._files()):
            check_ours(path)
        for folder in (*self._states_folders(), *self._kept.glob(DIGITS)):
            check_states(folder)

    def clear(self) -> None:
        """Removes what is needed to resume a sweep, and the states that were kept."""
        self._clear_progress()
        self.forget()

    def _clear_progress(self) -> None:
        for path in filter(is_ours, self._files()):
            path.unlink()
        for folder in self._states_folders():
            remove_states(folder)
        remove_temporary_files(self._progress)
        remove_if_empty(self._progress)

    def _files(self) -> list[Path]:
        """Returns the paths in `progress`, beginning with the file that marks a sweep as unfinished."""
        return [self._file, self._progress / PLAN, *self._progress.glob(f"{DIGITS}.npz")]

    def _states_folders(self) -> list[Path]:
        return list(self._progress.glob(f"states_{DIGITS}"))

    def _states(self, index: int) -> Path:
        return self._progress / f"states_{index:06d}"


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a sweep that has begun and not ended."""
    return is_ours(folder / FOLDER / "sweep.json")


def has_kept_states(folder: Path) -> bool:
    """Returns whether a folder holds the states that runs have reached."""
    return is_ours(folder / KEPT / PLAN)


def is_unfinished(folder: Path) -> bool:
    """Returns whether a folder holds a sweep that has saved something and not ended."""
    progress = folder / FOLDER
    saved = itertools.chain(progress.glob(f"{DIGITS}.npz"), progress.glob(f"states_{DIGITS}"))
    return is_begun(folder) and any(saved)

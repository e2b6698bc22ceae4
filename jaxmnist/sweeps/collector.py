"""The results of a sweep as its programs end, and how far the others are.

Shapes: R runs.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxmnist.sweeps import planning
from jaxmnist.sweeps.folder import Outcome, SweepFolder
from jaxmnist.sweeps.growth import PLAN, Begun
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.running import TRAINING_SHARE, outcome_shapes

if TYPE_CHECKING:
    import xarray as xr

SECONDS_PER_REFRESH = 10.0
# The share of the time that may go into bringing the file of results up to date.
REFRESH_SHARE = 0.02


class ResultCollector:
    """The results of the programs that have ended, and how far the others are.

    Attributes:
      begun: the sweep, or the shard of one.
      folder: where it is saved; None if it is not.
      total_work: the work of all programs, in examples.
    """

    def __init__(self, begun: Begun, folder: SweepFolder | None = None):
        self.begun, self.folder = begun, folder
        self._values, self._finished = dict(begun.known), begun.finished.copy()
        self._work = [begun.job.num_steps * planning.useful_examples(program) for program in begun.programs]
        self.total_work = sum(self._work)
        self._work_done = 0.0
        # The sweep's runs, or its shard's.
        planned = [program.rows.ravel() for program in begun.programs]
        self._rows = np.unique(np.concatenate([*planned, np.flatnonzero(begun.finished)]))
        self._next_refresh = time.monotonic() + SECONDS_PER_REFRESH

    def waiting(self) -> list[tuple[int, planning.Program]]:
        """Returns the programs that have not ended, with their numbers; takes the results of the others."""
        waiting = []
        for index, program in enumerate(self.begun.programs):
            if self._finished[program.rows].all():
                self._work_done += self._work[index]
                continue
            shapes = outcome_shapes(self.begun.job, program)
            outcome = self.folder.outcome(index, shapes) if self.folder is not None else None
            if outcome is None:
                waiting.append((index, program))
            else:
                self.add(index, outcome)
        return waiting

    def add(self, index: int, outcome: Outcome) -> None:
        """Takes the results of a program that has ended; brings the folder's file up to date now and then."""
        rows = self.begun.programs[index].rows
        for name, program_values in outcome.items():
            shape = (len(self._finished), *program_values.shape[2:])
            self._values.setdefault(name, np.full(shape, np.nan, program_values.dtype))[rows] = program_values
        self._finished[rows] = True
        self._work_done += self._work[index]
        begin = time.monotonic()
        if self.folder is not None and begin > self._next_refresh and self._work_done < self.total_work:
            self.folder.refresh(self.result())
            end = time.monotonic()
            self._next_refresh = end + max(SECONDS_PER_REFRESH, (end - begin) / REFRESH_SHARE)

    def curves(self, program: planning.Program) -> Outcome:
        """Returns what is known of the curves of a program's runs, name to `[G, P, E]`."""
        return {name: self._values[name][program.rows] for name in self._values if name.startswith("recorded_")}

    def reporter(self, show) -> Callable[..., None]:
        """Returns a function that shows how far the sweep is, given how far the running program is."""

        def report(index: int | None = None, step: int = 0) -> None:
            num_programs, num_steps = len(self.begun.programs), self.begun.job.num_steps
            text = f"{self._finished.sum()}/{len(self._rows)} runs"
            running = 0.0
            if index is not None:
                text += f", program {index + 1}/{num_programs}, step {step}/{num_steps}"
                running = TRAINING_SHARE * self._work[index] * step / num_steps
            show(self._work_done + running, text, self.result if index is None and self._finished.any() else None)

        return report

    def result(self) -> "xr.Dataset":
        """Returns the labelled results; those of runs that have not ended are nan, and `finished` says which."""
        return self._labelled(self._rows, self.begun.description)

    def result_of(self, job: Job, description: dict) -> "xr.Dataset":
        """Returns the results of a job whose runs are the first ones of the sweep."""
        own = {name: value for name, value in description.items() if name not in PLAN}
        return self._labelled(np.arange(len(job.arrays["seed"])), own, tuple(job.arrays))

    def _labelled(self, rows: np.ndarray, description: dict, names: tuple[str, ...] = ()) -> "xr.Dataset":
        from jaxmnist.analysis import results

        job, values = self.begun.job, dict(self._values)
        if not self._finished[rows].all():
            values["finished"] = self._finished
        recorded_steps = planning.recorded_steps(job.num_steps, job.num_evaluations)
        arrays = {name: job.arrays[name][rows] for name in names or job.arrays}
        values = {name: column[rows] for name, column in values.items()}
        return results.label(arrays, values, recorded_steps, description, rows if "shard" in description else None)

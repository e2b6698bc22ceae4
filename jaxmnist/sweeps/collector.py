"""The results of a sweep as its programs end, and how far the others are.

Shapes: R runs.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from jaxmnist.host.progress import Pace
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.fingerprint import PLAN, without
from jaxmnist.sweeps.folder import Outcome, SweepFolder
from jaxmnist.sweeps.growth import Begun
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.running import TRAINING_SHARE, outcome_shapes

if TYPE_CHECKING:
    import xarray as xr

SECONDS_PER_REFRESH = 10.0


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
        self._refresh = Pace(SECONDS_PER_REFRESH)

    def waiting(self) -> list[tuple[int, planning.Program]]:
        """Returns the programs that have not ended, with their numbers; takes the results of the others."""
        job, programs = self.begun.job, dict(enumerate(self.begun.programs))
        waiting = {index: program for index, program in programs.items() if not self._finished[program.rows].all()}
        self._work_done += sum(self._work[index] for index in programs if index not in waiting)
        if self.folder is not None:
            for index, outcome in self.folder.outcomes(lambda index: outcome_shapes(job, programs[index])):
                if waiting.pop(index, None) is not None:
                    self._take(index, outcome)
        return list(waiting.items())

    def add(self, finished: Mapping[int, Outcome]) -> None:
        """Takes and saves results of programs; brings the folder's file up to date now and then."""
        if self.folder is not None:
            self.folder.finish(finished)
        for index, outcome in finished.items():
            self._take(index, outcome)
        if self.folder is not None and self._refresh.is_due() and self._work_done < self.total_work:
            with self._refresh.measured():
                self.folder.refresh(self.result())

    def _take(self, index: int, outcome: Outcome) -> None:
        rows = self.begun.programs[index].rows
        for name, program_values in outcome.items():
            if name not in self._values:
                shape = (len(self._finished), *program_values.shape[2:])
                self._values[name] = np.full(shape, np.nan, program_values.dtype)
            self._values[name][rows] = program_values
        self._finished[rows] = True
        self._work_done += self._work[index]

    def curves(self, program: planning.Program) -> Outcome:
        """Returns what is known of the curves of a program's runs, name to `[G, P, E]`."""
        return {name: self._values[name][program.rows] for name in self._values if name.startswith("recorded_")}

    def reporter(self, show) -> Callable[..., None]:
        """Returns a function that shows how far the sweep is, given the step that each running program has reached.

        Where they run can be given in words; without these, at most one program is running, here.
        """
        num_programs, num_steps = len(self.begun.programs), self.begun.job.num_steps

        def report(steps: Mapping[int, int] = MappingProxyType({}), where: str = "") -> None:
            text = f"{self._finished.sum()}/{len(self._rows)} runs"
            for index, step in steps.items() if not where else ():
                text += f", program {index + 1}/{num_programs}, step {step}/{num_steps}"
            running = sum(self._work[index] * step for index, step in steps.items()) / num_steps
            has_news = self._finished.any() and (where or not steps)
            text += f", {where}" if where else ""
            show(self._work_done + TRAINING_SHARE * running, text, self.result if has_news else None)

        return report

    def result(self) -> "xr.Dataset":
        """Returns the labelled results; those of runs that have not ended are nan, and `finished` says which."""
        arrays = {name: column[self._rows] for name, column in self.begun.job.arrays.items()}
        return self._labelled(self._rows, self.begun.description, arrays)

    def result_of(self, job: Job, description: dict) -> "xr.Dataset":
        """Returns the results of a job whose runs are the first ones of the sweep."""
        return self._labelled(np.arange(len(job.arrays["seed"])), without(PLAN, description), job.arrays)

    def _labelled(self, rows: np.ndarray, description: dict, arrays: Mapping[str, np.ndarray]) -> "xr.Dataset":
        from jaxmnist.analysis import results

        job, values = self.begun.job, dict(self._values)
        if not self._finished[rows].all():
            values["finished"] = self._finished
        recorded_steps = planning.recorded_steps(job.num_steps, job.num_evaluations)
        values = {name: column[rows] for name, column in values.items()}
        return results.label(
            arrays, values, recorded_steps, description, {"row": rows} if "shard" in description else None
        )

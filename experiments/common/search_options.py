"""The options of a search in rounds, of which experiments/sweep_grid.py has those of a sweep besides."""

import dataclasses
from typing import Annotated, Literal

import tyro

import jaxmnist as jm

from .options import TrainingOptions, check_whole

DEFAULT_ROUNDS, DEFAULT_BATCH = 10, 64
MOST = {"num_rounds": jm.limits.MAX_ROUNDS, "batch": jm.limits.MAX_BATCH}


@dataclasses.dataclass(frozen=True)
class SearchOptions(TrainingOptions):
    search: Literal["random", "sobol", "optuna"] | None = None
    """Search in rounds instead of the grid, for learning rates and batch sizes as for --num-samples: by random numbers,
    a Sobol sequence, or Optuna's TPE (needs the extra search), which is told mean validation accuracies."""
    num_rounds: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """For --search: the number of rounds, by default 10. With more of them, a search that has ended goes on."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """For --search: the number of settings in each round, by default 64."""

    def rounds(self) -> dict:
        """Returns the numbers of rounds and of settings in each."""
        return dict(
            num_rounds=DEFAULT_ROUNDS if self.num_rounds is None else self.num_rounds,
            batch=DEFAULT_BATCH if self.batch is None else self.batch,
        )

    def check_search(self) -> None:
        """Raises ValueError if an option of a search makes no sense."""
        for name, value in self.rounds().items():
            if self.search is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is {value}, but only --search uses it")
            check_whole(name, value, 1, MOST[name])

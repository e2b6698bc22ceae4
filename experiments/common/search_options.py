"""The options of a search in rounds, of which experiments/sweep_grid.py has those of a sweep besides."""

import dataclasses
from typing import Annotated, Literal

import tyro

import jaxmnist as jm

from .options import check_whole
from .space_options import SpaceOptions

DEFAULT_ROUNDS, DEFAULT_BATCH = 10, 64
MOST = {"num_rounds": jm.limits.MAX_ROUNDS, "batch": jm.limits.MAX_BATCH}


@dataclasses.dataclass(frozen=True)
class SearchOptions(SpaceOptions):
    search: Literal["random", "sobol", "optuna"] | None = None
    """Search in rounds instead of the grid, through what --sample names: by random numbers, a Sobol sequence, or
    Optuna's TPE (needs the extra search), which is told means over seeds of the metric --by, on validation."""
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
        if self.search is not None and not self.sample:
            raise ValueError(
                f"search is {self.search!r}, and needs --sample, the space to search, such as "
                "--sample learning_rate=log:1e-3:1 batch_size=16,32,64"
            )

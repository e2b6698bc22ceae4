"""The options of experiments/sweep_grid.py, and which of them go together."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import jaxmnist as jm

from .options import check_whole, memory_bytes, seeds
from .search_options import SearchOptions
from .space_options import check_target, listed

SAMPLE_SEED = 0


@dataclasses.dataclass(frozen=True)
class Options(SearchOptions):
    num_seeds: int = 8
    """Runs per setting, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 100
    """Training steps of every run."""
    num_evaluations: int = 1
    """Number of evaluations on validation along training; with 1, only at the end."""
    target: Annotated[float | None, tyro.conf.arg(metavar="FRACTION")] = None
    """Validation accuracy, or value of another metric --by, to which steps are counted, if --num-evaluations is above
    1. By default the highest multiple of half a point that every batch size reaches."""
    noise_scale: bool = False
    """Measure the gradient noise scale along the training of the chosen setting; needs --num-evaluations above 1."""
    widen: bool = False
    """Afterwards, as long as the best setting lies on an edge of the grid, sweep further values beyond it, at most four
    times."""
    refine: bool = False
    """Afterwards sweep a finer grid around the best setting, into the subfolder refined of the output folder."""
    keep_states: bool = False
    """Keep the states that all runs have reached, in the subfolder states, so that the same command with a larger
    --num-steps goes on from there; --dry-run says how large they are."""
    halving: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Prune: at each rung keep one in this many settings, those with the best mean validation accuracy over seeds."""
    hyperband: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """As --halving, in three brackets of settings: one prunes twice, one later and once, and one never."""
    rungs: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="STEPS...")] = None
    """For --halving: the steps after which to prune. By default num_steps / halving^2 and num_steps / halving."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GIB")] = None
    """GiB that data, states and intermediate results may take. By default the smaller of 3 and half of the free
    memory."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Train on the Ray cluster with this address; without an address, start one on this machine (needs the extra
    distributed)."""
    ray_resources: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME=NUMBER...")] = None
    """What each task of Ray asks of a node, such as CPU=4 GPU=1. By default the devices of a node, so that nodes with
    GPUs and nodes without train beside each other."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Train part I of N of the sweep. All parts can have the same output folder, at the same time: each has a subfolder
    of its own there, and the last one to end writes the results of all."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/sweep_grid")
    """Folder for results and figures."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and the estimated time, and stop."""
    json: bool = False
    """Print one report as JSON, for other programs, and everything else on standard error."""
    pretty: bool = False
    """The finer setting: batch sizes 8, 16, ..., 512, 17 learning rates from 1e-3 to 10, 4 seeds, 500 steps."""

    def runs(self) -> dict:
        """Returns the runs of the grid, of the random search, or as many as a search trains, drawn at random."""
        each_seed = seeds(self.num_seeds)
        if not self.sample:
            return jm.grid(**self.grid_axes(), seed=each_seed)
        num_settings = self.sample_size() if self.search is None else math.prod(self.rounds().values())
        return jm.with_seeds(jm.sample(num_settings, SAMPLE_SEED, **self.space()), each_seed)

    @property
    def prunes(self) -> bool:
        """Whether settings are pruned along training."""
        return self.halving is not None or self.hyperband is not None

    def part(self) -> tuple[int, int] | None:
        """Returns the shard as two numbers."""
        if self.shard is None:
            return None
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"shard is {self.shard!r}; I/N, such as 3/16, with I from 1 to N is needed")
        return int(found[1]), int(found[2])

    def resources(self) -> dict[str, float] | None:
        """Returns what each task of Ray asks of a node."""
        if self.ray_resources is None:
            return None
        found = {}
        for text in self.ray_resources:
            name, _, amount = text.partition("=")
            try:
                found[name] = float(amount)
            except ValueError:
                raise ValueError(f"ray_resources has {text!r}; NAME=NUMBER, such as CPU=4, is needed") from None
        return found

    def budget(self) -> dict:
        """Returns the numbers of steps and evaluations."""
        return dict(num_steps=self.num_steps, num_evaluations=self.num_evaluations)

    def grows_from(self, begun: Any) -> set[str]:
        """Returns the options by which the sweep that was begun grows: more values, more seeds, more steps."""
        if self.prunes:
            return set()
        if self.search is not None:
            is_longer = begun.rounds()["num_rounds"] <= self.rounds()["num_rounds"]
            return {"target", "memory", "ray"} | ({"num_rounds"} if is_longer else set())
        grown = self.grown_axes(begun)
        if begun.num_seeds <= self.num_seeds:
            grown.add("num_seeds")
        if begun.keep_states and begun.num_steps <= self.num_steps and self.num_evaluations == 1:
            grown.add("num_steps")
        # These come after the sweep, and leave its runs as they are.
        return grown | {"widen", "refine", "keep_states", "target", "noise_scale", "by", "memory", "ray"}

    def is_grid(self) -> bool:
        """Returns whether the sweep is one of a whole grid."""
        return not self.sample and self.shard is None

    def check(self) -> None:
        """Raises ValueError if an option by itself, or two together, make no sense."""
        part = self.part()
        if self.ray is None and self.ray_resources is not None:
            raise ValueError(f"ray_resources are {self.ray_resources}, but only the tasks of --ray ask for them")
        jm.check_cluster(self.ray, self.resources())
        memory_bytes(self.memory)
        self.check_space()
        if {"init_seed", "order_seed"} <= {*self.space()} and self.num_seeds > 1:
            raise ValueError(
                f"num_seeds is {self.num_seeds}, but init_seed and order_seed leave it nothing to decide; "
                "give --num-seeds 1"
            )
        self.check_search()
        for name in ("num_samples", "halving", "hyperband", "shard", "keep_states"):
            if self.search is not None and getattr(self, name):
                raise ValueError(f"search goes without {name}: each of its rounds is a whole sweep of its own settings")
        if self.prunes:
            name = "halving" if self.hyperband is None else "hyperband"
            if self.num_evaluations != 1 or part is not None:
                raise ValueError(f"{name} goes with neither num_evaluations nor shard: its rungs evaluate all runs")
            check_whole(name, getattr(self, name), 2)
        if self.hyperband is not None and self.halving is not None:
            raise ValueError("hyperband goes without halving: its brackets are halvings")
        if self.hyperband is not None and self.hyperband**2 > self.num_steps:
            raise ValueError(
                f"hyperband is {self.hyperband}; its first rung is at num_steps / hyperband^2, before step 1"
            )
        if self.halving is not None:
            jm.check_rungs(self.num_steps, self.rungs)
        elif self.rungs is not None:
            raise ValueError(f"rungs are {self.rungs}, but only --halving uses them")
        if self.target is not None:
            check_target(self.target, self.has_accuracy())
        self.check_afterwards()
        if self.overwrite and part is not None:
            raise ValueError("overwrite goes without shard, since other shards may be writing into the same folder")
        if self.widen and self.prunes:
            raise ValueError("widen goes with neither halving nor hyperband, whose rungs begin with all runs")
        if self.keep_states and (self.prunes or self.ray is not None):
            raise ValueError("keep_states goes with neither halving, hyperband nor ray, whose runs end elsewhere")

    def check_afterwards(self) -> None:
        """Raises ValueError if what comes after the sweep does not go with it."""
        if self.noise_scale and (self.num_evaluations == 1 or not self.is_grid() or self.axes):
            raise ValueError(
                "noise_scale needs a whole grid without --axes, and num_evaluations above 1, since it is measured there"
            )
        if self.prunes and self.by == "loss" and self.loss == "cross_entropy":
            raise ValueError("by is 'loss', which goes with neither halving nor hyperband: they keep the most accurate")
        for name in ("widen", "refine"):
            if not getattr(self, name):
                continue
            if not self.is_grid():
                raise ValueError(f"{name} needs a whole grid; it goes with neither sample nor search nor shard")
            for axis, values in self.grid_axes().items():
                if not all(type(value) in (int, float) for value in listed(values)):
                    raise ValueError(f"{name} needs axes of numbers, between which there are others, not {axis}")


PRETTY = dict(
    learning_rates=tuple(float(f"{rate:.4g}") for rate in np.geomspace(1e-3, 10, 17)),
    batch_sizes=tuple(range(8, 513, 8)),
    num_seeds=4,
    num_steps=500,
)

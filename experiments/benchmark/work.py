"""The options of the benchmark, its large sweep, and what has been measured."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import common
import jax
import numpy as np
import tyro

import jaxmnist as jm

from . import report

LARGE_STEPS = 200


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    num_rounds: int = 3
    """Warm rounds of each measurement; without --full, the large sweep and whole processes have only 1."""
    full: bool = False
    """Also measure what takes minutes: all rounds, flax's example, torch.compile, CNNs under one vmap and in the layers
    of other libraries, memory, costs of up to 65,536 runs, and halving."""
    costs: bool = False
    """Measure in place of all that how time and memory grow with runs, batch size, parameters and cores; about 4
    minutes."""
    small: bool = False
    """Do so little work that nothing is really measured, to see that everything runs."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/benchmark")
    """Folder for benchmark.json and benchmark.png."""
    overwrite: bool = False
    """Replace an earlier measurement in the output folder."""
    keep: bool = False
    """Keep the measurement as this machine's, in experiments/benchmark/results."""


class Measured:
    """What has been measured so far: rows of times, and single numbers by name."""

    def __init__(self) -> None:
        self.rows: list[report.Row] = []
        self.numbers: dict[str, float] = {}

    def compare(self, work: str, calls: Mapping[str, Callable[[], object]], rounds: int, scale=None) -> None:
        """Times calls in turn, divides by their `scale`, and prints the table."""
        scale = scale or {}
        first = {name: seconds(call) for name, call in calls.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(seconds(call) / scale.get(name, 1))
        rows = [report.Row(work, name, times[name], first[name]) for name in calls]
        report.print_table(rows)
        self.rows += rows

    def note(self, name: str, value: float, unit: str) -> None:
        """Prints a number and keeps it."""
        print(f"  {name}: {value:.3g} {unit}")
        self.numbers[f"{name} ({unit})"] = value


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes, until the last of its arrays is computed."""
    start = time.perf_counter()
    arrays = [leaf for leaf in jax.tree.leaves(call()) if isinstance(leaf, jax.Array)]
    jax.block_until_ready(arrays)
    return time.perf_counter() - start


def large_runs(small: bool) -> tuple[dict, int]:
    """Returns 2,048 runs and their number of steps."""
    num_learning_rates, num_seeds, num_steps = (4, 2, 20) if small else (32, 4, LARGE_STEPS)
    batch_sizes = np.unique(np.geomspace(8, 512, 4 if small else 16).round().astype(int))
    learning_rates = np.geomspace(1e-3, 1, num_learning_rates)
    return jm.grid(learning_rate=learning_rates, batch_size=batch_sizes, seed=range(num_seeds)), num_steps

"""Sweeps learning rate x batch size, as one compiled program where it fits, and draws the map of accuracies.

Writes results.nc and results.csv (every run), heatmap.png (validation) and scatter.png (test, as the original notebook
drew it). Settings are chosen on the validation split; test figures choose nothing. A sweep that was interrupted, at
whatever moment, goes on with --resume to the same numbers.
"""

import dataclasses
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import common
import numpy as np
import tyro

import jaxmnist as jm
from jaxmnist import sweep_folder
from jaxmnist.cluster import check_installed
from jaxmnist.halving import check_rungs

NUM_SHOWN = 5
SAMPLE_SEED = 0
FILES = ("results.nc", "results.csv", "heatmap.png", "scatter.png")


@dataclasses.dataclass(frozen=True)
class Options(common.TrainingOptions):
    learning_rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Learning rates of the grid."""
    batch_sizes: tuple[int, ...] = (20, 40, 60, 80)
    """Batch sizes of the grid, in examples."""
    num_samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Random search in place of the grid: this many settings, their learning rates log-uniform between the smallest one
    above 0 and the largest of --learning-rates, their batch sizes among --batch-sizes."""
    num_seeds: int = 8
    """Runs per setting, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 100
    """Training steps of every run."""
    num_evaluations: int = 1
    """How often along training to evaluate on validation; 1 is at the end alone."""
    halving: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Prune: at each rung keep the best one in this many settings, by mean validation accuracy over their seeds."""
    rungs: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="STEPS...")] = None
    """For --halving: the steps after which to prune. Without it: num_steps / halving^2 and num_steps / halving."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GIB")] = None
    """GiB that data, states and what is computed may take. Without it: the smaller of 3 and half of what is free."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Train on a Ray cluster: its address, or nothing to start one on this machine (needs the extra distributed)."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Train the I-th of N parts of the sweep, into a folder of its own; jaxmnist.merge unites their results.nc."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/sweep_grid")
    """Folder for results and figures."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and estimated time, and stop."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an interrupted sweep: go on with it, by the options saved there."""
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an earlier sweep: draw its figures again from its results.nc, without training."""
    pretty: bool = False
    """The finer setting: batch sizes 8, 16, ..., 512, 17 learning rates from 1e-3 to 10, 4 seeds, 500 steps."""

    def runs(self) -> dict:
        """Returns the runs of the grid, or of the random search."""
        seeds = common.seeds(self.num_seeds)
        if self.num_samples is None:
            return jm.grid(
                learning_rate=self.learning_rates, batch_size=self.batch_sizes, seed=seeds, **self.further_axes()
            )
        jm.grid(learning_rate=self.learning_rates, batch_size=self.batch_sizes)  # the same rules for their values
        positive = [rate for rate in self.learning_rates if rate > 0]
        if len(positive) < 2:
            raise ValueError(f"learning_rates are {self.learning_rates}; num_samples needs two above 0, as bounds")
        between = jm.loguniform(min(positive), max(positive))
        axes: dict = {"learning_rate": between, "batch_size": self.batch_sizes, **self.further_axes()}
        return jm.with_seeds(jm.sample(self.num_samples, SAMPLE_SEED, **axes), seeds)

    def part(self) -> tuple[int, int] | None:
        """Returns the shard as two numbers."""
        if self.shard is None:
            return None
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"shard is {self.shard!r}; it is I/N, such as 3/16, with I from 1 to N")
        return int(found[1]), int(found[2])


PRETTY = dict(
    learning_rates=tuple(float(f"{rate:.4g}") for rate in np.geomspace(1e-3, 10, 17)),
    batch_sizes=tuple(range(8, 513, 8)),
    num_seeds=4,
    num_steps=500,
)


def main() -> None:
    give_ray_an_address()
    options = common.parse(Options, __doc__, PRETTY)
    with common.usage_errors():
        if options.plot_only is not None:
            draw(options.plot_only)
            return
        if options.resume is not None and is_finished(options.output_dir):
            report(jm.load_results(options.output_dir))
            return
        check(options)
        runs = options.runs()
        if not options.dry_run:
            common.make_output_dir(options.output_dir, FILES)
        dataset = options.load()
        model, optimizer = options.build(dataset)
        jm.check(model, optimizer, runs, dataset, options.num_steps, options.num_evaluations)
        arguments: dict = dict(num_steps=options.num_steps, memory=options.memory and options.memory * 2**30)
        if options.dry_run:
            print(jm.estimate(model, optimizer, runs, dataset, **arguments, num_evaluations=options.num_evaluations))
            return
        if options.resume is None:
            begin_folder(options, dataset)
    if options.halving is not None:
        arguments |= dict(factor=options.halving, rungs=options.rungs)
    else:
        arguments |= dict(num_evaluations=options.num_evaluations, shard=options.part())
    sweep = jm.sweep if options.halving is None else jm.halve
    try:
        result = sweep(model, optimizer, runs, dataset, **arguments, folder=options.output_dir, cluster=options.ray)
    except ValueError as error:  # of what can be known only here: too little memory, a cluster out of reach
        common.fail(str(error))
    except (KeyboardInterrupt, OSError):
        print(f"to go on: python {sys.argv[0]} --resume {options.output_dir}", file=sys.stderr)
        raise
    if options.shard is not None:
        print(f"wrote {options.output_dir}/{FILES[0]}, the shard {options.shard}: jaxmnist.merge unites all of them")
        return
    draw(options.output_dir)
    report(result)


def give_ray_an_address() -> None:
    """Makes `--ray` by itself mean a cluster on this machine."""
    for index, argument in enumerate(sys.argv):
        if argument == "--ray" and (index + 1 == len(sys.argv) or sys.argv[index + 1].startswith("--")):
            sys.argv.insert(index + 1, "local")


def check(options: Options) -> None:
    """Raises ValueError where an option alone, or two together, make no sense."""
    part = options.part()
    if options.ray is not None:
        check_installed()
    if options.memory is not None and not 0 < options.memory < math.inf:
        raise ValueError(f"memory is {options.memory}; a number of GiB above 0 is needed")
    if options.halving is not None:
        if options.num_evaluations != 1 or part is not None:
            raise ValueError("halving goes with neither num_evaluations nor shard: it evaluates at its rungs, of all")
        check_rungs(options.num_steps, options.halving, options.rungs)
    elif options.rungs is not None:
        raise ValueError(f"rungs are {options.rungs}, but only --halving uses them")


def is_finished(folder: Path) -> bool:
    """Returns whether a folder holds the result of a sweep that has ended."""
    return (folder / FILES[0]).is_file() and not sweep_folder.is_begun(folder)


def begin_folder(options: Options, dataset: jm.Dataset) -> None:
    """Puts away what an earlier sweep left, and saves the options; from here on, the sweep can be resumed.

    Raises:
      ValueError: the folder holds a sweep that could be resumed.
    """
    folder = options.output_dir
    begun = [folder, *folder.glob("rung_*")]
    if any(sweep_folder.is_unfinished(place) for place in begun):
        raise ValueError(
            f"output_dir {folder} holds an interrupted sweep: go on with it by --resume {folder}, or remove the folder"
        )
    for place in begun:
        (place / FILES[0]).unlink(missing_ok=True)
        shutil.rmtree(place / sweep_folder.FOLDER, ignore_errors=True)
    common.save_config(options, dataset)


def draw(folder: Path) -> None:
    """Draws the figures of a saved sweep beside its results."""
    result = jm.load_results(folder)
    figures = {"scatter": jm.scatter(result)}
    if "run" not in result.dims:
        figures["heatmap"] = jm.heatmap(result)
    for name, figure in sorted(figures.items()):
        common.save_figure(figure, folder / f"{name}.png")
    print(f"wrote {' and '.join(f'{folder}/{name}.png' for name in sorted(figures))}")


def report(result) -> None:
    """Prints the best settings on validation, and the chosen one's test accuracy."""
    print_settings(result)
    best = jm.best(result)
    if best is None:
        print("no setting is chosen: runs of every one diverged")
    else:
        setting = ", ".join(f"{name} {value:g}" for name, value in best.setting.items())
        mean, low, high, kind = best.test
        print(f"chosen on validation: {setting}")
        print(f"its test accuracy: {100 * mean:.2f} % [{100 * low:.2f}, {100 * high:.2f}] (95 % {kind})")
        for name in best.edges:
            print(f"warning: the best {name}, {best.setting[name]:g}, lies on the edge of the grid: widen it")
    diverged = result["diverged_step"].notnull()
    print(f"diverged: {int(diverged.sum())} of {diverged.size} runs")
    if "pruned_step" in result:
        print(f"pruned: {int(result['pruned_step'].notnull().sum())} of {diverged.size} runs")


def print_settings(result) -> None:
    """Prints a table of the settings that are best on validation."""
    from rich.console import Console
    from rich.table import Table

    settings = jm.settings(result)
    names = list(settings.columns[: settings.columns.get_loc("num_seeds")])
    table = Table(title=f"{result.attrs['dataset']}: the best settings on validation, {result.attrs['budget']}")
    for column in (*names, "seeds", "diverged", "validation accuracy (mean ± s.d., %)"):
        table.add_column(column, justify="right")
    for _, row in settings.head(NUM_SHOWN).iterrows():
        accuracy = f"{100 * row['validation_accuracy']:.2f}"
        if row["num_seeds"] > 1:
            accuracy += f" ± {100 * row['validation_accuracy_std']:.2f}"
        values = [f"{row[name]:g}" for name in names]
        table.add_row(*values, f"{row['num_seeds']:.0f}", f"{row['num_diverged']:.0f}", accuracy)
    Console().print(table)


if __name__ == "__main__":
    common.main(main)

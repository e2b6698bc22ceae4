"""Sweeps learning rate x batch size, as one compiled program where it fits, and draws the map of accuracies.

Writes results.nc and results.csv (every run), heatmap.png (validation) and scatter.png (test, as the original notebook
drew it). Settings are chosen on the validation split; test figures choose nothing. A sweep that was interrupted, at
whatever moment, goes on with --resume to the same numbers. Another sweep needs another --output-dir, or --overwrite.
"""

import dataclasses
import math
import re
import sys
from pathlib import Path
from typing import Annotated

import common
import numpy as np
import pandas as pd
import tyro

import jaxmnist as jm
from jaxmnist import checks
from jaxmnist.host.files import is_ours, write_atomically
from jaxmnist.sweeps.cluster import check_installed
from jaxmnist.sweeps.folder import is_begun
from jaxmnist.sweeps.halving import check_rungs
from jaxmnist.sweeps.runs import MAX_RUNS

NUM_SHOWN = 5
SAMPLE_SEED = 0
FIGURES = common.figure_names("heatmap", "scatter", "budgets", "steps_to_target", "noise_scale")
NOISE_FILE = "noise_scale.csv"
# Where it is, a sweep has been drawn to its end.
LAST_FILE = "scatter.svg"
LABELS = {"learning_rate": "learning rate", "batch_size": "batch size"}


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
    target: Annotated[float | None, tyro.conf.arg(metavar="FRACTION")] = None
    """Validation accuracy whose steps are counted, where --num-evaluations is above 1. Without it: the highest one that
    every batch size reaches, in half points."""
    noise_scale: bool = False
    """Measure the gradient noise scale along the chosen setting's training, where --num-evaluations is above 1."""
    refine: bool = False
    """Afterwards sweep a finer grid around the best setting, into the folder refined of the output folder."""
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
    overwrite: bool = False
    """Replace what is in the output folder under the names that this script uses. Without it: what was begun with the
    same options is gone on with, and anything else is refused."""
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
        checks.whole("num_samples", self.num_samples, 1, MAX_RUNS)
        jm.grid(learning_rate=self.learning_rates, batch_size=self.batch_sizes)  # the same rules for their values
        positive = [rate for rate in self.learning_rates if rate > 0]
        if len(positive) < 2:
            raise ValueError(f"learning_rates are {self.learning_rates}; num_samples needs two above 0, as bounds")
        between = jm.loguniform(min(positive), max(positive))
        axes: dict = {"learning_rate": between, "batch_size": self.batch_sizes, **self.further_axes()}
        return jm.with_seeds(jm.sample(self.num_samples, SAMPLE_SEED, **axes), seeds)

    def memory_bytes(self) -> float | None:
        """Returns the memory in bytes."""
        return None if self.memory is None else self.memory * 2**30

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
            common.claim_files(common.files_in([options.plot_only], FIGURES), options.overwrite)
            draw(options.plot_only, options.target)
            return
        if options.resume is not None and is_finished(options):
            report(jm.load_results(options.output_dir))
            return
        check(options)
        runs = options.runs()
        if not options.dry_run:
            common.make_output_dir(options.output_dir)
        dataset = options.load()
        model, optimizer = options.build(dataset)
        jm.check(model, optimizer, runs, dataset, options.num_steps, options.num_evaluations)
        if options.dry_run:
            budget = dict(num_steps=options.num_steps, num_evaluations=options.num_evaluations)
            print(jm.estimate(model, optimizer, runs, dataset, memory=options.memory_bytes(), **budget))
            return
        roots = [options.output_dir]
        refined = options.output_dir / "refined"
        if options.refine or refined.is_dir():
            roots.append(refined)
        places = [place for root in roots for place in (root, *root.glob(f"rung_{'[0-9]' * 8}"))]
        common.begin_sweeps(options, dataset, places, common.files_in(roots, (*FIGURES, NOISE_FILE)))
    with common.resumable(options.output_dir):
        result = sweep(options, runs, dataset, options.output_dir)
        if options.shard is not None:
            print(
                f"wrote {options.output_dir}/results.nc, the shard {options.shard}: jaxmnist.merge unites all of them"
            )
            return
        if options.noise_scale and not is_ours(options.output_dir / NOISE_FILE):
            measure_noise(options, result, dataset)
        draw(options.output_dir, options.target)
        report(result)
        if options.refine:
            refine(options, result, dataset)


def sweep(options: Options, runs: dict, dataset: jm.Dataset, folder: Path):
    """Returns the result of the sweep, or of its shard."""
    model, optimizer = options.build(dataset)
    shared: dict = dict(num_steps=options.num_steps, memory=options.memory_bytes(), folder=folder, cluster=options.ray)
    # What can be known only here is too little memory, and a cluster out of reach.
    with common.usage_errors((ValueError,)):
        if options.halving is not None:
            return jm.halve(model, optimizer, runs, dataset, factor=options.halving, rungs=options.rungs, **shared)
        return jm.sweep(
            model, optimizer, runs, dataset, num_evaluations=options.num_evaluations, shard=options.part(), **shared
        )


def measure_noise(options: Options, result, dataset: jm.Dataset) -> None:
    """Saves the noise scale along the training of the chosen setting, with its first seed."""
    best = jm.best(result)
    if best is None:
        return
    model, optimizer = options.build(dataset)
    setting = dict(best.setting)
    size = int(setting.pop("batch_size"))
    steps = [int(step) for step in result["step"].values]
    table = jm.noise_scale_along_training(model, optimizer(**setting), dataset, batch_size=size, seed=0, steps=steps)
    write_atomically(options.output_dir / NOISE_FILE, lambda path: table.to_csv(path, index=False))


def refine(options: Options, result, dataset: jm.Dataset) -> None:
    """Sweeps a finer grid around the best setting, and reports on it as on the first."""
    folder = options.output_dir / "refined"
    axes = jm.refined(result, len(dataset.train.labels))
    names = [name for name in axes if name not in ("learning_rate", "batch_size")]
    print(f"refining: {', '.join(f'{name} {axis[0]:g} to {axis[-1]:g}' for name, axis in axes.items())}")
    seeds = common.seeds(options.num_seeds)
    runs = jm.grid(**{name: axes[name] for name in ("learning_rate", "batch_size", *names)}, seed=seeds)
    folder.mkdir(exist_ok=True)
    finer = sweep(options, runs, dataset, folder)
    draw(folder, options.target)
    report(finer)


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
    if options.target is not None and not 0 < options.target < 1:
        raise ValueError(f"target is {options.target}; an accuracy between 0 and 1 is needed")
    if options.noise_scale and (options.num_evaluations == 1 or options.num_samples is not None or part is not None):
        raise ValueError("noise_scale needs a whole grid and num_evaluations above 1: it is measured where curves are")
    if options.refine and (options.num_samples is not None or part is not None):
        raise ValueError("refine needs a whole grid; it goes with neither num_samples nor shard")
    if options.halving is None and options.rungs is not None:
        raise ValueError(f"rungs are {options.rungs}, but only --halving uses them")


def is_finished(options: Options) -> bool:
    """Returns whether the output folder holds all that was asked for."""
    folder = options.output_dir
    asked = [folder, *([folder / "refined"] if options.refine else [])]
    return all((place / LAST_FILE).is_file() and not is_begun(place) for place in asked)


def draw(folder: Path, target: float | None) -> None:
    """Draws the figures of a saved sweep beside its results."""
    result = jm.load_results(folder)
    figures = {"scatter": jm.scatter(result)}
    if "run" not in result.dims:
        figures["heatmap"] = jm.heatmap(result)
        if "recorded_validation_accuracy" in result:
            figures["budgets"] = jm.budget_maps(result)
            figures |= draw_targets(folder, result, target)
    for name, figure in sorted(figures.items(), key=lambda item: f"{item[0]}.svg" == LAST_FILE):
        common.save_figure(figure, folder / f"{name}.png")
    print(f"wrote {', '.join(f'{folder}/{name}.png' for name in sorted(figures))}, and each as SVG")


def draw_targets(folder: Path, result, target: float | None) -> dict:
    """Returns the figures of steps to the target and, where measured, of the noise scale; prints what they say."""
    try:
        target = jm.default_target(result) if target is None else target
    except ValueError as error:
        print(f"no steps to a target: {error}")
        return {}
    table = jm.target_table(result, target)
    best = jm.best_rates(table)
    print(f"steps to {100 * target:g} % validation accuracy, at the best learning rate of each batch size:")
    for _, row in best.iterrows():
        interval = "" if np.isnan(row["half_width"]) else f" ± {row['half_width']:.0f}"
        where = f"batch size {row['batch_size']:.0f}"
        print(f"  {where}: {row['steps']:.0f}{interval} steps, learning rate {row['learning_rate']:g}")
    missed = sorted(set(table["batch_size"]) - set(best["batch_size"]))
    if missed:
        print(f"  not reached by every seed at batch sizes {', '.join(map(str, missed))}")
    critical = None
    if len(best) >= 3:
        critical = jm.fit_scaling(best["batch_size"].tolist(), best["steps"].tolist()).critical_batch_size
        print(f"observed critical batch size: {critical:.0f} examples")
    figures = {"steps_to_target": jm.target_maps(result, target)}
    chosen = jm.best(result)
    if chosen is not None and (folder / NOISE_FILE).is_file():
        noise = pd.read_csv(folder / NOISE_FILE)
        setting = ", ".join(f"{LABELS.get(name, name)} {value:g}" for name, value in chosen.setting.items())
        figures["noise_scale"] = jm.noise_curve(noise, critical, result, setting)
        print(f"gradient noise scale: median {noise['noise_scale'].median():.0f} examples")
    return figures


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
        num_tied = int(jm.ties(result)["is_tied"].sum()) - 1
        if num_tied:
            print(f"not told from it: {num_tied} other settings (paired t test over seeds, Holm, 5 %)")
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

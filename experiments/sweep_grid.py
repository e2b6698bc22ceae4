"""Sweeps learning rate x batch size, as one compiled program where it fits, and draws the map of accuracies.

Writes results.nc and results.csv (every run), heatmap.png (validation) and scatter.png (test, as the original notebook
drew it). Settings are chosen on the validation split; test figures choose nothing.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import numpy as np
import tyro

import jaxmnist as jm

NUM_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Options(common.TrainingOptions):
    learning_rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Learning rates of the grid."""
    batch_sizes: tuple[int, ...] = (20, 40, 60, 80)
    """Batch sizes of the grid, in examples."""
    num_seeds: int = 8
    """Runs per setting, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 100
    """Training steps of every run."""
    num_evaluations: int = 1
    """How often along training to evaluate on validation; 1 is at the end alone."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/sweep_grid")
    """Folder for results and figures."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory and FLOPs, and stop."""
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an earlier sweep: draw its figures again from its results.nc, without training."""
    pretty: bool = False
    """The finer setting: batch sizes 8, 16, ..., 512, 17 learning rates from 1e-3 to 10, 4 seeds, 500 steps."""


PRETTY = dict(
    learning_rates=tuple(float(f"{rate:.4g}") for rate in np.geomspace(1e-3, 10, 17)),
    batch_sizes=tuple(range(8, 513, 8)),
    num_seeds=4,
    num_steps=500,
)


def main() -> None:
    options = common.parse(Options, __doc__, PRETTY)
    if options.plot_only is not None:
        with common.usage_errors():
            draw(options.plot_only)
        return
    with common.usage_errors():
        runs = options.grid(
            learning_rate=options.learning_rates, batch_size=options.batch_sizes, seed=common.seeds(options.num_seeds)
        )
        if not options.dry_run:
            common.make_output_dir(options.output_dir)
        dataset = options.load()
        model, optimizer = options.build(dataset)
        budget: dict = dict(num_steps=options.num_steps, num_evaluations=options.num_evaluations)
        jm.check(model, optimizer, runs, dataset, **budget)
    if options.dry_run:
        print(jm.estimate(model, optimizer, runs, dataset, **budget))
        return
    result = jm.sweep(model, optimizer, runs, dataset, **budget)
    jm.save(result, options.output_dir)
    draw(options.output_dir)
    report(result)


def draw(folder: Path) -> None:
    """Draws the figures of a saved sweep beside its results."""
    result = jm.load_results(folder)
    for name, figure in (("heatmap", jm.heatmap(result)), ("scatter", jm.scatter(result))):
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"wrote {folder}/heatmap.png and {folder}/scatter.png")


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

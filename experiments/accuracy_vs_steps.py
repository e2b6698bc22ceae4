"""Draws accuracy and loss against the number of training steps, from one trajectory per seed.

Writes accuracy_vs_steps.png, which reproduces the original notebook's figure and so shows the test split, which chooses
nothing; learning_curves.png, with training, validation and test split; accuracy_vs_steps.csv (statistics over seeds at
each number of steps), and results.nc with every seed's curves.

With --compare: SGD, momentum, Adam and AdamW, each at the learning rate that is best on validation at the end. Writes
learning_rates.png (the choice), learning_curves.png and test_accuracy.png, comparison.csv, accuracy_vs_steps.csv,
results.nc (the curves of the chosen ones) and learning_rates/results.nc (the runs among which they were chosen).

What was interrupted goes on with --resume to the same numbers. Other options need another --output-dir, or --overwrite.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import tyro

import jaxmnist as jm
from jaxmnist.core import optimizers
from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.host.files import write_atomically

STEPS_PER_POINT = 10
COMPARED = ("sgd", "momentum", "adam", "adamw")
MIN_SEEDS_TO_COMPARE = 6
GRIDS = "learning_rates"
TABLE, CURVES, LEARNING_CURVES = "accuracy_vs_steps.csv", "accuracy_vs_steps.png", "learning_curves.png"
COMPARISON, RATE_CURVES, TEST_CURVES = "comparison.csv", "learning_rates.png", "test_accuracy.png"
PICTURES = (CURVES, LEARNING_CURVES, RATE_CURVES, TEST_CURVES)
FILES = (TABLE, COMPARISON, *common.figure_names(*(name.removesuffix(".png") for name in PICTURES)))


@dataclasses.dataclass(frozen=True)
class Options(common.TrainingOptions):
    learning_rates: tuple[float, ...] = (0.5,)
    """Learning rates; each is a line."""
    batch_size: int = 100
    """Batch size, in examples."""
    num_seeds: int = 8
    """Runs per line, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 490
    """Training steps of every run."""
    num_evaluations: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """How often along training to evaluate, evenly, beside step 0. Without it: a tenth of the number of steps."""
    log_log: bool = False
    """Logarithmic axes, for error (1 - accuracy) and loss; without step 0. Goes with --plot-only, too."""
    compare: bool = False
    """Compare SGD, momentum, Adam and AdamW, each at its own learning rate, chosen on validation; 6 seeds or more."""
    sgd_rates: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    """For --compare: the learning rates to choose from for SGD."""
    momentum_rates: tuple[float, ...] = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
    """For --compare: the learning rates to choose from for SGD with momentum."""
    adam_rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """For --compare: the learning rates to choose from for Adam."""
    adamw_rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """For --compare: the learning rates to choose from for AdamW."""
    weight_decay: float = 0.01
    """For --compare: AdamW's weight decay, which it multiplies by the learning rate (optax's own default is 0.0001)."""
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for results and figures. Without it: results/accuracy_vs_steps, or results/comparison for --compare."""
    overwrite: bool = False
    """Replace what is in the output folder under the names that this script uses. Without it: what was begun with the
    same options is gone on with, and anything else is refused."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and estimated time, and stop."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of what was interrupted: go on with it, by the options saved there."""
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an earlier run: draw its figures again from its files, without training."""
    pretty: bool = False
    """The longer setting: 990 steps."""

    def rates_to_compare(self) -> dict[str, tuple[float, ...]]:
        """Returns the learning rates of each optimizer."""
        return {name: getattr(self, f"{name}_rates") for name in COMPARED}

    def folder(self) -> Path:
        """Returns the output folder."""
        return self.output_dir or Path("results/comparison" if self.compare else "results/accuracy_vs_steps")

    def budget(self) -> dict:
        """Returns the numbers of steps and evaluations."""
        num_evaluations = self.num_evaluations
        if num_evaluations is None:
            num_evaluations = max(self.num_steps // STEPS_PER_POINT, 1)
        return dict(num_steps=self.num_steps, num_evaluations=num_evaluations)

    def check(self) -> None:
        """Raises ValueError where two options make no sense together."""
        if not self.compare:
            for name in (*(f"{name}_rates" for name in COMPARED), "weight_decay"):
                if getattr(self, name) != getattr(Options, name):
                    raise ValueError(f"{name} is given, but only --compare uses it")
            self.further_axes()
            return
        for name in ("learning_rates", "optimizer"):
            if getattr(self, name) != getattr(Options, name):
                raise ValueError(f"{name} is given, but --compare has its own: --sgd-rates and the like")
        dataclasses.replace(self, optimizer="momentum").further_axes()
        if self.num_seeds < MIN_SEEDS_TO_COMPARE:
            raise ValueError(f"num_seeds is {self.num_seeds}; --compare needs at least {MIN_SEEDS_TO_COMPARE}")

    def grid(self, rates: dict[str, tuple[float, ...]]) -> dict:
        """Returns the runs of a comparison: each optimizer with its learning rates."""
        fixed: dict = dict(batch_size=self.batch_size, momentum=self.momentum, weight_decay=self.weight_decay)
        seeds = common.seeds(self.num_seeds)
        parts = [
            jm.grid(optimizer=[name], learning_rate=of_name, **fixed, seed=seeds) for name, of_name in rates.items()
        ]
        return jm.union(*parts)


def main() -> None:
    options = common.parse(Options, __doc__, dict(num_steps=990))
    with common.usage_errors():
        if options.plot_only is not None:
            common.claim_files(common.files_in([options.plot_only], FILES), options.overwrite)
            draw(options.plot_only, options.log_log)
            return
        options.check()
        options = dataclasses.replace(options, output_dir=options.folder())
        folder = options.folder()
        if options.compare:
            runs = options.grid(options.rates_to_compare())
            budget: dict = dict(num_steps=options.num_steps)
        else:
            axes: dict = dict(
                learning_rate=options.learning_rates, batch_size=options.batch_size, **options.further_axes()
            )
            runs = jm.grid(**axes, seed=common.seeds(options.num_seeds))
            budget = options.budget()
        if not options.dry_run:
            common.make_output_dir(folder)
        dataset = options.load()
        model, optimizer = options.build(dataset)
        if options.compare:
            optimizer = optimizers.named
        jm.check(model, optimizer, runs, dataset, **options.budget())
        if options.dry_run:
            print(jm.estimate(model, optimizer, runs, dataset, **budget))
            return
        grids = folder / GRIDS
        places = [folder, *([grids] if options.compare or grids.is_dir() else [])]
        common.begin_sweeps(options, dataset, places, common.files_in([folder], FILES))
    with common.resumable(folder):
        if options.compare:
            with common.usage_errors((ValueError,)):
                grid = jm.sweep(model, optimizer, runs, dataset, folder=grids, **budget)
            best = jm.best_of_each(grid, "optimizer")
            chosen: dict = {
                name: (of_name.setting["learning_rate"],) for name, of_name in best.items() if of_name is not None
            }
            if not chosen:
                print("no learning rate is chosen: runs of every one diverged")
                return
            runs, budget = options.grid(chosen), options.budget()
        with common.usage_errors((ValueError,)):
            result = jm.sweep(model, optimizer, runs, dataset, record=SPLIT_NAMES, folder=folder, **budget)
        draw(folder, options.log_log)
    report(grid if options.compare else result)


def draw(folder: Path, log_log: bool) -> None:
    """Draws the curves of saved runs beside their results, and tabulates them."""
    result = jm.load_results(folder)
    splits = [split for split in ("test", "validation", "train") if f"recorded_{split}_loss" in result]
    table = jm.curve_table(result, splits, ("accuracy", "loss"))
    write_atomically(folder / TABLE, lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    written = [TABLE, LEARNING_CURVES]
    if "optimizer" in result.coords:
        grid = jm.load_results(folder / GRIDS)
        best = jm.best_of_each(grid, "optimizer")
        rows = comparison(best)
        write_atomically(folder / COMPARISON, lambda path: rows.to_csv(path, index=False, float_format="%.6g"))
        figures = {
            RATE_CURVES: jm.rate_curve(grid, "optimizer", best),
            LEARNING_CURVES: jm.learning_curves(result, ("train", "validation"), log_log=log_log, band="half_width"),
            TEST_CURVES: jm.accuracy_curve(result, "test", log_log=log_log, band="half_width"),
        }
        written.append(COMPARISON)
    else:
        figures = {CURVES: jm.accuracy_curve(result, "test", log_log=log_log)}
        if len(splits) > 1:  # the results of an earlier version have the test split alone
            figures[LEARNING_CURVES] = jm.learning_curves(result, splits[::-1], log_log=log_log)
    for name, figure in figures.items():
        common.save_figure(figure, folder / name)
    print(f"wrote {', '.join(f'{folder}/{name}' for name in dict.fromkeys([*written, *figures]))}")


def comparison(best: dict):
    """Returns one row per optimizer: its chosen learning rate, and its accuracies with their intervals."""
    import pandas as pd

    rows = []
    for name, of_name in best.items():
        if of_name is None:
            rows.append({"optimizer": name})
            continue
        row = {"optimizer": name, "learning_rate": of_name.setting["learning_rate"]}
        for split in ("validation", "test"):
            mean, low, high, _ = getattr(of_name, split)
            row |= {f"{split}_accuracy": mean, f"{split}_accuracy_low": low, f"{split}_accuracy_high": high}
        rows.append(row | {"is_on_edge": "learning_rate" in of_name.edges})
    return pd.DataFrame(rows)


def report(result) -> None:
    """Prints the accuracies at the end: of every learning rate on test, or of the comparison."""
    num_steps = result.attrs["num_steps"]
    if "optimizer" in result.coords:
        print_comparison(result)
    else:
        for rate in result["learning_rate"].values:
            of_rate = result.sel(learning_rate=rate)
            mean, low, high, kind = jm.interval(of_rate["test_accuracy"].values.ravel(), result.attrs["num_test"])
            which = f", learning rate {rate:g}" if result.sizes["learning_rate"] > 1 else ""
            diverged = int(of_rate["diverged_step"].notnull().sum())
            if diverged:
                print(f"no test accuracy after {num_steps} steps{which}: {diverged} of its runs diverged")
            else:
                print(
                    f"test accuracy after {num_steps} steps{which}: {100 * mean:.2f} % "
                    f"[{100 * low:.2f}, {100 * high:.2f}] (95 % {kind})"
                )
    diverged = result["diverged_step"].notnull()
    print(f"diverged: {int(diverged.sum())} of {diverged.size} runs")


def print_comparison(grid) -> None:
    """Prints each optimizer's chosen learning rate with its accuracies, and warns of choices on the grid's edge."""
    from rich.console import Console
    from rich.table import Table

    best = jm.best_of_each(grid, "optimizer")
    kinds = {of_name.test.kind for of_name in best.values() if of_name is not None}
    table = Table(
        title=f"{grid.attrs['dataset']}, {grid.attrs['budget']}: learning rates chosen on validation;\n"
        f"mean accuracy in % and 95 % {', '.join(kinds)}"
    )
    for column in ("optimizer", "learning rate", "validation accuracy", "test accuracy"):
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    for name, of_name in best.items():
        if of_name is None:
            table.add_row(name, "none: all diverged", "", "")
            continue
        shown = [
            f"{100 * x.mean:.2f} [{100 * x.low:.2f}, {100 * x.high:.2f}]" for x in (of_name.validation, of_name.test)
        ]
        table.add_row(name, f"{of_name.setting['learning_rate']:g}", *shown)
    Console().print(table)
    for name, of_name in best.items():
        if of_name is not None and "learning_rate" in of_name.edges:
            rate = of_name.setting["learning_rate"]
            print(f"warning: the best learning_rate of {name}, {rate:g}, lies on the edge of its grid: widen it")


if __name__ == "__main__":
    common.main(main)

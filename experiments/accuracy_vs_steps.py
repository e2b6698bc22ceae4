"""Draws test accuracy against the number of training steps, from one trajectory per seed.

Writes accuracy_vs_steps.csv (mean and spread over seeds at each number of steps), accuracy_vs_steps.png, and results.nc
with every seed's curve. The figure reproduces the original notebook's, and so shows the test split; it chooses nothing.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import tyro

import jaxmnist as jm
from jaxmnist.files import write_atomically

STEPS_PER_POINT = 10
FILES = ("results.nc", "results.csv", "accuracy_vs_steps.csv", "accuracy_vs_steps.png")


@dataclasses.dataclass(frozen=True)
class Options(common.TrainingOptions):
    learning_rate: float = 0.5
    """Learning rate."""
    batch_size: int = 100
    """Batch size, in examples."""
    num_seeds: int = 8
    """Runs, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 490
    """Training steps of every run."""
    num_evaluations: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """How often along training to evaluate, evenly, beside step 0. Without it: a tenth of the number of steps."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/accuracy_vs_steps")
    """Folder for results and the figure."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and estimated time, and stop."""
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an earlier run: draw its figure again from its results.nc, without training."""
    pretty: bool = False
    """The longer setting: 990 steps."""


def main() -> None:
    options = common.parse(Options, __doc__, dict(num_steps=990))
    with common.usage_errors():
        if options.plot_only is not None:
            draw(options.plot_only)
            return
        num_evaluations = options.num_evaluations
        if num_evaluations is None:
            num_evaluations = max(options.num_steps // STEPS_PER_POINT, 1)
        seeds = common.seeds(options.num_seeds)
        axes = dict(learning_rate=options.learning_rate, batch_size=options.batch_size, **options.further_axes())
        runs = jm.grid(**axes, seed=seeds)
        if not options.dry_run:
            common.make_output_dir(options.output_dir, FILES)
        dataset = options.load()
        model, optimizer = options.build(dataset)
        budget: dict = dict(num_steps=options.num_steps, num_evaluations=num_evaluations)
        jm.check(model, optimizer, runs, dataset, **budget)
        if options.dry_run:
            print(jm.estimate(model, optimizer, runs, dataset, **budget))
            return
    result = jm.sweep(model, optimizer, runs, dataset, record=("test",), **budget)
    jm.save(result, options.output_dir)
    draw(options.output_dir)
    last = jm.interval(result["test_accuracy"].values.ravel(), len(dataset.test.labels))
    print(
        f"test accuracy after {options.num_steps} steps: {100 * last.mean:.2f} % "
        f"[{100 * last.low:.2f}, {100 * last.high:.2f}] (95 % {last.kind})"
    )
    diverged = result["diverged_step"].notnull()
    print(f"diverged: {int(diverged.sum())} of {diverged.size} runs")


def draw(folder: Path) -> None:
    """Draws the curve of a saved run beside its results, and tabulates it."""
    result = jm.load_results(folder)
    table = jm.curve_table(result, "test")
    write_atomically(folder / FILES[2], lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    common.save_figure(jm.accuracy_curve(result, "test"), folder / FILES[3])
    print(f"wrote {folder}/{FILES[2]} and {folder}/{FILES[3]}")


if __name__ == "__main__":
    common.main(main)

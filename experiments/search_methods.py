"""Compares methods of search on softmax regression and a perceptron, by the loss they find and the time they take.

Grid, random, Sobol, TPE, GP (needs torch), halving and Hyperband of this package, and Optuna by itself, which trains
one setting after another, search the same five hyperparameters with the same seeds and steps (needs the extra search).
What each has found is the least mean validation loss over seeds; test data are not looked at. Seconds are those of this
process on this machine, and include all compilations. Writes search_methods.csv (what each has found after how many
seconds, in each repetition), table.csv (what they have found at their ends) and search_methods.png, as SVG too. Run it
alone on the machine, and read docs/search.md.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import jax
import pandas as pd
import tyro
from benchmark.machine import machine

import jaxmnist as jm
from jaxmnist.studies import output, search_methods

FOUND, TABLE, PICTURE = "search_methods.csv", "table.csv", "search_methods.png"
FILES = (FOUND, TABLE, *common.figure_names(PICTURE.removesuffix(".png")))
HIDDEN_SIZE = 32
QUICK_REPETITIONS, FULL_REPETITIONS = 2, 5


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    full: bool = False
    """The perceptron too, five repetitions instead of two, and larger budgets."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/search_methods")
    """Output folder."""
    overwrite: bool = False
    """Replace the files in the output folder that have the names this script uses."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        common.claim_files(common.files_in([options.output_dir], FILES), options.overwrite)
        dataset = options.load()
        search_methods.check_installed()
    with common.output_dir_held(options.output_dir, wait=False):
        work(options, dataset)


def work(options: Options, dataset: jm.Dataset) -> None:
    """Runs all methods, saves what each has found as soon as it ends, and draws it."""
    # Each method begins without compiled programs.
    jax.config.update("jax_compilation_cache_dir", None)
    num_classes = len(dataset.class_names)
    models: dict = {"softmax": jm.SoftmaxRegression(num_classes)}
    if options.full:
        models["MLP"] = jm.MLP(HIDDEN_SIZE, num_classes)
    budget = search_methods.FULL if options.full else search_methods.QUICK
    num_repetitions = FULL_REPETITIONS if options.full else QUICK_REPETITIONS
    if "GP" not in search_methods.methods():
        print("left out: GP, whose sampler needs torch")
    found = []
    for rows in search_methods.compare(models, dataset, budget, num_repetitions):
        found.append(rows)
        output.write_table(pd.concat(found), options.output_dir / FOUND, "%.6g")
        last = rows.iloc[-1]
        print(
            f"{last['model']:8s}{last['method']:20s}{last['settings']:5d} settings in {last['seconds']:5.1f} s, "
            f"validation loss {last['validation_loss']:.4f} nats",
            flush=True,
        )
    draw(options.output_dir, dataset, budget)


def draw(folder: Path, dataset: jm.Dataset, budget: search_methods.Budget) -> None:
    """Draws and tabulates what a folder holds."""
    found, measured_on = pd.read_csv(folder / FOUND), machine()
    ended = search_methods.table(found)
    output.write_table(ended, folder / TABLE, "%.6g")
    caption = (
        f"{dataset.name}, {budget.num_steps} steps, means over {budget.num_seeds} seeds; bands and bars: 95 % t "
        f"interval over {found['repetition'].nunique()} repetitions; {measured_on['cpu']}, {measured_on['cores']} "
        f"cores, {measured_on['date']}"
    )
    common.save_figure(search_methods.figure(found, caption), folder / PICTURE)
    print(f"\n{ended.round(4).to_string(index=False, na_rep='-')}\n\nwrote {', '.join(f'{folder}/{n}' for n in FILES)}")


if __name__ == "__main__":
    common.main(main)

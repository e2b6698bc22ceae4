"""Draws accuracy and loss against the number of training steps, from one trajectory per seed.

Writes accuracy_vs_steps.png, which reproduces the original notebook's figure and therefore shows the test split (which
chooses nothing); learning_curves.png, with training, validation and test split; accuracy_vs_steps.csv (statistics over
seeds at each number of steps); and results.nc with every seed's curves.

With --compare: SGD, momentum, Adam and AdamW, each at the learning rate that is best on validation at the end. Writes
learning_rates.png (the choice), learning_curves.png and test_accuracy.png, comparison.csv, accuracy_vs_steps.csv,
results.nc (the curves at the chosen learning rates) and learning_rates/results.nc (the runs that were compared).

An interrupted training continues with --resume and ends with the same numbers. Other options need another --output-dir,
or --overwrite.
"""

import dataclasses
from pathlib import Path

import common
from common.curve_options import Options

import jaxmnist as jm
from jaxmnist.studies import output

GRIDS = "learning_rates"
SPLITS = ("train", "validation", "test")
TABLE, CURVES, LEARNING_CURVES = "accuracy_vs_steps.csv", "accuracy_vs_steps.png", "learning_curves.png"
COMPARISON, RATE_CURVES, TEST_CURVES = "comparison.csv", "learning_rates.png", "test_accuracy.png"
PICTURES = (CURVES, LEARNING_CURVES, RATE_CURVES, TEST_CURVES)
FILES = (TABLE, COMPARISON, common.PAGE, *common.figure_names(*(name.removesuffix(".png") for name in PICTURES)))


def main() -> None:
    options = common.parse(Options, __doc__, dict(num_steps=990))
    with common.usage_errors():
        if options.plot_only is not None:
            common.claim_files(common.files_in([options.plot_only], FILES), options.overwrite)
            draw(options.plot_only, options.log_log)
            return
        options.check()
        options = dataclasses.replace(options, output_dir=options.folder())
        runs = options.runs()
    with common.output_dir_held(None if options.dry_run else options.folder(), options.wait):
        run(options, runs)


def run(options: Options, runs: dict) -> None:
    """Trains, draws and reports, or with --dry-run says how much work that is."""
    folder = options.folder()
    with common.usage_errors():
        dataset = options.load()
        model, optimizer = options.build(dataset)
        jm.check(model, optimizer, runs, dataset, **options.budget())
        if options.dry_run:
            budget = dict(num_steps=options.num_steps) if options.compare else options.budget()
            print(jm.estimate(model, optimizer, runs, dataset, **budget))
            return
        grids = folder / GRIDS
        places = [folder, *([grids] if options.compare or grids.is_dir() else [])]
        common.begin_sweeps(options, dataset, places, common.files_in([folder], FILES))
    with common.resumable(folder, options.code()):
        # Only now does it turn out if there is too little memory.
        with common.usage_errors((ValueError,)):
            result = compare(options, runs, dataset) if options.compare else train(options, runs, dataset)
        if result is None:
            print("no learning rate is chosen: each has runs that diverged")
            return
        draw(folder, options.log_log)
    print(jm.comparison(result, "optimizer") if options.compare else jm.final_accuracies(result))


def compare(options: Options, runs: dict, dataset: jm.Dataset):
    """Returns the result by which learning rates are chosen, and trains the curves at the chosen ones."""
    grids = options.folder() / GRIDS
    grid = jm.sweep(*options.build(dataset), runs, dataset, num_steps=options.num_steps, folder=grids)
    best = jm.best_of_each(grid, "optimizer")
    chosen = {name: (each.setting["learning_rate"],) for name, each in best.items() if each is not None}
    if not chosen:
        return None
    train(options, options.runs_to_compare(chosen), dataset)
    return grid


def train(options: Options, runs: dict, dataset: jm.Dataset):
    """Returns the result of runs with their curves on all splits."""
    shared: dict = dict(record=SPLITS, folder=options.folder(), **options.budget())
    return jm.sweep(*options.build(dataset), runs, dataset, **shared)


def draw(folder: Path, log_log: bool) -> None:
    """Draws the curves of saved runs beside their results, and tabulates them."""
    result = jm.load_results(folder)
    splits = [split for split in SPLITS[::-1] if f"recorded_{split}_loss" in result]
    metrics = result.attrs.get("metrics", "accuracy loss").split()
    tables = {TABLE: jm.curve_table(result, splits, metrics)}
    if "optimizer" in result.coords:
        grid = jm.load_results(folder / GRIDS)
        tables[COMPARISON] = jm.comparison_table(grid, "optimizer")
        figures = {
            RATE_CURVES: jm.rate_curve(grid, "optimizer", jm.best_of_each(grid, "optimizer")),
            LEARNING_CURVES: jm.curves(result, splits=("train", "validation"), log_log=log_log),
            TEST_CURVES: jm.accuracy_curve(result, "test", log_log=log_log, band="half_width"),
        }
    else:
        figures = {CURVES: jm.accuracy_curve(result, "test", log_log=log_log)}
        if len(splits) > 1:  # an earlier version saved results with the test split only
            figures[LEARNING_CURVES] = jm.curves(result, log_log=log_log)
    for name, table in tables.items():
        output.write_table(table, folder / name, "%.6g")
    for name, figure in figures.items():
        common.save_figure(figure, folder / name)
    page = common.save_page(result, folder)
    print(f"wrote {', '.join(f'{folder}/{name}' for name in (*tables, *figures))}; {page}")


if __name__ == "__main__":
    common.main(main)

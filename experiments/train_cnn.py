"""Trains a convolutional network, by the same `fit` as everything else.

The default is the original notebook's network and recipe. The notebook passed the arguments of its initialiser in the
wrong places, which gave weights of standard deviation 1 and biases of 0; `--init-std 1 --init-bias 0` does the same.
`--preset tutorial` trains it for 20,000 steps. `--preset best` is another network and recipe, which takes about 4
minutes on 2 cores: five convolutions with standardised weights, random rotation, scale and shift, AdamW, and a
one-cycle learning rate.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import optax
from common.cnn_options import Options, build, check
from common.cnn_presets import PRESETS

import jaxmnist as jm
from jaxmnist.studies import report
from jaxmnist.studies.output import SavedRuns

FIGURES = common.figure_names("curves", "confusion", "mistakes", "filters")
FILES = ("metrics.csv", report.FILE_NAME, *FIGURES)


def main() -> None:
    options = parse()
    with common.usage_errors():
        if options.plot_only:
            draw(options.plot_only, options.overwrite)
            return
        check(options)
        saved = SavedRuns(options.output_dir, options.seeds())
        if options.resume and saved.is_finished():
            finish(options)
            return
    with common.output_dir_held(options.output_dir, options.wait):
        run(options, saved)


def run(options: Options, saved: SavedRuns) -> None:
    """Trains, draws and reports, unless the output folder holds that already."""
    with common.usage_errors():
        dataset = options.load()
        model, optimizer, num_steps = build(options, dataset)
        for seed in {options.seed, options.seed + options.members - 1}:
            runs = jm.grid(learning_rate=options.learning_rate, batch_size=options.batch_size, seed=seed)
            jm.check(model, optax.sgd, runs, dataset, num_steps)
        common.begin_folder(options, dataset, common.files_in([options.output_dir], FILES), saved)
        if saved.is_finished():
            finish(options)
            return
    with common.resumable(options.output_dir):
        train(options, saved, model, optimizer, num_steps, dataset)
        finish(options)


def parse() -> Options:
    """Returns the options of the command line; the defaults are the preset's, or with --resume the saved ones."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="original")
    preset = first.parse_known_args()[0].preset
    return common.parse(functools.partial(Options, preset=preset, **PRESETS.get(preset, {})), __doc__)


def train(options: Options, saved: SavedRuns, model, optimizer, num_steps: int, dataset: jm.Dataset) -> None:
    """Trains every seed, printing and saving its evaluations; then saves the ensemble and its predictions."""
    amounts = options.rotation, options.scale, options.shift
    augment = jm.Affine(*amounts) if any(amounts) else None
    seeds, states = options.seeds(), []
    rows: list[dict[str, Any]] = []
    with jm.progress_bar("training", num_steps * options.members) as show:
        for index, seed in enumerate(seeds):
            show_steps = functools.partial(show_after, show, index * num_steps)
            # Only now does it turn out if the states belong to another training.
            with common.usage_errors((ValueError,)):
                state, _ = jm.train_run(
                    model, optimizer, dataset, seed,
                    batch_size=options.batch_size, num_steps=num_steps, evaluation_steps=options.evaluation_steps,
                    folder=saved.states(seed), augment=augment,
                    report=functools.partial(show_progress, options, seed, num_steps, rows, show_steps),
                    warn=lambda sentence: print(f"note: {sentence}", file=sys.stderr),
                )  # fmt: skip
            states.append(state)
            if state.has_diverged:
                print(report.divergence(seed, int(state.diverged_step)), flush=True)
    shape = dataset.train.inputs.shape[1:]
    trained = jm.Classifier(model, tuple(state.params for state in states), shape, tuple(dataset.class_names))
    predictions = report.predict(
        trained, dataset, recipe=options.recipe(), num_steps=num_steps, batch_size=options.batch_size, seeds=seeds,
        diverged_steps=[int(state.diverged_step) for state in states],
    )  # fmt: skip
    save(options.output_dir, trained, predictions)


def save(folder: Path, trained: jm.Classifier, predictions: report.Predictions) -> None:
    """Saves the ensemble of the usable seeds, and then the predictions, which mark the end of the training."""
    usable = [index for index, is_usable in enumerate(predictions.usable) if is_usable]
    if usable:
        ensemble = dataclasses.replace(trained, params=tuple(trained.params[index] for index in usable))
        jm.save_model(folder, ensemble, [int(predictions.seeds[index]) for index in usable])
    report.save_predictions(folder, predictions)


def show_after(show: Callable[[int, str], None], steps_before: int, step: int, words: str) -> None:
    """Shows the bar at a step of one of several seeds."""
    show(steps_before + step, words)


def show_progress(options: Options, seed, num_steps, rows, show, step, new_rows, loss) -> None:
    """Shows the bar; prints and saves the evaluations that are new."""
    accuracy = 100 * new_rows[-1]["validation_accuracy"]
    show(step, f"seed {seed}, step {step}/{num_steps}, loss {loss:.4f}, validation accuracy {accuracy:.2f} %")
    num_known = sum(row["seed"] == seed for row in rows)
    if num_known < len(new_rows):
        print("\n".join(report.progress_lines(new_rows, num_known)), flush=True)
        rows += [{"seed": seed, **row} for row in new_rows[num_known:]]
        report.write_metrics(options.output_dir, rows)


def draw(folder: Path, overwrite: bool) -> None:
    """Draws all figures from what was saved."""
    common.claim_files(common.files_in([folder], FIGURES), overwrite)
    for name, figure in report.figures(report.load_predictions(folder), report.read_metrics(folder)).items():
        common.save_figure(figure, folder / f"{name}.png")


def finish(options: Options) -> None:
    """Draws and reports a training that has ended; ends the program with status 1 if no seed is usable."""
    draw(options.output_dir, options.overwrite)
    saved = report.load_predictions(options.output_dir)
    lines = report.table(saved)
    if options.members > 1:
        lines += report.milestone_lines(report.read_metrics(options.output_dir))
    print("\n".join(lines))
    if not saved.usable.any():
        sys.exit(1)


if __name__ == "__main__":
    common.main(main)

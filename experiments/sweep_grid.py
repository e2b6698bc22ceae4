"""Sweeps learning rate x batch size, as one compiled program if it fits, and draws the map of accuracies.

Further hyperparameters are axes too, and model, optimizer and loss may be your own (see docs/command_line.md). Writes
results.nc and results.csv (every run), heatmap.png (validation), and scatter.png (test, as the original notebook drew
it) or, of further hyperparameters, slices.png and others; and report.html, a page to explore it (extra page). Settings
are chosen on the validation split; test accuracies choose nothing. An interrupted sweep continues with --resume and
ends with the same numbers. Another sweep needs another --output-dir, or --overwrite.
"""

import sys
from pathlib import Path

import common
from common.json_report import apart, json_report
from common.sweep_options import PRETTY, Options

import jaxmnist as jm
from jaxmnist.studies import output

MAX_WIDENINGS = 4
ROUNDS = f"round_{'[0-9]' * 4}"
MAPS = ("heatmap", "scatter", "budgets", "steps_to_target", "noise_scale")
FIGURES = (*common.figure_names(*MAPS, "slices", "parallel", "importance"), common.PAGE)
NOISE_FILE = "noise_scale.csv"
# Each result has one of these, and it is drawn last: if it is there, a sweep has been drawn to its end.
LAST_FIGURES = ("scatter", "slices")


def main() -> None:
    give_ray_an_address()
    options = common.parse(Options, __doc__, PRETTY)
    with apart(options.json):
        estimate = work(options)
    if options.json:
        print(json_report(options, estimate))


def work(options: Options):
    """Does what was asked for; with --dry-run, returns how much work that would be."""
    with common.usage_errors():
        if options.plot_only is not None:
            common.claim_files(common.files_in([options.plot_only], FIGURES), options.overwrite)
            print(draw(options, options.plot_only))
            return None
        if options.resume is not None and is_finished(options):
            print(jm.report(*load(options, options.output_dir), by=options.by))
            return None
        options.check()
        runs = options.runs()
    # Several shards may use the folder at a time.
    is_shared = options.dry_run or options.shard is not None
    with common.output_dir_held(None if is_shared else options.output_dir, options.wait):
        return run(options, runs)


def run(options: Options, runs: dict):
    """Sweeps, draws and reports; with --dry-run, says how much work that would be, and returns it."""
    with common.usage_errors():
        dataset = options.load()
        model, optimizer = options.build(dataset)
        options.check_hyperparameters(dataset)
        shared: dict = options.budget() | options.objective()
        jm.check(model, optimizer, runs, dataset, **shared)
        if options.dry_run:
            estimate = jm.estimate(
                model, optimizer, runs, dataset, memory=common.memory_bytes(options.memory), **shared
            )
            print(estimate)
            return estimate
        common.make_output_dir(options.output_dir)
        begin(options, dataset)
    with common.resumable(options.output_dir, options.code()):
        result = sweep(options, runs, dataset, options.output_dir)
        if options.shard is not None:
            print(f"the shard {options.shard} has ended; the last one writes {options.output_dir}/results.nc")
            return None
        if options.widen:
            result = widen(options, result, dataset)
        if options.noise_scale and not output.is_ours(options.output_dir / NOISE_FILE):
            measure_noise(options, result, dataset)
        print(draw(options, options.output_dir))
        if options.refine:
            refine(options, result, dataset)
    return None


def begin(options: Options, dataset: jm.Dataset) -> None:
    """Saves the options in the output folder, unless something else is there."""
    roots, refined = [options.output_dir], options.output_dir / "refined"
    if options.refine or refined.is_dir():
        roots.append(refined)
    rung = f"rung_{'[0-9]' * 8}"
    parts = (rung, f"bracket_*/{rung}", ROUNDS)
    places = [place for root in roots for place in (root, *(part for name in parts for part in root.glob(name)))]
    files = common.files_in(roots, (*FIGURES, NOISE_FILE, "search.json"))
    files += common.files_in(options.output_dir.glob(ROUNDS), ["settings.json"])
    common.begin_sweeps(options, dataset, places, files)


def sweep(options: Options, runs: dict, dataset: jm.Dataset, folder: Path):
    """Returns the result of the sweep, or of its shard."""
    model, optimizer = options.build(dataset)
    shared: dict = dict(memory=common.memory_bytes(options.memory), folder=folder, wait=options.wait)
    shared |= dict(cluster=options.ray, ray_resources=options.resources(), **options.objective())
    # Only now does it turn out if there is too little memory, or if a cluster cannot be reached.
    with common.usage_errors((ValueError,)):
        if options.search is not None:
            shared |= dict(sampler=options.search, seeds=common.seeds(options.num_seeds), by=options.by)
            return jm.search(
                model, optimizer, options.space(), dataset, **options.rounds(), **options.budget(), **shared
            )
        if not options.prunes:
            shared |= dict(shard=options.part(), keep_states=options.keep_states)
            return jm.sweep(model, optimizer, runs, dataset, **options.budget(), **shared)
        shared |= dict(factor=options.halving or options.hyperband, num_steps=options.num_steps)
        if options.hyperband is not None:
            return jm.hyperband(model, optimizer, runs, dataset, **shared)
        return jm.halve(model, optimizer, runs, dataset, rungs=options.rungs, **shared)


def measure_noise(options: Options, result, dataset: jm.Dataset) -> None:
    """Saves the noise scale along the training of the chosen setting, with its first seed."""
    best = jm.best(result, options.by)
    if best is None:
        return
    model, optimizer = options.build(dataset)
    setting = dict(best.setting)
    size = int(setting.pop("batch_size"))
    steps = [int(step) for step in result["step"].values]
    told: dict = dict(batch_size=size, seed=0, steps=steps, loss=options.objective()["loss"])
    table = jm.noise_scale_along_training(model, optimizer(**setting), dataset, **told)
    output.write_table(table, options.output_dir / NOISE_FILE)


def widen(options: Options, result, dataset: jm.Dataset):
    """Returns the result of a grid that was extended until its best setting is on no edge."""
    for _ in range(MAX_WIDENINGS):
        axes = jm.widened(result, len(dataset.train.targets), options.by)
        if all(sorted(axis) == sorted(result[name].values.tolist()) for name, axis in axes.items()):
            break
        print(f"widening: {', '.join(f'{name} {min(axis):g} to {max(axis):g}' for name, axis in axes.items())}")
        result = sweep(options, grid(options, axes), dataset, options.output_dir)
    return result


def refine(options: Options, result, dataset: jm.Dataset) -> None:
    """Sweeps a finer grid around the best setting, and reports on it as on the first."""
    folder = options.output_dir / "refined"
    axes = jm.refined(result, len(dataset.train.targets), options.by)
    common_values = {name: [value for value in axis if value in result[name]] for name, axis in axes.items()}
    if all(common_values.values()) and not (folder / "results.nc").exists():
        # What both grids have is not trained again.
        jm.save(result.sel(common_values), folder)
    print(f"refining: {', '.join(f'{name} {axis[0]:g} to {axis[-1]:g}' for name, axis in axes.items())}")
    folder.mkdir(exist_ok=True)
    sweep(options, grid(options, axes), dataset, folder)
    print(draw(options, folder))


def grid(options: Options, axes: dict) -> dict:
    """Returns the runs of a grid with these axes, and the seeds of the options."""
    return jm.grid(**axes, seed=common.seeds(options.num_seeds))


def give_ray_an_address() -> None:
    """Makes `--ray` by itself mean a cluster on this machine."""
    for index, argument in enumerate(sys.argv):
        if argument == "--ray" and (index + 1 == len(sys.argv) or sys.argv[index + 1].startswith("--")):
            sys.argv.insert(index + 1, "local")


def is_finished(options: Options) -> bool:
    """Returns whether the output folder holds everything that was asked for."""
    folder = options.output_dir
    asked = [folder, *([folder / "refined"] if options.refine else [])]
    is_drawn = all(any((place / f"{name}.svg").is_file() for name in LAST_FIGURES) for place in asked)
    return is_drawn and not output.SavedSweeps(asked).is_begun()


def load(options: Options, folder: Path) -> tuple:
    """Returns the arguments of `jm.report` and `jm.figures` for a saved sweep."""
    import pandas as pd

    noise = pd.read_csv(folder / NOISE_FILE) if (folder / NOISE_FILE).is_file() else None
    return jm.load_results(folder), options.target, noise


def draw(options: Options, folder: Path) -> str:
    """Draws the figures of a saved sweep beside its results, and returns the report."""
    saved = load(options, folder)
    figures, page = jm.figures(*saved, by=options.by), common.save_page(saved[0], folder, options.by)
    for name in sorted(figures, key=lambda name: name in LAST_FIGURES):
        common.save_figure(figures[name], folder / f"{name}.png")
    if figures:
        print(f"wrote {', '.join(f'{folder}/{name}.png' for name in sorted(figures))}, and each as SVG; {page}")
    return jm.report(*saved, by=options.by)


if __name__ == "__main__":
    common.main(main)

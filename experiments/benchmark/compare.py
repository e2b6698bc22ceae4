"""Measures this package beside its peers, side by side in one run, on the same data.

Times are those of warm rounds in which the peers take turns. The first call includes compilation, and evaluation is
timed separately. Times of different runs are not comparable; read the ratios, which are medians over rounds. A ratio in
parentheses decides nothing: it comes from one round, or from rounds that differ by more than a quarter. PyTorch and
TensorFlow take part if they are installed: pip install -e '.[bench,bench-tf]'. Writes benchmark.json and benchmark.png,
the figure as SVG too; with --costs, cost_curves.csv and cost_curves.png in their place.
"""

import functools
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.host.devices import DEFAULT_BYTES
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.sweep import plan

from . import columns, cost_curves, machine, networks, peers, peers_jax, report
from .memory import compare_sizes, measure_memory
from .work import Measured, Options, large_runs

GRID = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0.0, 0.2, 0.4, 0.6, 0.8], seed=0)
GRID_STEPS = 100
HALVING_STEPS = 500
FLOPS_PER_EXAMPLE = 31_360  # two matrix products of 2 x 784 x 10: logits, and the gradient of the kernel
# Of the mean accuracy over runs. Libraries round differently, and rates near 1 at batch size 8 amplify the difference.
MAX_DISAGREEMENT = 0.002
IMPORTS = ("import jaxmnist", "import jax, flax.linen, optax")


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.num_rounds < 1:
            raise ValueError(f"num_rounds is {options.num_rounds}; at least 1 round is needed")
        numbers, figure = ("cost_curves.csv", "cost_curves") if options.costs else ("benchmark.json", "benchmark")
        for path in common.files_in([options.output_dir], (numbers, *common.figure_names(figure))):
            if path.exists() and not options.overwrite:
                raise ValueError(f"{path} is an earlier measurement, or not ours; {common.OTHER_FOLDER}")
        common.make_output_dir(options.output_dir)
        dataset = options.load()
    # The first calls are meant to show how long compiling takes.
    jax.config.update("jax_compilation_cache_dir", None)
    measured_on = machine.machine()
    for name, value in measured_on.items():
        pairs = (f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"  {name.replace('_', ' ')}: {value if isinstance(value, str | int) else ', '.join(pairs)}")
    if options.costs:
        return cost_curves.save(options, measured_on)
    libraries = {name: installed(name) for name in ("torch", "tf")}
    measured = Measured()
    compare_on_grid(measured, options, dataset, libraries)
    compare_large_sweeps(measured, options, dataset, libraries)
    compare_cnns(measured, options, dataset, libraries)
    measure_starts(measured, options)
    if options.full or options.small:
        compare_model_libraries(measured, options, dataset)
        measure_memory(measured, options)
    if options.full:
        compare_sizes(measured, options)
        compare_halving(measured, dataset)
    report.save(measured.rows, measured.numbers, measured_on, options.output_dir / "benchmark.json")
    if options.keep:
        print(f"kept as {columns.keep(options.output_dir / 'benchmark.json', measured_on)}")
    common.save_figure(report.draw(measured.rows, measured_on), options.output_dir / "benchmark.png")
    print(f"wrote {options.output_dir}/benchmark.json and benchmark.png")


def installed(name: str) -> Any:
    """Returns the module of a library's peers; if the library is not installed, says so and returns None."""
    try:
        return importlib.import_module(f".peers_{name}", __package__)
    except ImportError as error:
        print(f"left out: the peers in peers_{name}.py ({error})")
        return None


def compare_peers(measured: Measured, work: str, compared: list[peers.Peer], rounds: int) -> None:
    """Compares training, and then evaluation of what was trained; stops if a peer did other work."""
    trained: dict[str, Any] = {}

    def train(peer):
        trained[peer.name] = peer.train()
        return trained[peer.name]

    def evaluate(peer):
        return peer.evaluate(trained[peer.name])

    measured.compare(f"{work}: training", {peer.name: functools.partial(train, peer) for peer in compared}, rounds)
    accuracies = {peer.name: evaluate(peer) for peer in compared}
    for name, each in accuracies.items():
        disagreement = np.abs(each - accuracies[compared[0].name]).mean()
        if disagreement > MAX_DISAGREEMENT:
            sys.exit(f"error: {name} differs by {disagreement:.4f} in accuracy, so it did not do the same work")
    again = {peer.name: functools.partial(evaluate, peer) for peer in compared}
    measured.compare(f"{work}: one evaluation on test", again, rounds)


def compare_on_grid(measured: Measured, options: Options, dataset: jm.Dataset, libraries: dict) -> None:
    """Compares all peers on the original grid with one seed."""
    work = (dataset, GRID, GRID_STEPS)
    compared = [
        peers.softmax_sweep(*work), peers.fit_per_cell(*work), peers_jax.vmap_by_hand(*work),
        peers_jax.scan_per_cell(*work), peers_jax.step_loop(*work),
    ]  # fmt: skip
    if options.full:
        compared.append(peers_jax.flax_style(*work))
    if libraries["torch"]:
        compared += [
            libraries["torch"].ensemble(*work, padded=True),
            libraries["torch"].ensemble(*work),
            libraries["torch"].eager_loop(*work),
        ]
        if options.full and libraries["torch"].can_compile():
            compared.append(libraries["torch"].ensemble(*work, compiled=True))
    if libraries["tf"]:
        compared.append(libraries["tf"].notebook(*work))
    work_name = f"original grid, {len(GRID['seed'])} runs x {GRID_STEPS} steps"
    compare_peers(measured, work_name, compared, options.num_rounds)


def compare_large_sweeps(measured: Measured, options: Options, dataset: jm.Dataset, libraries: dict) -> None:
    """Compares large sweeps, and our useful work per second with the peak of a matrix product."""
    runs, num_steps = large_runs(options.small)
    compared = [peers.softmax_sweep(dataset, runs, num_steps)]
    if libraries["torch"]:
        compared.append(libraries["torch"].ensemble(dataset, runs, num_steps))
        if options.full and libraries["torch"].can_compile():
            compared.append(libraries["torch"].ensemble(dataset, runs, num_steps, compiled=True))
    work = f"{len(runs['seed']):,} runs x {num_steps} steps, {len(np.unique(runs['batch_size']))} batch sizes"
    before = machine.peaks()
    compare_peers(measured, work, compared, options.num_rounds if options.full else 1)
    peak, bandwidth = (np.array(before) + machine.peaks()) / 2
    ours = next(row for row in measured.rows if row.work.startswith(work))
    useful = FLOPS_PER_EXAMPLE * num_steps * float(np.sum(runs["batch_size"]))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    planned = plan(make_job(make_setup(model, optax.sgd), runs, dataset, num_steps), DEFAULT_BYTES)
    measured.note("programs", len(planned), "")
    measured.note("padded over useful work", planning.padding(planned), "x")
    measured.note("useful work", useful / ours.median / 1e9, "GFLOP/s")
    measured.note("peak of a matrix product", peak / 1e9, "GFLOP/s")
    measured.note("peak of memory", bandwidth / 1e9, "GB/s")
    measured.note("share of the peak", 100 * useful / ours.median / peak, "%")


def compare_cnns(measured: Measured, options: Options, dataset: jm.Dataset, libraries: dict) -> None:
    """Compares the original CNN's training step, by itself, in a sweep and under `vmap`, and its evaluation on test."""
    num_steps, num_runs = (2, 2) if options.small else (20, 8)
    test = jm.Split(*(field[: 100 if options.small else None] for field in dataset.test))
    compared = [
        peers.cnn(dataset, test, num_steps),
        peers.cnn_sweep(dataset, num_steps, num_runs),
    ]
    if options.full or options.small:
        compared.append(peers.cnn_vmap(dataset, num_steps, num_runs))
    if libraries["torch"]:
        for channels_last, fused in ((False, False), (True, False), (True, True)):
            compared.append(libraries["torch"].cnn(dataset, test, num_steps, channels_last, fused))
    if libraries["tf"]:
        compared.append(libraries["tf"].cnn(dataset, test, num_steps))
    measured.compare(
        f"original CNN: one training step of {peers.CNN_BATCH_SIZE} images, per run",
        {peer.name: peer.train for peer in compared},
        options.num_rounds,
        {peer.name: num_steps * peer.runs for peer in compared},
    )
    alone = [peer for peer in compared if peer.runs == 1]
    measured.compare(
        f"original CNN: evaluation of {len(test.targets):,} images",
        {peer.name: functools.partial(peer.evaluate, None) for peer in alone},
        options.num_rounds,
    )


def compare_model_libraries(measured: Measured, options: Options, dataset: jm.Dataset) -> None:
    """Compares a step of our CNN with that of the same CNN written plainly in other libraries, alone and in a sweep."""
    num_steps, num_runs = (2, 2) if options.small else (20, 8)
    test = jm.Split(*(field[:100] for field in dataset.test))
    models: dict[str, Any] = {"jaxmnist": None}
    if dataset.train.inputs.shape[1:] == (28, 28, 1):
        models |= networks.networks()
    # Each of them compiles for seconds, and one shows that it works.
    if options.small:
        models = dict(list(models.items())[:2])
    for peers_of_all in (
        [peers.cnn(dataset, test, num_steps, model, name) for name, model in models.items()],
        [peers.cnn_sweep(dataset, num_steps, num_runs, model, name) for name, model in models.items()],
    ):
        where = "by itself" if peers_of_all[0].runs == 1 else "per run of a sweep"
        measured.compare(
            f"CNN in the layers of each library: one training step {where}",
            {peer.name: peer.train for peer in peers_of_all},
            options.num_rounds,
            {peer.name: num_steps * peer.runs for peer in peers_of_all},
        )


def measure_starts(measured: Measured, options: Options) -> None:
    """Measures whole processes: from the shell prompt to the default sweep's heat map, without and with cached
    compilations, and imports."""
    data = ["--dataset", options.dataset] if options.dataset else []
    data += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    script = Path(__file__).parents[1] / "sweep_grid.py"

    def sweep(cache: str):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(script), "--output-dir", folder, *data]
            subprocess.run(
                command, check=True, capture_output=True, env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
            )
            if not (Path(folder) / "heatmap.png").is_file():
                sys.exit("error: the sweep wrote no heat map")

    def first_time():
        with tempfile.TemporaryDirectory() as cache:
            sweep(cache)

    with tempfile.TemporaryDirectory() as cache:
        measured.compare(
            "from the prompt to the heat map",
            {"jaxmnist, first time": first_time, "jaxmnist, again": functools.partial(sweep, cache)},
            options.num_rounds if options.full else 1,
        )
    measured.compare(
        "imports",
        {code: functools.partial(subprocess.run, [sys.executable, "-c", code], check=True) for code in IMPORTS},
        options.num_rounds,
    )


def compare_halving(measured: Measured, dataset: jm.Dataset) -> None:
    """Compares successive halving with the whole sweep of 1,024 runs, in time and in the setting that it chooses."""
    runs = jm.grid(learning_rate=np.geomspace(1e-3, 10, 16), batch_size=np.arange(32, 513, 32), seed=range(4))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    shared: dict = dict(num_steps=HALVING_STEPS, progress=False)
    found = {}
    for name, search in (("whole", jm.sweep), ("halving 4", functools.partial(jm.halve, factor=4))):
        search(model, optax.sgd, runs, dataset, **shared)
        start = time.perf_counter()
        result = search(model, optax.sgd, runs, dataset, **shared)
        found[name] = result, time.perf_counter() - start
        best = jm.best(result)
        assert best is not None, "every setting diverged"
        mean, low, high, _ = best.validation
        print(
            f"  {name:10s} {found[name][1]:7.2f} s   {best.setting}, "
            f"validation {100 * mean:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
        )
    (whole, whole_s), (halved, halved_s) = found.values()
    best = jm.best(halved)
    assert best is not None, "every setting diverged"
    winner = best.setting
    tied = jm.ties(whole)
    same = tied[(tied["learning_rate"] == winner["learning_rate"]) & (tied["batch_size"] == winner["batch_size"])]
    place = "the whole sweep's winner" if same.index[0] == 0 else "another setting"
    measured.note("time of halving over that of the whole sweep", halved_s / whole_s, "x")
    print(f"  chosen: {place}, which compares with the winner as: {same['standing'].iloc[0]}")

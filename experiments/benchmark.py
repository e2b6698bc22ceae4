"""Measures this package beside its peers, side by side in one run, on the same data.

Times are of warm rounds in which the peers take turns; compilation is in the first call, and evaluation is timed apart.
The times of different runs do not compare: read the ratios, medians over rounds. PyTorch and TensorFlow take part where
they are installed: pip install -e '.[bench,bench-tf]'. Writes benchmark.json and benchmark.png, as SVG too.
"""

import dataclasses
import functools
import importlib
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import benchmark_report
import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers
import tyro

import jaxmnist as jm
from jaxmnist.host.devices import DEFAULT_BYTES
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.sweep import plan

GRID = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0.0, 0.2, 0.4, 0.6, 0.8], seed=0)
GRID_STEPS = 100
LARGE_STEPS = 200
SCALE_STEPS, SCALE_RUNS = 20, (256, 2_048, 65_536)
HALVING_STEPS = 500
FLOPS_PER_EXAMPLE = 31_360  # two matrix products of 2 x 784 x 10: logits, and the gradient of the kernel
SGEMM_SIZE = 2048
# On the mean over runs. Rounding differs between libraries, and at rates near 1 and batch size 8 training amplifies it.
MAX_DISAGREEMENT = 0.002
IMPORTS = ("import jaxmnist", "import jax, flax.linen, optax")


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    num_rounds: int = 3
    """Warm rounds of each measurement; without --full, 1 of the large sweep and of whole processes."""
    full: bool = False
    """Measure also what takes minutes: all rounds, flax's example, CNNs under one vmap, memory, costs of up to 65,536
    runs, and halving."""
    small: bool = False
    """Work so small that it measures nothing: to see that everything runs."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/benchmark")
    """Folder for benchmark.json and benchmark.png."""
    overwrite: bool = False
    """Replace an earlier measurement in the output folder."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.num_rounds < 1:
            raise ValueError(f"num_rounds is {options.num_rounds}; at least 1 round is needed")
        for path in common.files_in([options.output_dir], ("benchmark.json", *common.figure_names("benchmark"))):
            if path.exists() and not options.overwrite:
                raise ValueError(f"{path} is of an earlier measurement, or a person's; {common.OTHER_FOLDER}")
        common.make_output_dir(options.output_dir)
        dataset = options.load()
    # The first calls are to tell what compiling takes.
    jax.config.update("jax_compilation_cache_dir", None)
    measured_on = benchmark_report.machine()
    print(f"{measured_on['cpu']}, {measured_on['cores']} cores, {', '.join(measured_on['devices'])}")
    libraries = {name: installed(name) for name in ("torch", "tf")}
    measured = Measured()
    compare_on_grid(measured, options, dataset, libraries)
    compare_large_sweeps(measured, options, dataset, libraries)
    compare_cnns(measured, options, dataset, libraries)
    measure_starts(measured, options)
    if options.full or options.small:
        measure_memory(measured, options)
    if options.full:
        compare_sizes(measured, options)
        compare_halving(measured, dataset)
    benchmark_report.save(measured.rows, measured.numbers, measured_on, options.output_dir / "benchmark.json")
    common.save_figure(benchmark_report.draw(measured.rows, measured_on), options.output_dir / "benchmark.png")
    print(f"wrote {options.output_dir}/benchmark.json and benchmark.png")


def installed(name: str) -> Any:
    """Returns the module of a library's peers, or None, and says so, where the library is not installed."""
    try:
        return importlib.import_module(f"peers_{name}")
    except ImportError as error:
        print(f"left out: the peers in peers_{name}.py ({error})")
        return None


class Measured:
    """What was measured so far: rows of times, and single numbers by name."""

    def __init__(self) -> None:
        self.rows: list[benchmark_report.Row] = []
        self.numbers: dict[str, float] = {}

    def compare(self, work: str, calls: Mapping[str, Callable[[], object]], rounds: int, scale=None) -> None:
        """Times calls in turns, per unit of `scale`, and prints their table."""
        scale = scale or {}
        first = {name: seconds(call) for name, call in calls.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(seconds(call) / scale.get(name, 1))
        rows = [benchmark_report.Row(work, name, times[name], first[name]) for name in calls]
        benchmark_report.print_table(rows)
        self.rows += rows

    def note(self, name: str, value: float, unit: str) -> None:
        """Prints and keeps a number."""
        print(f"  {name}: {value:.3g} {unit}")
        self.numbers[f"{name} ({unit})"] = value


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes, until the last of its arrays is there."""
    start = time.perf_counter()
    arrays = [leaf for leaf in jax.tree.leaves(call()) if isinstance(leaf, jax.Array)]
    jax.block_until_ready(arrays)
    return time.perf_counter() - start


def compare_peers(measured: Measured, work: str, compared: list[peers.Peer], rounds: int) -> None:
    """Compares training, and then evaluation of what was trained; stops where a peer did other work."""
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
        peers.softmax_sweep(*work), peers.fit_per_cell(*work), peers.scan_per_cell(*work), peers.step_loop(*work)
    ]  # fmt: skip
    if options.full:
        compared.append(peers.flax_style(*work))
    if libraries["torch"]:
        compared += [
            libraries["torch"].ensemble(*work, padded=True),
            libraries["torch"].ensemble(*work, padded=False),
            libraries["torch"].eager_loop(*work),
        ]
    if libraries["tf"]:
        compared.append(libraries["tf"].notebook(*work))
    work_name = f"original grid, {len(GRID['seed'])} runs x {GRID_STEPS} steps"
    compare_peers(measured, work_name, compared, options.num_rounds)


def compare_large_sweeps(measured: Measured, options: Options, dataset: jm.Dataset, libraries: dict) -> None:
    """Compares large sweeps; measures at which share of a matrix product's peak ours trains, by useful work alone."""
    runs, num_steps = large_runs(options.small)
    compared = [peers.softmax_sweep(dataset, runs, num_steps)]
    if libraries["torch"]:
        compared.append(libraries["torch"].ensemble(dataset, runs, num_steps, padded=False))
    work = f"{len(runs['seed']):,} runs x {num_steps} steps, {len(np.unique(runs['batch_size']))} batch sizes"
    matrix = jnp.ones((SGEMM_SIZE, SGEMM_SIZE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    seconds(lambda: multiply(matrix, matrix))

    def peak_flops():
        return 2 * SGEMM_SIZE**3 / min(seconds(lambda: multiply(matrix, matrix)) for _ in range(20))

    before = peak_flops()
    compare_peers(measured, work, compared, options.num_rounds if options.full else 1)
    peak = (before + peak_flops()) / 2
    ours = next(row for row in measured.rows if row.work.startswith(work))
    useful = FLOPS_PER_EXAMPLE * num_steps * float(np.sum(runs["batch_size"]))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    checked = jm.check(model, optax.sgd, runs, dataset, num_steps)
    planned = plan(model, optax.sgd, checked, dataset, DEFAULT_BYTES, num_steps)
    measured.note("programs", len(planned), "")
    measured.note("padded over useful work", planning.padding(planned), "x")
    measured.note("useful work", useful / ours.median / 1e9, "GFLOP/s")
    measured.note("peak of a matrix product", peak / 1e9, "GFLOP/s")
    measured.note("share of the peak", 100 * useful / ours.median / peak, "%")


def large_runs(small: bool) -> tuple[dict, int]:
    """Returns 2,048 runs and their number of steps."""
    num_learning_rates, num_seeds, num_steps = (4, 2, 20) if small else (32, 4, LARGE_STEPS)
    batch_sizes = np.unique(np.geomspace(8, 512, 4 if small else 16).round().astype(int))
    learning_rates = np.geomspace(1e-3, 1, num_learning_rates)
    return jm.grid(learning_rate=learning_rates, batch_size=batch_sizes, seed=range(num_seeds)), num_steps


def compare_cnns(measured: Measured, options: Options, dataset: jm.Dataset, libraries: dict) -> None:
    """Compares the original CNN's training step, alone, in a sweep and under `vmap`, and its evaluation on test."""
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
        f"original CNN: evaluation of {len(test.labels):,} images",
        {peer.name: functools.partial(peer.evaluate, None) for peer in alone},
        options.num_rounds,
    )


def measure_starts(measured: Measured, options: Options) -> None:
    """Measures processes: from the shell prompt to the default sweep's heat map, without and with what compiling left
    in the cache; and imports."""
    data = ["--dataset", options.dataset] if options.dataset else []
    data += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    script = Path(__file__).with_name("sweep_grid.py")

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


def measure_memory(measured: Measured, options: Options) -> None:
    """Measures by how much the peak of resident memory grows during the large sweep, each time in a process of its own:
    one that compiles its programs, and one that finds them compiled."""
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compiling", "compiled before"):
            grown, states = in_own_process(growth, options, cache)
            measured.note(
                f"growth of peak memory over bytes of parameters and optimizer state, {name}", grown / states, "x"
            )


def in_own_process(function: Callable, *arguments):
    """Returns what a function returns in a fresh process, whose peak of memory nothing else has touched."""
    with multiprocessing.get_context("spawn").Pool(1, jm.use_cores) as pool:
        return pool.apply(function, arguments)


def growth(options: Options, cache: str) -> tuple[int, int]:
    """Returns by how many bytes the large sweep makes this process's peak grow, and the bytes of its states."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    common.keep_compiled_programs()
    dataset = options.load()
    runs, num_steps = large_runs(options.small)
    model = jm.SoftmaxRegression(len(dataset.class_names))
    jm.check(model, optax.sgd, runs, dataset, num_steps)
    jax.block_until_ready(jnp.zeros(()) + 1)
    for name in jm.__all__:
        getattr(jm, name)
    before = peak_bytes()
    jm.sweep(model, optax.sgd, runs, dataset, num_steps=num_steps, progress=False)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *dataset.train.images.shape[1:])))
    return peak_bytes() - before, len(runs["seed"]) * sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def peak_bytes() -> int:
    """Returns the peak of this process's resident memory; where Linux tells, its own and not that of who started it."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    # In bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare_sizes(measured: Measured, options: Options) -> None:
    """Measures time per run, and memory, of sweeps from few to many runs, each in a process of its own."""
    print(f"runs of a sweep, {SCALE_STEPS} steps, batch sizes 32 and 64, training and evaluation without compilation")
    costs = []
    for num_runs in SCALE_RUNS:
        seconds_taken, peak = in_own_process(sweep_of, options, num_runs)
        costs.append(seconds_taken / num_runs)
        measured.note(f"a sweep of {num_runs:,} runs, per run", 1e3 * costs[-1], "ms")
        measured.note(f"a sweep of {num_runs:,} runs, peak memory", peak / 2**30, "GiB")
    measured.note("cost per run, largest over smallest", max(costs) / min(costs), "x")


def sweep_of(options: Options, num_runs: int) -> tuple[float, int]:
    """Returns the seconds of a sweep of so many runs, and the peak of this process's resident memory in bytes."""
    dataset = options.load()
    rates = np.geomspace(1e-3, 1, num_runs // 8)
    runs = jm.grid(learning_rate=rates, batch_size=[32, 64], seed=range(4))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    # Compiles what the sweep will need: its programs are all of a few shapes.
    jm.estimate(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS)
    taken = []
    # A long sweep takes the machine's quick and slow moments as they come, and many short ones do.
    for _ in range(min(max(SCALE_RUNS) // num_runs, 9)):
        start = time.perf_counter()
        jm.sweep(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS, progress=False)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)), peak_bytes()


def compare_halving(measured: Measured, dataset: jm.Dataset) -> None:
    """Measures successive halving beside the whole sweep of 1,024 runs, and whether it finds the same setting."""
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
    print(f"  chosen: {place}, {'' if same['is_tied'].iloc[0] else 'not '}tied with the winner")


if __name__ == "__main__":
    common.main(main)

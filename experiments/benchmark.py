"""Measures this package against its peers, side by side in one run.

Times are medians of warm rounds in which the peers take turns; compilation and evaluation are reported apart. The times
of different runs do not compare: read the ratios. Needs the extra `bench` (pip install -e '.[bench]').
"""

import dataclasses
import functools
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers

import jaxmnist as jm
from jaxmnist import memory, planning, programs
from jaxmnist.sweep import plan, put, segments, train

LARGE_STEPS = 200
SCALE_STEPS, SCALE_RUNS = 20, (2_000, 100_000)
HALVING_STEPS = 500
FLOPS_PER_EXAMPLE = 31_360  # two matrix products of 2 x 784 x 10: logits, and the gradient of the kernel
SGEMM_SIZE = 2048
# Rounding differs between libraries, and an image on the border between two classes may fall to either side.
MAX_DISAGREEMENT = 0.002


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    num_rounds: int = 5
    """Warm rounds of each measurement."""
    full: bool = False
    """Measure also what takes minutes: 100,000 runs beside 2,000 of the same kind, and successive halving."""
    small: bool = False
    """A sweep of 32 runs in place of the one of 2,048: to see that everything works, not to measure."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.num_rounds < 1:
            raise ValueError(f"num_rounds is {options.num_rounds}; at least 1 round is needed")
        dataset = options.load()
        on_grid: dict[str, Callable[[], np.ndarray]] = {
            "jaxmnist, one program": functools.partial(peers.jaxmnist_sweep, dataset),
            "our fit, cell after cell": functools.partial(peers.fit_per_cell, dataset),
            "plain JAX scan per cell": peers.plain_jax_per_cell(dataset),
            "PyTorch, eager loop": peers.torch_loop(dataset),
        }
    compare_on_grid(on_grid, options.num_rounds)
    measure_large_sweep(dataset, options.num_rounds, options.small)
    compare_cnns(dataset, options.num_rounds, options.small)
    measure_from_prompt(options)
    if options.full:
        compare_sizes(options)
        compare_halving(dataset)


def seconds(work: Callable[[], object]) -> float:
    """Returns how long the work takes, until the last of its arrays is there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def compare_on_grid(on_grid: dict[str, Callable[[], np.ndarray]], num_rounds: int) -> None:
    """Prints the times of all peers on the default grid with one seed: training, and one evaluation on test."""
    print(f"default grid, 1 seed: {len(peers.GRID['seed'])} runs x {peers.GRID_STEPS} steps and one evaluation on test")
    first = {name: seconds(peer) for name, peer in on_grid.items()}
    accuracies = {name: peer() for name, peer in on_grid.items()}
    times = [{name: seconds(peer) for name, peer in on_grid.items()} for _ in range(num_rounds)]
    ours = next(iter(on_grid))
    for name in on_grid:
        ratio = statistics.median(row[name] / row[ours] for row in times)
        median = statistics.median(row[name] for row in times)
        print(f"  {name:26s} {median:7.3f} s   {ratio:5.1f} x ours   (first call {first[name]:.2f} s)")
        disagreement = np.abs(accuracies[name] - accuracies[ours]).max()
        if disagreement > MAX_DISAGREEMENT:
            sys.exit(f"error: {name} differs by {disagreement:.4f} in accuracy, so it did not do the same work")


def measure_large_sweep(dataset: jm.Dataset, num_rounds: int, small: bool) -> None:
    """Prints how much of the peak of a matrix product a large sweep trains at, useful work counted alone."""
    num_learning_rates, num_seeds, num_steps = (4, 2, 20) if small else (32, 4, LARGE_STEPS)
    batch_sizes = np.unique(np.geomspace(8, 512, 4 if small else 16).round().astype(int))
    learning_rates = np.geomspace(1e-3, 1, num_learning_rates)
    runs = jm.grid(learning_rate=learning_rates, batch_size=batch_sizes, seed=range(num_seeds))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    checked = jm.check(model, optax.sgd, runs, dataset, num_steps)
    planned = plan(model, optax.sgd, checked, dataset, memory.DEFAULT_BYTES, num_steps)
    mesh = programs.local_mesh()
    data = put(mesh, dataset)
    boundaries, _ = segments(num_steps, 1)

    def train_all():
        finished = []
        for program in planned:
            recipe = programs.Recipe(model, optax.sgd, program.static, mesh)
            numbers = programs.inputs(mesh, checked.arrays, program)
            initial = programs.init(recipe, numbers, data.train.images)
            for _, states in train(recipe, numbers, program, data.train, initial, boundaries):
                jax.block_until_ready(states.step)
            finished.append((recipe, numbers, states.params))
        return finished

    first = seconds(train_all)
    trained = train_all()

    def evaluate_all():
        return [programs.evaluate(*of_program, data.test) for of_program in trained]

    jax.block_until_ready(evaluate_all())
    useful = FLOPS_PER_EXAMPLE * num_steps * float(checked.arrays["batch_size"].sum())
    matrix = jnp.ones((SGEMM_SIZE, SGEMM_SIZE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    rounds = []
    for _ in range(num_rounds):
        peak = 2 * SGEMM_SIZE**3 / min(seconds(lambda: multiply(matrix, matrix)) for _ in range(20))
        rounds.append((peak, seconds(train_all), seconds(evaluate_all)))
    peak, training_s, evaluation_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = statistics.median(useful / row[1] / row[0] for row in rounds)
    print(f"large sweep: {len(checked.arrays['seed'])} runs x {num_steps} steps, {len(batch_sizes)} batch sizes, SGD")
    print(f"  programs {len(planned)}, padding {planning.padding(planned):.2f} x, first call {first:.2f} s")
    print(f"  training   {training_s:7.2f} s   {useful / training_s / 1e9:6.1f} useful GFLOP/s")
    print(f"  evaluation {evaluation_s:7.2f} s   (once on test)")
    print(f"  share of the matrix product peak of {peak / 1e9:.0f} GFLOP/s: {100 * share:.0f} %")


def compare_cnns(dataset: jm.Dataset, num_rounds: int, small: bool) -> None:
    """Prints times of the original CNN's training step, alone and under `vmap`, and of its evaluation on test."""
    num_steps, num_runs = (2, 2) if small else (20, 8)
    test = jm.Split(*(field[: 100 if small else None] for field in dataset.test))
    one, evaluate = peers.jaxmnist_cnn(dataset, test, num_steps, 1)
    many, _ = peers.jaxmnist_cnn(dataset, test, num_steps, num_runs)
    training_peers = {"jaxmnist": one, f"jaxmnist, vmap of {num_runs}": many}
    evaluation_peers = {"jaxmnist": evaluate}
    for name, channels_last, fused in (
        ("PyTorch, eager", False, False),
        ("PyTorch, channels_last", True, False),
        ("PyTorch, channels_last, fused Adam", True, True),
    ):
        training_peers[name], evaluation_peers[name] = peers.torch_cnn(dataset, test, num_steps, channels_last, fused)
    scale = {name: num_steps * (num_runs if "vmap" in name else 1) for name in training_peers}
    print(f"CNN, one training step of {peers.CNN_BATCH_SIZE} images, per run")
    print_ratios(training_peers, scale, num_rounds)
    print(f"CNN, evaluation of {len(test.labels)} images")
    print_ratios(evaluation_peers, dict.fromkeys(evaluation_peers, 1), num_rounds)


def print_ratios(compared: dict[str, Callable[[], object]], scale: dict[str, int], num_rounds: int) -> None:
    """Prints each peer's median time, and the median of its ratios to the first."""
    first = {name: seconds(peer) for name, peer in compared.items()}
    times = [{name: seconds(peer) / scale[name] for name, peer in compared.items()} for _ in range(num_rounds)]
    ours = next(iter(compared))
    for name in compared:
        ratio = statistics.median(row[name] / row[ours] for row in times)
        median = statistics.median(row[name] for row in times)
        print(f"  {name:36s} {1e3 * median:8.1f} ms   {ratio:5.2f} x ours   (first call {first[name]:.2f} s)")


def compare_sizes(options: Options) -> None:
    """Prints time and memory of sweeps of 2,000 and of 100,000 runs, each in a process of its own, and per run."""
    print(f"runs of a sweep, {SCALE_STEPS} steps, batch sizes 32 and 64, training and evaluation without compilation")
    costs = []
    for num_runs in SCALE_RUNS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds_taken, peak = pool.apply(sweep_of, (options, num_runs))
        costs.append(seconds_taken / num_runs)
        print(f"  {num_runs:7,d} runs {seconds_taken:8.1f} s   {1e3 * costs[-1]:6.3f} ms a run   peak {peak:.2f} GiB")
    print(f"  cost per run, most over fewest runs: {costs[-1] / costs[0]:.2f}")


def sweep_of(options: Options, num_runs: int) -> tuple[float, float]:
    """Returns the seconds of a sweep of so many runs, and the peak of this process's resident memory in GiB."""
    dataset = options.load()
    rates = np.geomspace(1e-3, 1, num_runs // 8)
    runs = jm.grid(learning_rate=rates, batch_size=[32, 64], seed=range(4))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    # Compiles what the sweep will need: its programs are all of a few shapes.
    jm.estimate(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS)
    taken = []
    for _ in range(3 if num_runs == min(SCALE_RUNS) else 1):
        start = time.perf_counter()
        jm.sweep(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS, progress=False)
        taken.append(time.perf_counter() - start)
    return min(taken), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_halving(dataset: jm.Dataset) -> None:
    """Prints the time and the choice of successive halving beside those of the whole sweep of 1,024 runs."""
    runs = jm.grid(learning_rate=np.geomspace(1e-3, 10, 16), batch_size=np.arange(32, 513, 32), seed=range(4))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    shared: dict = dict(num_steps=HALVING_STEPS, progress=False)
    found = {}
    for name, search in (("whole", jm.sweep), ("halving 4", functools.partial(jm.halve, factor=4))):
        search(model, optax.sgd, runs, dataset, **shared)
        start = time.perf_counter()
        result = search(model, optax.sgd, runs, dataset, **shared)
        found[name] = result, time.perf_counter() - start
        mean, low, high, _ = jm.best(result).validation
        print(
            f"  {name:10s} {found[name][1]:7.2f} s   {jm.best(result).setting}, "
            f"validation {100 * mean:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
        )
    (whole, whole_s), (halved, halved_s) = found.values()
    winner = jm.best(halved).setting
    tied = jm.ties(whole)
    same = tied[(tied["learning_rate"] == winner["learning_rate"]) & (tied["batch_size"] == winner["batch_size"])]
    place = "the whole sweep's winner" if same.index[0] == 0 else "another setting"
    print(
        f"  share of the time: {halved_s / whole_s:.2f}; chosen: {place}, "
        f"{'' if same['is_tied'].iloc[0] else 'not '}tied with the winner"
    )


def measure_from_prompt(options: Options) -> None:
    """Prints the time from the shell prompt to the saved heat map of the default sweep."""
    data = ["--dataset", options.dataset] if options.dataset else []
    data += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    script = Path(__file__).with_name("sweep_grid.py")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, str(script), "--output-dir", folder, *data], check=True, stdout=subprocess.DEVNULL
        )
        elapsed = time.perf_counter() - start
        if not (Path(folder) / "heatmap.png").is_file():
            sys.exit("error: the sweep wrote no heat map")
    print(f"from the prompt to the heat map: {elapsed:.1f} s")


if __name__ == "__main__":
    common.main(main)

"""Measures this package against its peers, side by side in one run.

Times are medians of warm rounds in which the peers take turns; compilation and evaluation are reported apart. The times
of different runs do not compare: read the ratios. Needs the extra `bench` (pip install -e '.[bench]').
"""

import dataclasses
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import common
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist import memory, planning, programs, training
from jaxmnist.sweep import plan, put, segments, train

GRID = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0.0, 0.2, 0.4, 0.6, 0.8], seed=0)
GRID_STEPS = 100
LARGE_STEPS = 200
FLOPS_PER_EXAMPLE = 31_360  # two matrix products of 2 x 784 x 10: logits, and the gradient of the kernel
CNN_BATCH_SIZE = 50
SGEMM_SIZE = 2048
# Rounding differs between libraries, and an image on the border between two classes may fall to either side.
MAX_DISAGREEMENT = 0.002


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    num_rounds: int = 5
    """Warm rounds of each measurement."""
    small: bool = False
    """A sweep of 32 runs in place of the one of 2,048: to see that everything works, not to measure."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.num_rounds < 1:
            raise ValueError(f"num_rounds is {options.num_rounds}; at least 1 round is needed")
        dataset = options.load()
        peers: dict[str, Callable[[], np.ndarray]] = {
            "jaxmnist, one program": functools.partial(jaxmnist_sweep, dataset),
            "our fit, cell after cell": functools.partial(fit_per_cell, dataset),
            "plain JAX scan per cell": plain_jax_per_cell(dataset),
            "PyTorch, eager loop": torch_loop(dataset),
        }
    compare_on_grid(peers, options.num_rounds)
    measure_large_sweep(dataset, options.num_rounds, options.small)
    compare_cnns(dataset, options.num_rounds, options.small)
    measure_from_prompt(options)


def seconds(work: Callable[[], object]) -> float:
    """Returns how long the work takes, until the last of its arrays is there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def compare_on_grid(peers: dict[str, Callable[[], np.ndarray]], num_rounds: int) -> None:
    """Prints the times of all peers on the default grid with one seed: training, and one evaluation on test."""
    print(f"default grid, 1 seed: {len(GRID['seed'])} runs x {GRID_STEPS} steps and one evaluation on test")
    first = {name: seconds(peer) for name, peer in peers.items()}
    accuracies = {name: peer() for name, peer in peers.items()}
    times = [{name: seconds(peer) for name, peer in peers.items()} for _ in range(num_rounds)]
    ours = next(iter(peers))
    for name in peers:
        ratio = statistics.median(row[name] / row[ours] for row in times)
        median = statistics.median(row[name] for row in times)
        print(f"  {name:26s} {median:7.3f} s   {ratio:5.1f} x ours   (first call {first[name]:.2f} s)")
        disagreement = np.abs(accuracies[name] - accuracies[ours]).max()
        if disagreement > MAX_DISAGREEMENT:
            sys.exit(f"error: {name} differs by {disagreement:.4f} in accuracy, so it did not do the same work")


def jaxmnist_sweep(dataset: jm.Dataset) -> np.ndarray:
    """Returns test accuracies `[R]` of the grid: the library as a person calls it, evaluating on validation as well."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    result = jm.sweep(model, optax.sgd, GRID, dataset, num_steps=GRID_STEPS, progress=False)
    return result["test_accuracy"].sel(seed=0).transpose("batch_size", "learning_rate").values.ravel()


def fit_per_cell(dataset: jm.Dataset) -> np.ndarray:
    """Returns the same, by this package's `fit` and `evaluate`, jitted, for one cell after another."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    split, test = jax.device_put(dataset.train), jax.device_put(dataset.test)
    accuracies = []
    for batch_size, learning_rate in zip(GRID["batch_size"], GRID["learning_rate"], strict=True):
        order = jm.example_order(len(split.labels), 0, GRID_STEPS * batch_size)
        params = _fit_alone(model, jnp.float32(learning_rate), split, order, batch_size=int(batch_size))
        accuracies.append(_evaluate_alone(model, params, test).accuracy)
    return np.array(accuracies)


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _fit_alone(model, learning_rate, split, order, *, batch_size):
    optimizer = optax.sgd(learning_rate)
    state = training.init_state(model, optimizer, 0, split.images)
    return training.fit(model, optimizer, state, split, order, batch_size, num_steps=GRID_STEPS)[0].params


_evaluate_alone = jax.jit(training.evaluate, static_argnames=("model",))


def plain_jax_per_cell(dataset: jm.Dataset) -> Callable[[], np.ndarray]:
    """Returns a function that does the same as a person would write it with jax, flax and optax alone."""
    model = nn.Dense(len(dataset.class_names), kernel_init=nn.initializers.zeros)
    images = jnp.asarray(dataset.train.images.reshape(len(dataset.train.images), -1), jnp.float32) / 255
    test_images = jnp.asarray(dataset.test.images.reshape(len(dataset.test.images), -1), jnp.float32) / 255
    labels, test_labels = jnp.asarray(dataset.train.labels), jnp.asarray(dataset.test.labels)

    @jax.jit
    def fit(learning_rate, images, labels, order):
        optimizer = optax.sgd(learning_rate)
        params = model.init(jax.random.key(0), images[:1])

        def loss(params, rows):
            logits = model.apply(params, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        def step(carry, rows):
            params, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(params, rows), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), order)[0][0]

    @jax.jit
    def accuracy(params, images, labels):
        logits = cast(jax.Array, model.apply(params, images))
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    def loop():
        accuracies = []
        for batch_size, learning_rate in zip(GRID["batch_size"], GRID["learning_rate"], strict=True):
            order = jm.example_order(len(labels), 0, GRID_STEPS * batch_size).reshape(GRID_STEPS, batch_size)
            params = fit(jnp.float32(learning_rate), images, labels, order)
            accuracies.append(accuracy(params, test_images, test_labels))
        return np.array(accuracies)

    return loop


def torch_loop(dataset: jm.Dataset) -> Callable[[], np.ndarray]:
    """Returns a function that does the same by a plain PyTorch loop; the data are float tensors from the start.

    Raises:
      ValueError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ValueError("torch is missing; install it by pip install -e '.[bench]'") from None

    def tensors(split):
        images = torch.from_numpy(split.images.reshape(len(split.images), -1)).float() / 255
        return images, torch.from_numpy(split.labels).long()

    images, labels = tensors(dataset.train)
    test_images, test_labels = tensors(dataset.test)

    def loop():
        accuracies = []
        for batch_size, learning_rate in zip(GRID["batch_size"].tolist(), GRID["learning_rate"].tolist(), strict=True):
            order = torch.from_numpy(jm.example_order(len(labels), 0, GRID_STEPS * batch_size)).long()
            model = torch.nn.Linear(images.shape[1], len(dataset.class_names))
            torch.nn.init.zeros_(model.weight)
            torch.nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracies.append((model(test_images).argmax(1) == test_labels).float().mean().item())
        return np.array(accuracies)

    return loop


def measure_large_sweep(dataset: jm.Dataset, num_rounds: int, small: bool) -> None:
    """Prints how much of the peak of a matrix product a large sweep trains at, useful work counted alone."""
    num_learning_rates, num_seeds, num_steps = (4, 2, 20) if small else (32, 4, LARGE_STEPS)
    batch_sizes = np.unique(np.geomspace(8, 512, 4 if small else 16).round().astype(int))
    learning_rates = np.geomspace(1e-3, 1, num_learning_rates)
    runs = jm.grid(learning_rate=learning_rates, batch_size=batch_sizes, seed=range(num_seeds))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    checked = jm.check(model, optax.sgd, runs, dataset, num_steps)
    planned = plan(model, optax.sgd, checked, dataset, memory.DEFAULT_BYTES)
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
    one, evaluate = jaxmnist_cnn(dataset, test, num_steps, 1)
    many, _ = jaxmnist_cnn(dataset, test, num_steps, num_runs)
    training_peers = {"jaxmnist": one, f"jaxmnist, vmap of {num_runs}": many}
    evaluation_peers = {"jaxmnist": evaluate}
    for name, channels_last, fused in (
        ("PyTorch, eager", False, False),
        ("PyTorch, channels_last", True, False),
        ("PyTorch, channels_last, fused Adam", True, True),
    ):
        training_peers[name], evaluation_peers[name] = torch_cnn(dataset, test, num_steps, channels_last, fused)
    scale = {name: num_steps * (num_runs if "vmap" in name else 1) for name in training_peers}
    print(f"CNN, one training step of {CNN_BATCH_SIZE} images, per run")
    print_ratios(training_peers, scale, num_rounds)
    print(f"CNN, evaluation of {len(test.labels)} images")
    print_ratios(evaluation_peers, dict.fromkeys(evaluation_peers, 1), num_rounds)


def print_ratios(peers: dict[str, Callable[[], object]], scale: dict[str, int], num_rounds: int) -> None:
    """Prints each peer's median time, and the median of its ratios to the first."""
    first = {name: seconds(peer) for name, peer in peers.items()}
    times = [{name: seconds(peer) / scale[name] for name, peer in peers.items()} for _ in range(num_rounds)]
    ours = next(iter(peers))
    for name in peers:
        ratio = statistics.median(row[name] / row[ours] for row in times)
        median = statistics.median(row[name] for row in times)
        print(f"  {name:36s} {1e3 * median:8.1f} ms   {ratio:5.2f} x ours   (first call {first[name]:.2f} s)")


def jaxmnist_cnn(dataset, test, num_steps: int, num_runs: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns functions that go on training, and that evaluate; several runs under `vmap`, each with its own order."""
    model, optimizer = jm.CNN(num_classes=len(dataset.class_names)), optax.adam(1e-4)
    split, on_device = jax.device_put(dataset.train), jax.device_put(test)
    seeds = jnp.arange(num_runs)
    length = num_steps * CNN_BATCH_SIZE
    orders = np.stack([jm.example_order(len(split.labels), seed, length) for seed in range(num_runs)])
    if num_runs == 1:
        seeds, orders = seeds[0], orders[0]
    init = functools.partial(jm.init_state, model, optimizer, images=split.images)

    def fit(state, split, order):
        return jm.fit(model, optimizer, state, split, order, CNN_BATCH_SIZE, num_steps=num_steps)[0]

    if num_runs > 1:
        init, fit = jax.vmap(init), jax.vmap(fit, in_axes=(0, None, 0))
    advance = jax.jit(fit, donate_argnums=0)
    states = [jax.jit(init)(seeds)]

    def go_on():
        states[0] = advance(states[0], split, orders)
        return states[0].step

    return go_on, lambda: _evaluate_alone(model, states[0].params, on_device)


def torch_cnn(dataset, test, num_steps: int, channels_last: bool, fused: bool):
    """Returns the same of PyTorch's; the data are float tensors from the start."""
    import torch
    from torch import nn as tnn

    def tensors(split):
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        return images, torch.from_numpy(split.labels).long()

    images, labels = tensors(dataset.train)
    test_images, test_labels = tensors(test)
    side = dataset.train.images.shape[1] // 4
    layers = (
        *(tnn.Conv2d(1, 32, 5, padding=2), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Conv2d(32, 64, 5, padding=2), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Flatten(), tnn.Linear(64 * side * side, 1024), tnn.ReLU(), tnn.Dropout(0.5)),
        tnn.Linear(1024, len(dataset.class_names)),
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = tnn.Sequential(*layers)
    model = model.to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    order = torch.from_numpy(jm.example_order(len(labels), 0, num_steps * CNN_BATCH_SIZE)).long()

    def go_on():
        model.train()
        for rows in order.split(CNN_BATCH_SIZE):
            batch = images[rows].contiguous(memory_format=memory_format)
            optimizer.zero_grad()
            tnn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()

    def evaluate():
        model.eval()
        with torch.no_grad():
            batches = zip(test_images.split(500), test_labels.split(500), strict=True)
            return sum(
                (model(batch.contiguous(memory_format=memory_format)).argmax(1) == answers).sum().item()
                for batch, answers in batches
            )

    return go_on, evaluate


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

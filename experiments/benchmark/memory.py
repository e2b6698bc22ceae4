"""Memory, and time per run of small and large sweeps, each measured in a process of its own."""

import multiprocessing
import os
import re
import resource
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

import jaxmnist as jm

from .work import Measured, Options, large_runs

SCALE_STEPS, SCALE_RUNS = 20, (256, 2_048, 65_536)


def measure_memory(measured: Measured, options: Options) -> None:
    """Measures how much the peak of resident memory grows during the large sweep, in a process that compiles its
    programs and in one that finds them in the cache."""
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compiling", "compiled before"):
            grown, states = in_own_process(growth, options, cache)
            measured.note(
                f"growth of peak memory over bytes of parameters and optimizer state, {name}", grown / states, "x"
            )


def in_own_process(function: Callable, *arguments):
    """Returns what a function returns in a fresh process, whose peak memory is due to nothing else."""
    with multiprocessing.get_context("spawn").Pool(1, jm.use_cores) as pool:
        return pool.apply(function, arguments)


def growth(options: Options, cache: str) -> tuple[int, int]:
    """Returns by how many bytes the large sweep raises this process's peak memory, and the bytes of its states."""
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
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *dataset.train.inputs.shape[1:])))
    return peak_bytes() - before, len(runs["seed"]) * sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def peak_bytes() -> int:
    """Returns the peak of this process's resident memory in bytes; on Linux, without that of the parent process."""
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
        seconds_taken, peak = in_own_process(timed_sweep, options, num_runs)
        costs.append(seconds_taken / num_runs)
        measured.note(f"a sweep of {num_runs:,} runs, per run", 1e3 * costs[-1], "ms")
        measured.note(f"a sweep of {num_runs:,} runs, peak memory", peak / 2**30, "GiB")
    measured.note("cost per run, largest over smallest", max(costs) / min(costs), "x")


def timed_sweep(options: Options, num_runs: int) -> tuple[float, int]:
    """Returns the seconds of a sweep with this many runs, and the peak of this process's resident memory in bytes."""
    dataset = options.load()
    rates = np.geomspace(1e-3, 1, num_runs // 8)
    runs = jm.grid(learning_rate=rates, batch_size=[32, 64], seed=range(4))
    model = jm.SoftmaxRegression(len(dataset.class_names))
    # This compiles what the sweep will need, since its programs have few shapes.
    jm.estimate(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS)
    taken = []
    # A long sweep averages over the machine's fast and slow moments, and so do many short ones.
    for _ in range(min(max(SCALE_RUNS) // num_runs, 9)):
        start = time.perf_counter()
        jm.sweep(model, optax.sgd, runs, dataset, num_steps=SCALE_STEPS, progress=False)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)), peak_bytes()

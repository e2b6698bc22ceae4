"""What many sweeps in one process leave behind: no memory, and no second compilation of the same work."""

import gc
import os
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from conftest import make_split
from models import Linen

import jaxmnist as jm

NUM_SWEEPS = 200
NUM_FIRST = 40
MAX_GROWTH = 8 * 2**20


def sweep(dataset, folder=None, rates=(0.1, 0.5), model=None, **more):
    runs = jm.grid(learning_rate=rates, batch_size=[3, 5], seed=range(2))
    model = model or jm.SoftmaxRegression(4)
    given: dict = dict(num_steps=20, num_evaluations=2, progress=False, folder=folder) | more
    return jm.sweep(model, optax.sgd, runs, dataset, **given)


def data_of(seed):
    return jm.Dataset(f"data {seed}", ("a", "b", "c", "d"), *(make_split(40, seed + i) for i in range(3)))


def numbers_of(seed):
    inputs = np.random.default_rng(seed).normal(size=(60, 3))
    return jm.from_arrays(inputs, inputs @ np.arange(1.0, 4), name=f"numbers {seed}")


KINDS = {
    "ours": (data_of, {}),
    "batch statistics": (data_of, dict(model=Linen())),
    "regression in 64 bits": (
        numbers_of, dict(model=nn.Dense(1), loss=jm.losses.squared_error, dtype="float64")
    ),
}  # fmt: skip


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_resident_memory_stays(tmp_path, kind):
    data, given = KINDS[kind]
    sizes = []
    arrays = 0
    for index in range(NUM_SWEEPS):
        # Other data and other numbers each time, in folders now and then: what differs must not be kept.
        sweep(data(index), tmp_path / str(index) if index % 10 == 0 else None, (0.01, 0.02 + index / 10000), **given)
        sizes.append(resident_bytes())
        arrays = arrays or len(jax.live_arrays())
    assert len(jax.live_arrays()) <= arrays
    growth = np.median(sizes[-20:]) - np.median(sizes[NUM_FIRST - 20 : NUM_FIRST])
    assert growth < MAX_GROWTH, f"{growth / 2**20:.1f} MiB more after {NUM_SWEEPS} sweeps than after {NUM_FIRST}"


@pytest.mark.slow
def test_the_same_work_is_compiled_once(tmp_path, caplog):
    def compiled(*args, **kwargs):
        caplog.clear()
        with jax.log_compiles():
            sweep(*args, **kwargs)
        messages = [record.getMessage() for record in caplog.records]
        return [message.split()[1] for message in messages if message.startswith("Compiling jit(")]

    jax.clear_caches()
    ours = {f"jit({name})" for name in ("init", "advance", "evaluate")}
    of_first = compiled(data_of(0))
    # One program; the splits have one size.
    assert all(of_first.count(name) == 1 for name in ours)
    for seed in range(1, 4):
        assert compiled(data_of(seed), tmp_path / str(seed), (0.3, 0.5 * seed)) == []
    # An equal model is the same work, another one is other work.
    assert compiled(data_of(0), model=jm.SoftmaxRegression(num_classes=4)) == []
    of_another = compiled(data_of(0), model=jm.MLP(3, 4))
    assert all(of_another.count(name) == 1 for name in ours)
    # So is an equal augmentation, besides trying whether it mixes examples.
    augmented = [compiled(data_of(0), augment=jm.Affine(shift=1.0)) for _ in range(2)]
    assert ours <= set(augmented[0]) and not ours & set(augmented[1])

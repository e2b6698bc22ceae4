"""One run on two and four CPU devices."""

import jax
import numpy as np
import optax
import pytest
from conftest import run_on_devices

import jaxmnist as jm
from jaxmnist.networks import run, spreading
from jaxmnist.sweeps.configure import configure, make_setup

MODEL = jm.CNN((8,), (3,), (1,), hidden_size=8, num_classes=4)
# For another object, the same program would be traced and compiled again.
ADAM = optax.adam(0.01)
NUMBERS = dict(batch_size=8, num_steps=25, evaluation_steps=10, augment=jm.Affine(5, 0.1, 1))

PROGRAM = """
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
from conftest import make_tiny
from test_spreading import ADAM, MODEL, NUMBERS

from jaxmnist.host import loop as host_loop
from jaxmnist.networks import run, spreading

warnings.simplefilter("error")
jax.config.update("jax_numpy_rank_promotion", "raise")
spreading.MIN_DIVIDED_SIZE, spreading.examples_at_once = 8, lambda: 3
host_loop.SECONDS_PER_CHECKPOINT = 0.0
folder, count = Path(sys.argv[1]), int(sys.argv[2])
tiny = make_tiny()
assert [spreading.mesh_for(batch_size).size for batch_size in (1, 6, 7, 8)] == [1, {2: 2, 4: 3}[count], 1, count]

def train(name, **keywords):
    return run.train_run(MODEL, ADAM, tiny, 3, **NUMBERS, folder=folder / name, **keywords)

class Interruption(Exception):
    pass

def interrupt(step, rows, loss):
    if step == 10:
        raise Interruption

def train_until_interrupted(name):
    try:
        train(name, report=interrupt)
    except Interruption:
        return
    raise AssertionError("was not interrupted")

def fit(mesh, *arguments, real=spreading.fit, **keywords):
    state, losses = real(mesh, *arguments, **keywords)
    kernel = state.params["Dense_0"]["kernel"]
    assert mesh.size == count and len(kernel.sharding.device_set) == count and not kernel.is_fully_replicated
    return state, losses

compiled = spreading.fit._cache_size
spreading.fit = fit
state, rows = train("whole")
# Segments of 10 and of 5 steps, and no second program for a state that a program gave back.
assert compiled() == 2, compiled()
train_until_interrupted("parts")
resumed, resumed_rows = train("parts")
jax.tree.map(np.testing.assert_array_equal, state.params, resumed.params)
assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in resumed_rows]
train_until_interrupted("one device goes on")
np.savez(folder / "trained.npz", *jax.tree.leaves(state.params), losses=[row["validation_loss"] for row in rows])
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_devices_share_one_run_and_give_the_numbers_of_one(tiny, tmp_path, count):
    run_on_devices(count, PROGRAM, str(tmp_path), str(count))
    saved = np.load(tmp_path / "trained.npz")

    for folder in ("alone", "one device goes on"):
        state, rows = run.train_run(MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path / folder)
        for position, leaf in enumerate(jax.tree.leaves(state.params)):
            np.testing.assert_allclose(leaf, saved[f"arr_{position}"], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose([row["validation_loss"] for row in rows], saved["losses"], rtol=1e-4)


@pytest.mark.slow
def test_one_device_gives_the_numbers_of_fit_and_counts_every_image(tiny):
    mesh, optimizer = spreading.mesh_for(5), optax.sgd(0.1)
    configured = configure(make_setup(MODEL, optax.sgd), {"learning_rate": 0.1})
    order = jm.example_order(len(tiny.train.targets), 1, 4 * 5)
    state = jm.init_state(MODEL, optimizer, 1, tiny.train.inputs)
    expected, expected_losses = jax.jit(jm.fit, static_argnums=(0, 1, 5), static_argnames="num_steps")(
        MODEL, optimizer, state, tiny.train, order, 5, num_steps=4
    )
    ours, losses = spreading.fit(mesh, configured, spreading.put(mesh, state), tiny.train, order, 5, num_steps=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours.params, expected.params)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    evaluate = jax.jit(jm.evaluate, static_argnums=0)
    for split in (tiny.train, tiny.validation, tiny.test):
        found = spreading.evaluate(mesh, configured.model, (ours.params, {}), split, configured.measured)
        whole = evaluate(MODEL, ours.params, split)
        assert round(found.accuracy * len(split.targets), 3) == round(whole.accuracy * len(split.targets), 3)
        np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [(("48K", "1024K", "32768K"), 50), (("48K", "2048K", "266240K"), 250), (("1M",), 50), ((), 50)],
    ids=["32 MiB", "260 MiB", "in other words", "unknown"],
)
def test_more_examples_are_evaluated_at_once_with_a_large_cache(sizes, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmnist.host.devices.CACHES", tmp_path)
    for index, size in enumerate(sizes):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert spreading.examples_at_once() == expected

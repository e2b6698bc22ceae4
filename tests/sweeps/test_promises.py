"""What is promised of sweeps holds for batch statistics, regressions, 64 bits, narrow floats and augmentation too."""

import functools
import json
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import make_tiny, mostly_slow, run_on_devices
from models import Equinox, Linen, Narrow, Nnx, haiku_with_state

import jaxmnist as jm
from jaxmnist.host import checkpoints


def numbers():
    """Returns a data set of float vectors and real targets."""
    inputs = np.random.default_rng(0).normal(size=(60, 3))
    return jm.from_arrays(inputs, inputs @ np.arange(1.0, 4), name="numbers")


class Kind(NamedTuple):
    """A kind of sweep: what it trains, on what, and further arguments."""

    model: Any
    dataset: Any = make_tiny
    more: dict = {}  # noqa: RUF012 (it is a constant)


KINDS = {
    "linen": Kind(Linen()),
    "nnx": Kind(Nnx),
    "equinox": Kind(Equinox),
    "haiku": Kind(haiku_with_state),
    "regression": Kind(nn.Dense(1), numbers, dict(loss=jm.losses.squared_error)),
    "64 bits": Kind(jm.MLP(5, 4), make_tiny, dict(dtype="float64")),
    "bfloat16": Kind(Narrow()),
    "augmented": Kind(jm.MLP(5, 4), make_tiny, dict(augment=jm.Affine(shift=1.0))),
}
FEW = ("linen", "regression", "64 bits")
PADDED = ("regression", "64 bits", "augmented", "bfloat16")


def sweep(kind, runs=None, optimizer=optax.sgd, num_steps=6, **more):
    model, dataset, given = KINDS[kind]
    runs = jm.grid(learning_rate=[0.05, 0.1], batch_size=[5, 8], seed=range(2)) if runs is None else runs
    return jm.sweep(model, optimizer, runs, dataset(), num_steps=num_steps, progress=False, **given, **more)


@functools.cache
def swept(kind):
    """Returns the result of a usual sweep."""
    return sweep(kind)


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "bfloat16"))
def test_a_diverging_run_leaves_its_neighbours_as_they_are(kind):
    tame, wild = (
        sweep(kind, jm.grid(learning_rate=[0.05, middle, 0.1], batch_size=[5, 8], seed=0)) for middle in (0.07, 1e30)
    )
    kept = dict(learning_rate=[0.05, 0.1])
    for name in tame.data_vars:
        np.testing.assert_array_equal(wild[name].sel(kept), tame[name].sel(kept))
    assert wild["diverged_step"].sel(learning_rate=1e30).notnull().all() and tame["diverged_step"].isnull().all()


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "64 bits"))
def test_a_sweep_resumes_bit_for_bit(tmp_path, kind, monkeypatch, many_segments):
    whole = sweep(kind, optimizer=optax.adam)
    monkeypatch.setattr("jaxmnist.host.loop.SECONDS_PER_CHECKPOINT", 0.0)
    save, saved = checkpoints.Checkpoints.save, []

    def fail_later(self, step, *rest):
        save(self, step, *rest)
        saved.append(step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(checkpoints.Checkpoints, "save", fail_later)
        sweep(kind, optimizer=optax.adam, folder=tmp_path)
    resumed = sweep(kind, optimizer=optax.adam, folder=tmp_path)
    assert 0 < saved[-1] < 6
    for name in whole.data_vars:
        assert resumed[name].dtype == whole[name].dtype
        np.testing.assert_array_equal(resumed[name], whole[name])


@pytest.mark.slow
@pytest.mark.parametrize("kind", mostly_slow(("regression", "64 bits", "augmented", "bfloat16"), "augmented"))
def test_padding_changes_nothing(kind):
    whole = swept(kind)
    alone = sweep(kind, jm.grid(learning_rate=0.1, batch_size=5, seed=1))
    for name in ("validation_loss", "test_loss"):
        ours = whole[name].sel(learning_rate=0.1, batch_size=5, seed=1).item()
        np.testing.assert_allclose(ours, alone[name].item(), rtol=1e-13 if kind == "64 bits" else 2e-5)
    assert whole["test_loss"].dtype == (np.float64 if kind == "64 bits" else np.float32)
    assert len(np.unique(whole["test_loss"])) == whole["test_loss"].size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("linen", "regression", "64 bits", "augmented"))
def test_a_run_again_has_the_very_numbers(kind):
    model, dataset, given = KINDS[kind]
    result = swept(kind)
    given = {name: value for name, value in given.items() if name != "dtype"}
    run = jm.rerun(result, learning_rate=0.1, batch_size=5, seed=1, model=model, dataset=dataset(), **given)
    assert (
        run.is_exact and float(run.test.loss) == result["test_loss"].sel(learning_rate=0.1, batch_size=5, seed=1).item()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", FEW)
def test_shards_unite_to_the_whole(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 1)
    monkeypatch.setattr("jaxmnist.sweeps.sweep.MAX_CPU_DEVICES", 1)
    whole = sweep(kind, memory=2**30)
    for part in (1, 2):
        sweep(kind, memory=2**30, shard=(part, 2), folder=tmp_path)
    merged = jm.load_results(tmp_path)
    for name in ("validation_loss", "test_loss"):
        np.testing.assert_allclose(merged[name], whole[name], rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", mostly_slow((*FEW, "bfloat16"), "regression"))
def test_a_folder_grows_by_steps_and_values(tmp_path, kind):
    few = jm.grid(learning_rate=0.05, batch_size=[5, 8], seed=range(2))
    shorter, longer = (sweep(kind, few, num_steps=steps, folder=tmp_path, keep_states=True) for steps in (3, 6))
    grown, whole = sweep(kind, folder=tmp_path, keep_states=True), swept(kind)
    assert (shorter["test_loss"].values != longer["test_loss"].values).all()
    for name in ("validation_loss", "test_loss"):
        assert grown[name].dtype == whole[name].dtype
        np.testing.assert_array_equal(grown[name].sel(learning_rate=[0.05]), longer[name])
        np.testing.assert_allclose(grown[name], whole[name], rtol=1e-13 if kind == "64 bits" else 2e-5)


PROGRAM = """
import json, sys
from test_promises import sweep
print(json.dumps(sweep(sys.argv[1])["test_loss"].values.ravel().tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", FEW)
def test_four_devices_give_the_numbers_of_one(kind):
    found = json.loads(run_on_devices(4, PROGRAM, kind).splitlines()[-1])
    np.testing.assert_allclose(found, swept(kind)["test_loss"].values.ravel(), rtol=2e-5)


@pytest.mark.slow
def test_64_bits_leave_the_setting_of_jax_as_it_was():
    result = swept("64 bits")
    assert result["test_loss"].dtype == np.float64 and jnp.ones(1).dtype == jnp.float32
    single = jm.sweep(jm.MLP(5, 4), optax.sgd, jm.grid(learning_rate=[0.05, 0.1], batch_size=[5, 8], seed=range(2)),
                      make_tiny(), num_steps=6, progress=False)  # fmt: skip
    difference = np.abs(result["test_loss"] - single["test_loss"]).max()
    assert 0 < difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", FEW)
def test_memory_and_work_of_any_model_are_estimated(kind):
    model, dataset, given = KINDS[kind]
    runs = jm.grid(learning_rate=[0.05, 0.1], batch_size=[5, 8], seed=range(2))
    cost = jm.estimate(model, optax.sgd, runs, dataset(), num_steps=6, **given)
    assert cost.num_runs == 8 and cost.useful_flops > 0 and cost.memory > 0
    halved = jm.halve(model, optax.sgd, runs, dataset(), num_steps=6, factor=2, rungs=[2], progress=False, **given)
    assert halved["pruned_step"].notnull().sum() == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
@pytest.mark.parametrize("kind", FEW)
def test_a_cluster_gives_the_same_numbers(kind):
    pytest.importorskip("ray")
    found, expected = sweep(kind, cluster="local"), swept(kind)
    for name in ("validation_loss", "test_loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5)


REGRESSION = KINDS["regression"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        # Outputs [B, 1] less targets [B] are [B, B].
        (dict(loss=lambda outputs, targets: ((outputs - targets) ** 2).mean(-1)), "loss gives an example a"),
        (dict(loss=lambda outputs, targets: outputs[:, 0] / jnp.std(targets)), "loss gives an example a"),
        (
            dict(metrics={"mae": lambda outputs, targets: abs(outputs - targets).mean(-1)}),
            "mae gives an example a",
        ),
        (
            dict(augment=lambda key, inputs: inputs - inputs.mean(0, keepdims=True)),
            "augment changes an example",
        ),
    ],
)
def test_what_depends_on_the_other_examples_of_a_batch_is_refused(more, message):
    model, dataset, given = REGRESSION
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=message):
        jm.check(model, optax.sgd, jm.grid(learning_rate=0.1, batch_size=5, seed=0), dataset(), 2, **(given | more))


FACTOR = 1.0


def scaled_loss(outputs, targets):
    return FACTOR * jm.losses.squared_error(outputs, targets)


def test_what_a_function_reads_from_around_it_may_change(monkeypatch, tmp_path):
    def train(factor, **more):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        runs = jm.grid(learning_rate=0.05, batch_size=5, seed=0)
        return jm.sweep(
            REGRESSION.model, optax.sgd, runs, numbers(), num_steps=4, progress=False, loss=scaled_loss, **more
        )

    losses = [train(factor)["test_loss"].item() for factor in (1.0, 2.0, 1.0)]
    assert losses[0] == losses[2] != losses[1]
    train(1.0, folder=tmp_path)
    with pytest.raises(ValueError, match="computation"):
        train(2.0, folder=tmp_path)


@pytest.mark.parametrize("exact", mostly_slow((True, False), True))
def test_a_run_again_of_something_else_is_refused(exact):
    model, dataset, given = REGRESSION
    result = swept("regression")
    other = dataset()
    other = jm.from_arrays(np.concatenate([split.inputs for split in (other.train, other.test)]) * 2,
                           np.concatenate([split.targets for split in (other.train, other.test)]))  # fmt: skip
    chosen = dict(learning_rate=0.1, batch_size=5, seed=1, exact=exact)
    assert jm.rerun(result, model=model, dataset=dataset(), **given, **chosen).is_exact == exact
    for changed in (
        dict(dataset=other),
        dict(model=nn.Dense(1, use_bias=False)),
        dict(optimizer=lambda learning_rate: optax.sgd(learning_rate / 2)),
        dict(loss=lambda outputs, targets: abs(outputs[:, 0] - targets)),
    ):
        with pytest.raises(ValueError, match="is another one"):
            jm.rerun(result, **(dict(model=model, dataset=dataset()) | given | changed), **chosen)


class WholeNumbers(nn.Module):
    """A model whose only parameters are whole numbers, which are not trained."""

    @nn.compact
    def __call__(self, inputs):
        return inputs @ self.param("kernel", lambda key: jnp.ones((3, 2), jnp.int32)).astype(inputs.dtype)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ((lambda key, inputs: {}, lambda params, inputs: inputs[:, :2]), {}, "has no parameters that could be trained"),
        (WholeNumbers(), {}, "model WholeNumbers has no parameters that could be trained"),
        (
            nn.Dense(2),
            dict(loss=lambda outputs, targets: (outputs.argmax(-1) != targets).astype(int)),
            "loss returns int32 numbers, which have no gradient; floats are needed",
        ),
    ],
    ids=["no parameters", "whole numbers", "loss"],
)
def test_what_cannot_be_trained_is_refused(model, more, message):
    inputs = np.random.default_rng(0).normal(size=(60, 3))
    dataset = jm.from_arrays(inputs, np.arange(60) % 2)
    with pytest.raises(ValueError, match=message):
        jm.check(model, optax.sgd, jm.grid(learning_rate=0.1, batch_size=5, seed=0), dataset, 2, **more)


@pytest.mark.parametrize("dtype", mostly_slow(("float32", "float64"), "float32"))
def test_booleans_are_the_numbers_0_and_1(dtype):
    inputs, targets = np.random.default_rng(0).normal(size=(60, 3)) > 0, np.arange(60) % 2
    runs = jm.grid(learning_rate=0.1, batch_size=[5, 8], seed=0)

    def train(inputs):
        dataset = jm.from_arrays(inputs, targets)
        return jm.sweep(nn.Dense(2), optax.sgd, runs, dataset, num_steps=4, progress=False, dtype=dtype)["test_loss"]

    np.testing.assert_array_equal(train(inputs), train(inputs.astype(np.float32)))


def test_a_model_of_vectors_that_is_given_numbers_says_how_to_make_vectors_of_them():
    dataset = jm.from_arrays(np.arange(60.0), np.arange(60.0))
    with pytest.raises(ValueError, match=re.escape("inputs[:, None] are vectors of one number each")):
        jm.check(nn.Dense(1), optax.sgd, jm.grid(learning_rate=0.1, batch_size=5, seed=0), dataset, 2,
                 loss=jm.losses.squared_error)  # fmt: skip

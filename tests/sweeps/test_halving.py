import functools

import numpy as np
import optax
import pytest
from conftest import mostly_slow
from models import MODELS

import jaxmnist as jm
from jaxmnist.sweeps import programs, pruning

MODEL = jm.SoftmaxRegression(4)
RATES = [1e-4, 1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 1e6]


def halve(tiny, runs, **options):
    return jm.halve(MODEL, optax.sgd, runs, tiny, **dict(num_steps=32, factor=4, progress=False) | options)


def settings_where(result, condition):
    """Returns the settings of the runs for which a condition on `pruned_step` holds."""
    table = jm.table(result)
    chosen = table[condition(table["pruned_step"].astype(float).fillna(np.inf))]
    return set(zip(chosen["learning_rate"], chosen["batch_size"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("order", [pytest.param("grid", marks=pytest.mark.slow), "shuffled"])
def test_each_rung_keeps_the_best_settings_with_all_of_their_seeds(tiny, order):
    runs = jm.grid(learning_rate=RATES, batch_size=[3, 16], seed=range(3))
    if order == "shuffled":
        runs = {name: values[np.random.default_rng(0).permutation(48)] for name, values in runs.items()}
    result = halve(tiny, runs)
    assert result.attrs["rungs"] == "2 8 32"
    assert result["validation_loss"].dims == ("learning_rate", "batch_size", "seed")
    pruned = result["pruned_step"]
    # 16 settings, of which 4 go on after 2 steps and 1 after 8; every seed of a setting has its fate.
    assert (pruned.notnull().all("seed") == pruned.notnull().any("seed")).all()
    assert [int((pruned == step).sum()) for step in (2, 8)] == [36, 9] and int(pruned.isnull().sum()) == 3
    for step, num_kept in ((2, 4), (8, 1), (32, 1)):
        alone = jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=step, progress=False)
        there = settings_where(result, lambda steps, step=step: steps >= step)
        ranked = [row[:2] for row in jm.settings(alone)[["learning_rate", "batch_size"]].itertuples(index=False)]
        best = [tuple(setting) for setting in ranked if tuple(setting) in there][:num_kept]
        assert set(best) == settings_where(result, lambda steps, step=step: steps > step)
        here = (pruned == step).values if step < 32 else pruned.isnull().values
        for name in ("validation_loss", "test_accuracy"):
            np.testing.assert_allclose(result[name].values[here], alone[name].values[here], rtol=1e-4)
    assert result["pruned_step"].sel(jm.best(result).setting).isnull().all()
    wild = result.sel(learning_rate=1e6)
    assert wild["diverged_step"].notnull().any("seed").all() and (wild["pruned_step"] == 2).all()


@pytest.mark.slow
def test_samples_can_be_halved(tiny):
    sample = jm.with_seeds(jm.sample(9, 0, learning_rate=jm.loguniform(1e-3, 1), batch_size=[4, 8]), range(2))
    result = halve(tiny, sample, rungs=[4], factor=3)
    assert result["pruned_step"].dims == ("run",) and int(result["pruned_step"].isnull().sum()) == 6
    assert list(jm.table(result).columns)[-1] == "pruned_step"
    assert jm.settings(result)["pruned_step"].isna().tolist() == [True] * 3 + [False] * 6
    jm.scatter(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(("nnx", "linen", "equinox with state", "haiku with state"), "linen"))
def test_models_of_any_library_go_on_with_all_that_they_remember(tiny, name):
    model, _ = MODELS[name]
    runs = jm.grid(learning_rate=[0.05, 0.1], batch_size=[4], seed=range(2))
    shared = dict(num_steps=6, progress=False)
    whole = jm.sweep(model, noisy, runs, tiny, **shared)
    halved = jm.halve(model, noisy, runs, tiny, factor=2, rungs=[2], **shared)
    going_on = halved["pruned_step"].isnull()
    assert going_on.sum() == 2
    np.testing.assert_allclose(halved["test_loss"].values[going_on], whole["test_loss"].values[going_on], rtol=2e-5)


def noisy(learning_rate):
    return optax.chain(optax.add_noise(0.01, 0.5, 0), optax.sgd(learning_rate))


@pytest.mark.slow
@pytest.mark.parametrize("order", mostly_slow((1, -1), -1))
def test_an_interrupted_halving_goes_on(tiny, tmp_path, monkeypatch, order):
    runs = jm.grid(learning_rate=RATES[2:6], batch_size=[3], seed=range(2))
    runs = {name: column[::order] for name, column in runs.items()}
    whole = halve(tiny, runs, folder=tmp_path / "whole")
    survivors = pruning.survivors
    monkeypatch.setattr(pruning, "survivors", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        halve(tiny, runs, folder=tmp_path / "parts")
    monkeypatch.setattr(pruning, "survivors", survivors)
    assert halve(tiny, runs, folder=tmp_path / "parts").identical(whole)
    assert not list(tmp_path.rglob("states"))
    assert (tmp_path / "parts" / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()


def test_a_rung_goes_on_from_the_states_of_the_one_before_bit_for_bit(tiny, monkeypatch):
    runs = jm.grid(learning_rate=[0.05, 0.1], batch_size=[3, 16], seed=range(3), momentum=[0.0, 0.9])
    whole = jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=32, progress=False)
    steps = []

    def advance(*arguments, real=programs.advance, segment):
        steps.append(int(arguments[-1]))
        return real(*arguments, segment=segment)

    monkeypatch.setattr(programs, "advance", advance)
    # All go on: the programs are those of the whole sweep, and so are the numbers.
    monkeypatch.setattr(pruning, "survivors", lambda runs, result, factor: np.arange(24))
    stopped = halve(tiny, runs, factor=2, rungs=[5, 12])
    assert sum(steps) == 32
    for name in ("validation_loss", "test_loss", "test_accuracy"):
        np.testing.assert_array_equal(stopped[name].values, whole[name].values)


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The folder of a halving, its runs, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    runs = jm.grid(learning_rate=RATES[2:6], batch_size=[3], seed=range(2))
    return folder, runs, halve(tiny, runs, folder=folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(), ""),
        (dict(factor=2, rungs=[2, 8]), "its factor is 4, not 2"),
        (dict(rungs=[4]), "its rungs is '2 8 32', not '4 32'"),
        (dict(num_steps=64, rungs=[2, 8, 32]), "its budget is"),
        (dict(runs=jm.grid(learning_rate=RATES[1:5], batch_size=3, seed=range(2))), "its runs is"),
    ],
)
def test_a_finished_halving_is_returned_and_another_one_refused_before_training(
    tiny, finished, monkeypatch, options, words
):
    folder, runs, whole = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(pruning, "train", lambda *arguments, **options: pytest.fail("trained"))
    call = functools.partial(halve, tiny, **dict(runs=runs, folder=folder) | options)
    if words:
        with pytest.raises(ValueError, match=f"is another one: {words}"):
            call()
    else:
        assert call().identical(whole)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_halving_describes_itself_as_the_sweep_of_all_its_runs(tiny):
    runs = jm.grid(learning_rate=RATES[2:6], batch_size=[3], seed=range(2))
    attributes = halve(tiny, runs).attrs
    assert (attributes.pop("rungs"), attributes.pop("factor")) == ("2 8 32", 4)
    whole = jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=32, progress=False).attrs
    # Which programs there were is known of a sweep alone.
    assert attributes == {name: value for name, value in whole.items() if name not in ("memory", "programs_crc32")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(factor=1), "factor is 1; a whole number from 2 on"),
        (dict(rungs=[]), r"rungs are \[\]"),
        (dict(rungs=[8, 4]), "ascending"),
        (dict(rungs=[32]), "below num_steps, 32"),
        (dict(rungs=[0, 4]), "from 1"),
    ],
)
def test_what_cannot_be_a_rung_is_refused(tiny, options, words):
    with pytest.raises(ValueError, match=words):
        halve(tiny, jm.grid(learning_rate=0.1, batch_size=4, seed=0), **options)

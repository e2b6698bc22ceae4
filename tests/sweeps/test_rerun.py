import dataclasses
import functools
import operator

import numpy as np
import optax
import pytest

import jaxmnist as jm

MODEL = jm.MLP(6, 4)


def test_a_run_again_gives_the_sweeps_numbers(tiny):
    runs = jm.grid(
        learning_rate=[0.1, 0.5], batch_size=[3, 16], seed=range(2), hidden_size=[5], label_smoothing=[0.2],
        nesterov=[True], momentum=0.8,
    )  # fmt: skip
    result = jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=9, progress=False)
    place = dict(learning_rate=0.5, batch_size=3, seed=1, hidden_size=5, label_smoothing=0.2, nesterov=True)
    run = jm.rerun(result, dataset=tiny, **place)
    cell = result.sel(place).squeeze()
    for split in ("validation", "test"):
        metrics = getattr(run, split)
        np.testing.assert_allclose(metrics.loss, cell[f"{split}_loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics.accuracy, cell[f"{split}_accuracy"], rtol=1e-6)
    assert run.params["Dense_0"]["kernel"].shape == (5, 30) and run.losses.shape == (9,)


def test_a_pruned_run_again_ends_where_it_was_pruned(tiny):
    runs = jm.grid(learning_rate=[0.001, 0.5], batch_size=3, seed=range(2))
    result = jm.halve(jm.SoftmaxRegression(4), optax.sgd, runs, tiny, num_steps=8, factor=2, rungs=[4], progress=False)
    of_seed = result.sel(seed=1, batch_size=3)
    (pruned,) = result["learning_rate"].values[of_seed["pruned_step"].notnull().values]
    run = jm.rerun(result, dataset=tiny, learning_rate=pruned, seed=1)
    assert run.losses.shape == (4,)
    np.testing.assert_allclose(run.test.loss, of_seed["test_loss"].sel(learning_rate=pruned).item(), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(learning_rate=0.1), "2 runs have these values; give also seed"),
        (dict(learning_rate=0.3, seed=0), r"learning_rate 0.3 is not in this result; it has \[0.1, 0.5\]"),
        (dict(rate=0.3, seed=0), "rate is not a hyperparameter"),
    ],
)
def test_values_that_are_not_one_run_are_refused(tiny, values, words):
    runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=3, seed=range(2))
    result = jm.sweep(jm.SoftmaxRegression(4), optax.sgd, runs, tiny, num_steps=2, progress=False)
    with pytest.raises(ValueError, match=words):
        jm.rerun(result, dataset=tiny, **values)


@pytest.mark.slow
def test_what_has_no_known_name_is_to_be_given(tiny):
    def mine(learning_rate):
        return optax.sgd(learning_rate)

    runs = jm.grid(learning_rate=[0.1], batch_size=3, seed=0)
    result = jm.sweep(jm.SoftmaxRegression(4), mine, runs, tiny, num_steps=2, progress=False)
    with pytest.raises(ValueError, match="the optimizer of this result, mine"):
        jm.rerun(result, dataset=tiny)
    assert np.isfinite(jm.rerun(result, dataset=tiny, optimizer=mine).test.loss)


def by_kind(learning_rate, kind):
    return optax.sgd(learning_rate * (2.0 if kind == "b" else 1.0))


@pytest.mark.slow
def test_a_run_of_an_axis_of_strings_is_trained_again_exactly(tiny):
    runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=3, seed=0, kind=["b", "a"])
    result = jm.sweep(jm.SoftmaxRegression(4), by_kind, runs, tiny, num_steps=3, progress=False)
    run = jm.rerun(result, dataset=tiny, model=jm.SoftmaxRegression(4), optimizer=by_kind, learning_rate=0.2, kind="b")
    assert run.is_exact
    assert run.validation.loss == result["validation_loss"].sel(learning_rate=0.2, kind="b").item()


def scaled(learning_rate, by=None):
    return optax.sgd(learning_rate if by is None else by(learning_rate))


def test_functions_that_cannot_be_imported_are_given_again(tiny):
    double, triple = (functools.partial(operator.mul, factor) for factor in (2.0, 3.0))
    given = dict(dataset=tiny, optimizer=scaled, seed=1)
    model, few = jm.SoftmaxRegression(4), dict(num_steps=3, progress=False)
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=range(2), by=[None, double])
    result = jm.sweep(model, scaled, runs, tiny, **few)
    run = jm.rerun(result, by=double, **given)
    doubled = result["test_loss"].sel(seed=1, by=result["by"][1]).item()
    assert run.is_exact and run.test.loss == doubled != result["test_loss"].sel(seed=1, by="None").item()

    result = jm.sweep(model, scaled, jm.grid(learning_rate=0.1, batch_size=3, seed=range(2), by=[double, triple]),
                      tiny, **few)  # fmt: skip
    with pytest.raises(ValueError, match=r"by has the value _operator.mul\(3.0\) .*; give exact=False"):
        jm.rerun(result, by=double, **given)
    run = jm.rerun(result, by=double, exact=False, **given)
    assert not run.is_exact and run.test.loss == pytest.approx(doubled, rel=1e-5)


def named(learning_rate, kind="None"):
    return optax.sgd(learning_rate * {"1": 1.0, "None": 2.0, "True": 3.0, None: 4.0}[kind])


@pytest.mark.parametrize("pruned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_string_that_reads_like_a_number_stays_a_string(tiny, pruned):
    train, pruning = (jm.halve, dict(factor=2, rungs=[1])) if pruned else (jm.sweep, {})
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0, kind=["1", "None", "True"])
    result = train(jm.SoftmaxRegression(4), named, runs, tiny, num_steps=4, progress=False, **pruning)
    assert result.attrs["objects"] == ""
    for kind in ("1", "None", "True"):
        run = jm.rerun(result, dataset=tiny, optimizer=named, kind=kind)
        np.testing.assert_allclose(run.test.loss, result["test_loss"].sel(kind=kind).item(), rtol=1e-5)


def test_none_is_told_from_its_name(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0, kind=[None, "1"])
    result = jm.sweep(jm.SoftmaxRegression(4), named, runs, tiny, num_steps=3, progress=False)
    assert result.attrs["objects"] == "kind"
    run = jm.rerun(result, dataset=tiny, optimizer=named, kind=None)
    assert run.is_exact and run.test.loss == result["test_loss"].sel(kind="None").item()


def test_a_pruned_sweep_on_other_data_or_by_another_optimizer_is_not_run_again(tiny):
    runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=3, seed=0)
    result = jm.halve(jm.SoftmaxRegression(4), optax.sgd, runs, tiny, num_steps=4, factor=2, rungs=[1], progress=False)
    other = dataclasses.replace(tiny, train=tiny.train._replace(targets=tiny.train.targets[::-1].copy()))
    with pytest.raises(ValueError, match="sweep of this result is another one: its targets differ"):
        jm.rerun(result, dataset=other, learning_rate=0.5)
    with pytest.raises(ValueError, match="is another one: its computation"):
        jm.rerun(result, dataset=tiny, optimizer=optax.adam, learning_rate=0.5)

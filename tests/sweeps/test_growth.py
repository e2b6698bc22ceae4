"""A folder grows: what it holds is not trained again, and nothing of it is lost."""

import importlib

import flax.linen as nn
import numpy as np
import optax
import pytest
import xarray as xr

import jaxmnist as jm
from jaxmnist.sweeps.folder import SweepFolder
from jaxmnist.values import described

sweep_module = importlib.import_module("jaxmnist.sweeps.sweep")
MODEL = jm.SoftmaxRegression(4)
AXES = dict(learning_rate=[0.1, 0.5], batch_size=[3, 40], seed=range(2))
# Two runs alone, where what is asked is not a matter of many.
SMALL = dict(learning_rate=[0.1], batch_size=3)


class InterruptionError(Exception):
    pass


class Hidden(nn.Module):
    size: int = 3
    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(self.activation(nn.Dense(self.size)(x.reshape(x.shape[0], -1))))


def sweep(tiny, folder, model=MODEL, optimizer=optax.sgd, options=None, **axes):
    arguments = dict(num_steps=12, num_evaluations=3, progress=False) | (options or {})
    return jm.sweep(model, optimizer, jm.grid(**AXES | axes), tiny, folder=folder, **arguments)


@pytest.fixture
def trained(monkeypatch):
    """The runs of all programs that are trained, by their rows' count; in small programs."""
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 1100)
    counts = []

    def run_program(job, program, *args, real=sweep_module.run_program, **kwargs):
        counts.append(len(np.unique(program.rows)))
        return real(job, program, *args, **kwargs)

    monkeypatch.setattr(sweep_module, "run_program", run_program)
    return counts


def close(result, whole):
    """Whether a result holds what another one holds, to rounding."""
    xr.testing.assert_allclose(result, whole, rtol=1e-4, atol=1e-6)
    assert result.sizes == whole.sizes
    return True


@pytest.mark.parametrize(
    ("axes", "num_new"),
    [
        (dict(learning_rate=[0.05, 0.1, 0.5]), 4),
        pytest.param(dict(seed=range(5)), 12, marks=pytest.mark.slow),
        pytest.param(dict(batch_size=[3, 7, 40], learning_rate=[1.0, 0.5, 0.1]), 10, marks=pytest.mark.slow),
        pytest.param(dict(init_std=[0.1, None]), 8, marks=pytest.mark.slow),
        pytest.param(dict(label_smoothing=[None, 0.1]), 8, marks=pytest.mark.slow),
        (dict(momentum=[None, 0.9]), 8),
        pytest.param(dict(nesterov=[False, True], learning_rate=[0.1, 0.5, 1]), 16, marks=pytest.mark.slow),
        pytest.param(dict(order_seed=[0, 1]), 8, marks=pytest.mark.slow),
    ],
)
def test_only_what_is_new_is_trained(tiny, tmp_path, trained, axes, num_new):
    first = sweep(tiny, tmp_path)
    trained.clear()
    grown = sweep(tiny, tmp_path, **axes)
    assert sum(trained) == num_new
    assert close(grown, sweep(tiny, None, **axes))
    xr.testing.assert_identical(jm.load_results(tmp_path), grown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.nc"]
    trained.clear()
    xr.testing.assert_identical(sweep(tiny, tmp_path, **axes), grown)
    # What was asked for first is still there, bit for bit.
    xr.testing.assert_equal(sweep(tiny, tmp_path), first)
    assert not trained
    xr.testing.assert_identical(jm.load_results(tmp_path), grown)


@pytest.mark.slow
def test_a_result_names_all_versions_that_trained_its_runs(tiny, tmp_path):
    first = sweep(tiny, tmp_path, **SMALL)
    older = first.assign_attrs(versions=first.attrs["versions"].replace("numpy==", "numpy==1."))
    jm.save(older, tmp_path)
    for seeds in (3, 4):
        grown = sweep(tiny, tmp_path, **SMALL | dict(seed=range(seeds)))
        assert grown.attrs["versions"] == f"{older.attrs['versions']} and {first.attrs['versions']}"


def test_other_runs_of_the_same_problem_are_added(tiny, tmp_path, trained):
    low, high = sweep(tiny, tmp_path, learning_rate=[0.1]), sweep(tiny, tmp_path, learning_rate=[0.5])
    assert sum(trained) == 8
    xr.testing.assert_identical(high.drop_attrs(), sweep(tiny, None, learning_rate=[0.5]).drop_attrs())
    whole = jm.load_results(tmp_path)
    assert whole["validation_loss"].size == 8
    xr.testing.assert_equal(whole.sel(learning_rate=[0.1]), low)
    assert jm.best(whole).validation.mean == max(jm.best(low).validation.mean, jm.best(high).validation.mean)
    run = jm.rerun(whole, dataset=tiny, learning_rate=0.1, batch_size=3, seed=1)
    np.testing.assert_allclose(run.validation.loss, low["validation_loss"].sel(batch_size=3, seed=1).item(), rtol=1e-4)


@pytest.mark.slow
def test_static_axes_and_functions_grow(tiny, tmp_path, trained):
    sweep(tiny, tmp_path, Hidden())
    axes = dict(activation=[nn.relu, nn.tanh], batch_size=[3, 5])
    trained.clear()
    grown = sweep(tiny, tmp_path, Hidden(), **axes)
    assert sum(trained) == 12
    assert sorted(grown["activation"].values) == sorted(map(described, axes["activation"]))
    assert close(grown, sweep(tiny, None, Hidden(), **axes))


def halved(learning_rate, decay):
    return optax.sgd(learning_rate * decay)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, dict(momentum=[0.0, 0.9]), "was trained with momentum None, which is not among the values here: add it"),
        pytest.param(
            {},
            dict(num_classes=[4], init_std=[0.1]),
            "was trained with init_std None, which is not among the values",
            marks=pytest.mark.slow,
        ),
        (dict(optimizer=halved, decay=[1.0]), {}, "its optimizer is 'halved', not 'sgd'"),
        ({}, dict(model=jm.MLP(num_classes=4)), "its model is 'SoftmaxRegression"),
        ({}, dict(options=dict(num_steps=24)), "has not kept its states, from which it could go on to num_steps 24"),
        ({}, dict(options=dict(num_steps=6)), "has trained for 12 steps, more than num_steps 6"),
    ],
)
def test_another_problem_is_refused_in_words(tiny, tmp_path, before, after, words):
    first = sweep(tiny, tmp_path, **before)
    with pytest.raises(ValueError, match=words):
        sweep(tiny, tmp_path, **after)
    xr.testing.assert_identical(jm.load_results(tmp_path), first)


def test_the_same_names_of_another_computation_do_not_grow(tiny, tmp_path):
    def make(factor):
        return lambda learning_rate: optax.sgd(factor * learning_rate)

    sweep(tiny, tmp_path, optimizer=make(1.0), **SMALL)
    with pytest.raises(ValueError, match=r"its computation, as .* make it up, differs"):
        sweep(tiny, tmp_path, optimizer=make(2.0), **SMALL | dict(seed=range(3)))


def test_an_interrupted_growth_loses_nothing_and_grows_further(tiny, tmp_path, trained, monkeypatch):
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    first = sweep(tiny, tmp_path)
    trained.clear()
    with monkeypatch.context() as context:

        def fail(*args, real=sweep_module.run_program, **kwargs):
            if len(trained) == 2:
                raise InterruptionError
            return real(*args, **kwargs)

        context.setattr(sweep_module, "run_program", fail)
        with pytest.raises(InterruptionError):
            sweep(tiny, tmp_path, seed=range(6))
    part = jm.load_results(tmp_path)
    assert part["finished"].sum() > 8
    xr.testing.assert_equal(part[["validation_loss"]].sel(seed=[0, 1]), first[["validation_loss"]])
    grown = sweep(tiny, tmp_path, seed=range(6), learning_rate=[0.1, 0.5, 1.0])
    assert sum(trained) == 36 - 8
    assert close(grown, sweep(tiny, None, seed=range(6), learning_rate=[0.1, 0.5, 1.0]))


def decayed(learning_rate, kind="a", decay=1.0, momentum=None):
    return optax.sgd(learning_rate * decay * (2.0 if kind == "b" else 1.0), momentum)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(dict(kind=["a", "b"]), dict(kind=["a", "b"], decay=[0.5, 1.0]), marks=pytest.mark.slow),
        (dict(kind="b"), dict(kind=[None, "b"])),
        pytest.param(dict(kind=[None, "b"]), dict(kind="b"), marks=pytest.mark.slow),
        pytest.param(dict(momentum=[None, 0.9]), dict(momentum=[0.5, 0.9]), marks=pytest.mark.slow),
        pytest.param(dict(momentum=[0.5, 0.9]), dict(momentum=[None, 0.5]), marks=pytest.mark.slow),
        pytest.param(dict(decay=[0.5]), {}, marks=pytest.mark.slow),
    ],
)
def test_an_axis_may_have_other_kinds_of_values_later(tiny, tmp_path, trained, before, after):
    first = sweep(tiny, tmp_path, optimizer=decayed, **SMALL, **before)
    grown = sweep(tiny, tmp_path, optimizer=decayed, **SMALL, **after)
    assert close(grown, sweep(tiny, None, optimizer=decayed, **SMALL, **after))
    trained.clear()
    for axes, result in ((before, first), (after, grown)):
        again = sweep(tiny, tmp_path, optimizer=decayed, **SMALL, **axes)
        np.testing.assert_array_equal(again["test_loss"], result["test_loss"])
    assert not trained


def raising(*args, **kwargs):
    raise InterruptionError


@pytest.mark.parametrize(
    "axes",
    [
        dict(seed=range(6)),
        pytest.param(dict(init_std=[None, 0.1]), marks=pytest.mark.slow),
        pytest.param(dict(nesterov=[False, True]), marks=pytest.mark.slow),
    ],
)
def test_a_growth_that_is_killed_before_its_first_program_ends_goes_on(tiny, tmp_path, trained, monkeypatch, axes):
    first = sweep(tiny, tmp_path)
    with monkeypatch.context() as context, pytest.raises(InterruptionError):
        context.setattr(sweep_module, "run_program", raising)
        sweep(tiny, tmp_path, **axes)
    xr.testing.assert_equal(jm.load_results(tmp_path), first)
    trained.clear()
    # What was asked for at first is there; the growth ends all the same, since it had begun.
    xr.testing.assert_equal(sweep(tiny, tmp_path)[["test_loss"]], first[["test_loss"]])
    assert sum(trained) > 0
    assert close(sweep(tiny, tmp_path, **axes), sweep(tiny, None, **axes))


@pytest.mark.slow
def test_runs_are_known_again_whatever_kinds_of_values_are_beside_them(tiny, tmp_path, trained, monkeypatch):
    small = dict(learning_rate=[0.1], batch_size=3, optimizer=decayed)
    first = sweep(tiny, tmp_path, momentum=[0.5, 0.9], **small)
    with monkeypatch.context() as context, pytest.raises(InterruptionError):
        context.setattr(sweep_module, "run_program", raising)
        sweep(tiny, tmp_path, momentum=[None, 0.5, 0.9], **small)
    trained.clear()
    # The folder's plan has None among numbers, and its result numbers alone.
    np.testing.assert_array_equal(sweep(tiny, tmp_path, momentum=[0.5, 0.9], **small)["test_loss"], first["test_loss"])
    assert sum(trained) == 2


@pytest.mark.slow
def test_states_go_to_the_runs_that_reached_them_whatever_axes_came_later(tiny, tmp_path):
    keep, small = dict(keep_states=True), dict(learning_rate=[0.1], batch_size=3)
    sweep(tiny, tmp_path, options=keep, **small)
    sweep(tiny, tmp_path, nesterov=[False, True], **small)
    sweep(tiny, tmp_path, options=keep, nesterov=[False, True], **small | dict(seed=range(3)))
    kept, programs = SweepFolder(tmp_path).held()[2:4]
    rows = np.unique(np.concatenate([program.rows.ravel() for program in programs]))
    assert sorted(zip(kept["seed"][rows].tolist(), kept["nesterov"][rows].tolist(), strict=True)) == [
        (0, False), (1, False), (2, False), (2, True),
    ]  # fmt: skip


@pytest.mark.slow
def test_states_that_were_kept_serve_runs_that_have_got_a_static_axis(tiny, tmp_path):
    keep, axes = dict(keep_states=True), dict(nesterov=[False, True], learning_rate=[0.1])
    sweep(tiny, tmp_path, options=keep, learning_rate=[0.1])
    sweep(tiny, tmp_path, options=keep, **axes)
    longer = dict(num_steps=24, num_evaluations=6)
    assert close(sweep(tiny, tmp_path, options=longer, **axes), sweep(tiny, None, options=longer, **axes))


def test_more_steps_go_on_from_the_states_that_were_kept(tiny, tmp_path, trained, monkeypatch):
    keep = dict(keep_states=True)
    sweep(tiny, tmp_path, options=keep)
    sweep(tiny, tmp_path, options=keep, seed=range(3))
    trained.clear()
    assert (tmp_path / "states").is_dir()
    with pytest.raises(ValueError, match=r"has recorded the steps \[0, 4, .*choose num_evaluations so that they do"):
        sweep(tiny, tmp_path, options=dict(num_steps=24, num_evaluations=3), seed=range(4))
    steps = []
    monkeypatch.setattr(
        sweep_module.programs, "advance", lambda *args, real=sweep_module.programs.advance, segment: (
            steps.append(int(args[-1])) or real(*args, segment=segment)
        ),
    )  # fmt: skip
    longer = sweep(tiny, tmp_path, options=dict(num_steps=24, num_evaluations=6), seed=range(4))
    # Of four seeds, the first three train the 12 steps that are new, and the last one all.
    assert sum(steps) == 12 * (len(trained) - 2) + 24 * 2
    xr.testing.assert_identical(jm.load_results(tmp_path), longer)
    assert close(longer, sweep(tiny, None, options=dict(num_steps=24, num_evaluations=6), seed=range(4)))


def test_a_longer_sweep_that_is_interrupted_keeps_its_curves(tiny, tmp_path, trained, monkeypatch):
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    sweep(tiny, tmp_path, options=dict(keep_states=True))
    longer = dict(num_steps=24, num_evaluations=6)
    trained.clear()
    with monkeypatch.context() as context:

        def fail(*args, real=sweep_module.run_program, **kwargs):
            if len(trained) == 1:
                raise InterruptionError
            return real(*args, **kwargs)

        context.setattr(sweep_module, "run_program", fail)
        with pytest.raises(InterruptionError):
            sweep(tiny, tmp_path, options=longer)
    whole = sweep(tiny, None, options=longer)
    xr.testing.assert_equal(sweep(tiny, tmp_path, options=longer), whole)


@pytest.mark.slow
def test_results_of_different_runs_unite(tiny, tmp_path):
    sweep(tiny, tmp_path / "a", learning_rate=[0.1])
    sweep(tiny, tmp_path / "b", learning_rate=[0.5, 0.1])
    united = jm.merge([tmp_path / "a", tmp_path / "b" / "results.nc"])
    whole = sweep(tiny, None)
    assert close(united, whole)
    for name in ("runs", "num_runs", "computation_sha256"):
        assert united.attrs[name] == whole.attrs[name]
    jm.save(united, tmp_path / "c")
    xr.testing.assert_equal(sweep(tiny, tmp_path / "c"), united)
    sweep(tiny, tmp_path / "d", optimizer=lambda learning_rate: optax.sgd(2 * learning_rate))
    sweep(tiny, tmp_path / "f", label_smoothing=[0.0])
    for others, words in (
        ([tmp_path / "a", tmp_path / "f"], "have different hyperparameters"),
        ([tmp_path / "a", tmp_path / "d"], "its optimizer is '<lambda>', not 'sgd'"),
    ):
        with pytest.raises(ValueError, match=words):
            jm.merge(others)


def test_results_of_different_problems_do_not_unite(tiny, tmp_path):
    sweep(tiny, tmp_path / "a", optimizer=lambda learning_rate: optax.sgd(2 * learning_rate), **SMALL)
    sweep(tiny, tmp_path / "b", optimizer=lambda learning_rate: optax.sgd(learning_rate), **SMALL)
    with pytest.raises(ValueError, match="are not of one problem"):
        jm.merge([tmp_path / "a", tmp_path / "b"])

"""Searches: what is asked, trained and told, and that a search that was interrupted goes on with the same settings."""

import json
from typing import Any

import jax
import numpy as np
import optax
import optuna
import pytest
from conftest import mostly_slow

import jaxmnist as jm
from jaxmnist.analysis import results
from jaxmnist.sweeps import programs, samplers, search
from jaxmnist.sweeps.search_folder import SearchFolder

MODEL = jm.SoftmaxRegression(4)
SPACE = dict(learning_rate=jm.loguniform(1e-3, 1), momentum=jm.uniform(0, 0.9), batch_size=4)
# Half of the settings diverge.
WILD = SPACE | dict(learning_rate=[1e-2, 1e-1, 1e6, 1e7])
SAMPLERS = mostly_slow(samplers.SAMPLERS, "optuna")


@pytest.fixture
def ask(tiny):
    def ask(space=SPACE, **options):
        shared = dict(num_rounds=3, batch=4, num_steps=3, seeds=range(2), progress=False)
        return jm.search(MODEL, optax.sgd, space, tiny, **shared | options)

    return ask


@pytest.fixture
def trained(monkeypatch):
    """How many runs each call trains, in order; `stop_at` lets that call fail."""
    counts, options = [], {"stop_at": None}

    def train(job, means, real=search.train):
        if len(counts) == options["stop_at"]:
            options["stop_at"] = None
            raise KeyboardInterrupt
        counts.append(len(job.arrays["seed"]))
        return real(job, means)

    monkeypatch.setattr(search, "train", train)
    return counts, options


def settings_of(result):
    """Returns the settings in the order in which they were trained."""
    runs = results.runs(result.isel(run=slice(None, None, 2)))
    return list(zip(*(runs[name].tolist() for name in runs if name != "seed"), strict=True))


def means_of(result, name="validation_loss"):
    return result[name].values.reshape(-1, 2).mean(axis=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_is_the_sweep_of_its_settings(tiny, ask, sampler):
    result = ask(sampler=sampler)
    runs = results.runs(result)
    assert result["round"].values.tolist() == [1] * 8 + [2] * 8 + [3] * 8
    assert result["validation_loss"].dims == ("run",) and len(set(settings_of(result))) == 12
    whole = jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=3, progress=False)
    assert set(whole.data_vars) == set(result.data_vars)
    for name in whole.data_vars:
        np.testing.assert_allclose(result[name].values, whole[name].values, rtol=1e-5)
    assert len(np.unique(result["validation_loss"])) == 24
    assert (runs["learning_rate"] >= 1e-3).all() and (runs["learning_rate"] <= 1).all() and runs["momentum"].max() < 0.9
    assert jm.best(result) == jm.best(whole) and len(jm.ties(result)) == 12
    other = ask(sampler=sampler, sampler_seed=1, num_rounds=1)
    assert not set(settings_of(result)) & set(settings_of(other))


def test_random_settings_are_those_of_a_sample(ask):
    choices = SPACE | dict(momentum=[0.0, 0.5, 0.9])
    sample = jm.sample(12, 5, **choices)
    result = ask(choices, sampler="random", sampler_seed=5)
    for name, column in sample.items():
        np.testing.assert_array_equal(result[name].values[::2], column)


def test_a_sobol_sequence_fills_each_axis_evenly():
    axes = samplers.parse(dict(a=jm.loguniform(1e-3, 1e1), b=range(10, 18), c=["x", "y"], d=jm.uniform(0, 1)))
    sampler = samplers.SobolSampler(axes, 0)
    drawn = [samplers.values_at(axes, draw.point) for number in range(2) for draw in sampler.ask(8, number)]
    for name, edges in (("a", np.geomspace(1e-3, 1e1, 17)), ("d", np.linspace(0, 1, 17))):
        counts, _ = np.histogram([setting[name] for setting in drawn], edges)
        assert counts.tolist() == [1] * 16
    assert [*map([setting["c"] for setting in drawn].count, "xy")] == [8, 8]
    assert sorted(setting["b"] for setting in drawn) == sorted([*range(10, 18)] * 2)


@pytest.mark.parametrize("diverged", ["worst", "failed"])
def test_what_is_told_is_what_the_result_says(ask, diverged):
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
    result = ask(WILD, study=study, diverged=diverged)
    ranked = jm.settings(result, by="loss")
    assert 0 < (ranked["num_diverged"] > 0).sum() < 12
    assert len(study.trials) == 12
    finite = []
    for number, trial in enumerate(study.trials):
        (row,) = ranked[np.logical_and.reduce([ranked[name] == trial.params[name] for name in SPACE])].itertuples()
        if not row.num_diverged:
            finite.append(row.validation_loss)
            assert trial.value == pytest.approx(row.validation_loss, rel=1e-6)
        elif diverged == "failed":
            assert trial.state == optuna.trial.TrialState.FAIL
        else:
            # Of the rounds up to its own.
            known = means_of(result)[: 4 * (number // 4 + 1)]
            is_fine = ~result["diverged_step"].notnull().values.reshape(-1, 2).any(axis=1)[: len(known)]
            assert trial.value == pytest.approx(known[is_fine].max(), rel=1e-6)
    assert finite


def test_another_metric_and_its_direction(ask):
    study = optuna.create_study(direction="maximize")
    result = ask(study=study, by="accuracy", num_rounds=1)
    assert [trial.value for trial in study.trials] == pytest.approx(means_of(result, "validation_accuracy"))
    with pytest.raises(ValueError, match=r"^study is .*; a study that says minimize, not maximize, is needed"):
        ask(study=study)
    with pytest.raises(ValueError, match=r"^by is 'mae'; one of 'accuracy', 'loss' is needed"):
        ask(by="mae")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_search_goes_on_with_the_same_settings(ask, trained, tmp_path, sampler):
    counts, options = trained
    whole = ask(sampler=sampler, folder=tmp_path / "whole")
    assert counts == [8, 8, 8]
    for stop in (4, 5):
        # A round has been asked for and not trained.
        options["stop_at"] = len(counts) + stop - 3
        with pytest.raises(KeyboardInterrupt):
            ask(sampler=sampler, folder=tmp_path / str(stop))
        assert ask(sampler=sampler, folder=tmp_path / str(stop)).identical(whole)
        assert (tmp_path / str(stop) / "results.csv").read_bytes() == (tmp_path / "whole/results.csv").read_bytes()
    assert ask(sampler=sampler, folder=tmp_path / "whole").identical(whole)
    assert ask(sampler=sampler).drop_attrs().identical(whole.drop_attrs())
    assert not list(tmp_path.rglob("progress"))


def test_a_finished_search_is_read_and_further_rounds_are_added(ask, tmp_path, monkeypatch):
    first = ask(folder=tmp_path, num_rounds=2)
    saved = (tmp_path / "results.nc").read_bytes()
    with monkeypatch.context() as context:
        context.setattr("jaxmnist.sweeps.programs.advance", lambda *args, **kwargs: pytest.fail("trained"))
        assert ask(folder=tmp_path, num_rounds=2).identical(first)
    assert (tmp_path / "results.nc").read_bytes() == saved
    longer = ask(folder=tmp_path, num_rounds=3)
    assert longer.isel(run=slice(16)).drop_attrs().identical(first.drop_attrs())
    assert longer.identical(ask(num_rounds=3).assign_attrs(longer.attrs)) and longer.sizes["run"] == 24
    with pytest.raises(ValueError, match="has begun 3 rounds, more than num_rounds 2; choose another folder"):
        ask(folder=tmp_path, num_rounds=2)


OTHERS = {
    "its batch is 4, not 3": dict(batch=3),
    "its seeds is '0 1', not '0 1 2'": dict(seeds=range(3)),
    "its sampler is 'optuna', not 'random'": dict(sampler="random"),
    "its space is": dict(space=SPACE | dict(batch_size=8)),
    "its num_steps is 3, not 4": dict(num_steps=4),
    "its constrain is": dict(constrain=dict),
    "its dtype is": dict(dtype="float64"),
}


@pytest.mark.parametrize("words", mostly_slow(OTHERS, "its space is", "its dtype is"))
def test_another_search_in_the_folder_is_refused(ask, tmp_path, words):
    result = ask(folder=tmp_path, num_rounds=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=words):
        ask(folder=tmp_path, **dict(num_rounds=1) | OTHERS[words])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert jm.load_results(tmp_path)["round"].identical(result["round"])


def test_the_result_of_something_else_in_the_folder_stays(tiny, ask, tmp_path):
    jm.sweep(MODEL, optax.sgd, jm.grid(learning_rate=0.1, batch_size=4, seed=0), tiny, num_steps=3, folder=tmp_path)
    with pytest.raises(ValueError, match="holds the result of another sweep: choose another folder"):
        ask(folder=tmp_path)


@pytest.mark.parametrize("storage", mostly_slow(["memory", "sqlite", "journal"], "journal"))
def test_a_study_is_resumed_with_its_storage_or_filled_again(ask, trained, tmp_path, request, storage):
    """Trials that were asked for and never told are trained, and not asked for again."""
    counts, options = trained

    def make_study(name):
        place: Any = None
        if storage == "sqlite":
            place = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/{name}.db")
            # From Python 3.13 on, connections that are left open make a warning.
            request.addfinalizer(place.engine.dispose)
            request.addfinalizer(place.remove_session)
        if storage == "journal":
            backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / f"{name}.log"))
            place = optuna.storages.JournalStorage(backend)
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=4)
        return optuna.create_study(storage=place, study_name="it", load_if_exists=True, sampler=sampler)

    options["stop_at"] = 1
    with pytest.raises(KeyboardInterrupt):
        ask(study=make_study("a"), folder=tmp_path / "a")
    asked = json.loads((tmp_path / "a/round_0002/settings.json").read_text())["points"]["learning_rate"]
    study = make_study("a")
    assert len(study.trials) == (0 if storage == "memory" else 8)
    result = ask(study=study, folder=tmp_path / "a", num_rounds=2)
    assert [trial.state.is_finished() for trial in study.trials] == [True] * 8
    assert [trial.params["learning_rate"] for trial in study.trials] == result["learning_rate"].values[::2].tolist()
    assert result["learning_rate"].values[8::2].tolist() == asked
    np.testing.assert_allclose([trial.value for trial in study.trials], means_of(result), rtol=1e-6)
    assert counts == [8, 8, 8]
    other = optuna.create_study()
    other.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="study is another one than that of the search in folder"):
        ask(study=other, folder=tmp_path / "a", num_rounds=2)


def test_what_a_study_was_asked_before_its_folder_was_written_is_trained(ask, tmp_path, monkeypatch):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(learning_rate=0.5, momentum=0.25))
    with monkeypatch.context() as context, pytest.raises(ZeroDivisionError):
        context.setattr(SearchFolder, "begin_round", lambda *args: 1 / 0)
        ask(study=study, folder=tmp_path)
    asked = [trial.params for trial in study.trials]
    assert len(asked) == 4 and asked[0] == dict(learning_rate=0.5, momentum=0.25, batch_size=4)
    result = ask(study=study, folder=tmp_path, num_rounds=1)
    assert settings_of(result) == [tuple(params[name] for name in SPACE) for params in asked]
    assert len(study.trials) == 4


def test_a_setting_is_trained_once_however_often_it_is_drawn(ask, trained):
    counts, _ = trained
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    result = ask(dict(learning_rate=[0.1, 0.2, 0.4], batch_size=4), study=study, num_rounds=4)
    assert sum(counts) == 6 and len(counts) < 4
    assert result.sizes == {"run": 6} and result["validation_loss"].dims == ("run",)
    told = {(trial.params["learning_rate"], trial.value) for trial in study.trials}
    assert len(study.trials) == 16 and len(told) == 3


@pytest.mark.slow
def test_conditions_are_a_function_of_the_setting(ask):
    def constrain(setting):
        rate = setting.pop("rate_per_example") * setting["batch_size"]
        return setting | dict(learning_rate=rate, momentum=setting["momentum"] if setting["nesterov"] else 0.0)

    space = dict(
        rate_per_example=jm.loguniform(1e-3, 1e-1), batch_size=[4, 8], momentum=[0.5, 0.9], nesterov=[True, False]
    )
    result = ask(space, constrain=constrain, sampler="random", num_rounds=1, batch=8)
    assert set(results.hyperparameters(result)) == {"learning_rate", "batch_size", "momentum", "nesterov", "seed"}
    has_momentum = result["momentum"].values > 0
    assert (has_momentum == result["nesterov"].values).all() and set(has_momentum) == {True, False}
    per_example = jm.sample(8, 0, **space)["rate_per_example"]
    np.testing.assert_allclose((result["learning_rate"] / result["batch_size"]).values[::2], per_example)

    for wrong, words in (
        (lambda setting: None, "constrain returns None; a mapping of names to values is needed"),
        (lambda setting: setting["x"], "constrain fails for .*: 'x'"),
        (lambda setting: setting if setting["nesterov"] else {"batch_size": 4}, "give all of them the same names"),
        (lambda setting: setting | {"seed": 0}, "space has seed; the seeds of all settings are given by seeds"),
    ):
        with pytest.raises(ValueError, match=words):
            ask(space, constrain=wrong, sampler="random")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tuples_and_none_can_be_chosen(tiny, sampler):
    def scaled(learning_rate, scale):
        return optax.chain(optax.scale(1.0 if scale is None else scale[0]), optax.sgd(learning_rate))

    space = dict(learning_rate=jm.uniform(0.1, 0.2), scale=[None, (0.0,)], batch_size=4)
    shared = dict(num_rounds=2, batch=3, num_steps=2, seeds=[0], progress=False)
    result = jm.search(MODEL, scaled, space, tiny, sampler=sampler, **shared)
    assert {"(0.0,)"} < set(result["scale"].values.tolist()) <= {"None", "(0.0,)"}
    still = result["scale"].values == "(0.0,)"
    losses = result["validation_loss"].values
    assert len(set(losses[still])) == 1 and len(set(losses[~still])) == (~still).sum()


def test_damaged_or_altered_settings_are_refused(ask, tmp_path):
    ask(folder=tmp_path, num_rounds=1)
    path = tmp_path / "round_0001" / "settings.json"
    saved = json.loads(path.read_text())
    outside = (dict(learning_rate=[5.0] * 4), dict(batch_size=[1] * 4), dict(batch_size=[0.5] * 4), dict(x=[0] * 4))
    changes = [dict(points=saved["points"] | columns) for columns in outside]
    changes += [dict(points={}), dict(points=3), *(dict(numbers=numbers) for numbers in ([0], ["a"] * 4, [-1] * 4))]
    for change in changes:
        path.write_text(json.dumps(saved | change))
        with pytest.raises(ValueError, match=r"the settings in .* cannot be read"):
            ask(folder=tmp_path, num_rounds=1)
    path.write_text(json.dumps(saved | dict(settings=saved["settings"] | dict(batch_size=["8"] * 4))))
    with pytest.raises(ValueError, match="its settings are not those that constrain returns now"):
        ask(folder=tmp_path, num_rounds=1)
    (tmp_path / "search.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match=r"another folder|cannot be read"):
        ask(folder=tmp_path, num_rounds=1)


def test_without_optuna_a_sentence_says_so(ask, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"optuna is not installed; install it by pip install 'jaxmnist\[search\]'"):
        ask()


def test_rounds_of_several_batch_sizes_are_compiled_once(ask, tiny, tmp_path, caplog):
    space = SPACE | dict(batch_size=[2, 4, 8])
    programs.advance.clear_cache()
    with jax.log_compiles():
        result = ask(space, batch=12, folder=tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith("Compiling jit(advance)") for message in messages) == 1
    counts = [np.unique(each["batch_size"], return_counts=True) for _, each in result.groupby("round")]
    assert len({str(each) for each in counts}) > 1
    # From the result of a round, a run is trained again bit for bit.
    one = jm.load_results(tmp_path / "round_0002")
    run = {name: column[5].item() for name, column in results.runs(one).items()}
    again = jm.rerun(one, dataset=tiny, model=MODEL, **run)
    assert again.is_exact and again.validation.loss == one["validation_loss"].values[5]

"""Results as studies of Optuna, and as tables with a row per run and step."""

import numpy as np
import optax
import optuna
import pandas as pd
import pytest
from results_for_tests import STEPS, make_regression, make_result

import jaxmnist as jm
from jaxmnist.analysis import results

MODEL = jm.SoftmaxRegression(4)


def with_divergence(result, **setting):
    """Returns the result with one run of a setting that diverged."""
    step = result["diverged_step"].copy()
    step.loc[setting | {"seed": 1}] = 3
    return result.assign(diverged_step=step)


def test_a_study_has_a_trial_for_each_setting_in_their_order():
    result = with_divergence(make_result(), learning_rate=0.2, batch_size=16)
    study = jm.to_optuna(result)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE and len(study.trials) == 9
    ranked = jm.settings(result).set_index(["learning_rate", "batch_size"])
    order = list(dict.fromkeys(zip(*(results.runs(result)[name].tolist() for name in ranked.index.names), strict=True)))
    for trial, setting in zip(study.trials, order, strict=True):
        assert tuple(trial.params[name] for name in ranked.index.names) == setting
        assert type(trial.params["batch_size"]) is int
        row = ranked.loc[setting]
        assert trial.user_attrs["validation_loss"] == row["validation_loss"] and trial.user_attrs["num_seeds"] == 3
        assert not any(name.startswith("test") for name in trial.user_attrs)
        if setting == (0.2, 16):
            assert trial.state == optuna.trial.TrialState.FAIL
        else:
            assert trial.value == row["validation_accuracy"]
    best = jm.best(result)
    assert study.best_params == best.setting and study.best_value == best.validation.mean
    assert set(optuna.importance.get_param_importances(study)) == {"learning_rate", "batch_size"}


def test_a_study_follows_the_metric_and_its_direction():
    result = make_regression()
    assert jm.to_optuna(result).best_params == jm.best(result).setting
    study = jm.to_optuna(result, by="mae", largest=True)
    assert study.best_params == jm.best(result, by="mae", largest=True).setting


def test_distributions_are_those_of_the_values():
    runs = jm.grid(a=[-1.0, 2.5], b=[1, 2, 30], c=[True, False], d=["x"], batch_size=[8], seed=[0])
    values = np.arange(12.0)
    names = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
    result = results.label(runs, {name: values for name in names} | {"diverged_step": values * np.nan}, (), {})
    trial = jm.to_optuna(result).trials[0]
    kinds = optuna.distributions
    assert trial.distributions == {
        "a": kinds.FloatDistribution(-1.0, 2.5), "b": kinds.IntDistribution(1, 30, log=True),
        "c": kinds.CategoricalDistribution([True, False]), "d": kinds.CategoricalDistribution(["x"]),
        "batch_size": kinds.IntDistribution(8, 8),
    }  # fmt: skip


def test_what_halving_has_pruned_is_pruned(tiny):
    runs = jm.grid(learning_rate=[0.01, 0.1, 0.3], batch_size=4, seed=range(2))
    result = jm.halve(MODEL, optax.sgd, runs, tiny, num_steps=6, factor=3, rungs=[2], progress=False)
    study, table = jm.to_optuna(result), jm.settings(result)
    states = [trial.state.name for trial in study.trials]
    assert sorted(states) == ["COMPLETE", "PRUNED", "PRUNED"]
    for trial in study.trials:
        (row,) = table[table["learning_rate"] == trial.params["learning_rate"]].itertuples()
        if trial.state.name == "PRUNED":
            assert trial.intermediate_values == {2: row.validation_accuracy}
    rows = jm.table(result)
    steps = rows["pruned_step"].fillna(6).tolist()
    assert sorted(steps) == [2] * 4 + [6] * 2


def test_a_csv_has_a_row_per_run_and_step(tmp_path):
    result = with_divergence(make_result(), learning_rate=0.2, batch_size=16)
    path = tmp_path / "new" / "steps.csv"
    jm.to_csv(result, path)
    rows = pd.read_csv(path)
    assert list(rows)[:5] == ["run", "learning_rate", "batch_size", "seed", "step"] and len(rows) == 27 * 3
    table, attrs = jm.table(result), ["learning_rate", "batch_size", "seed"]
    for number, own in rows.groupby("run"):
        run = table.iloc[number]
        assert own["step"].tolist() == STEPS and (own[attrs] == run[attrs]).all(axis=None)
        curves = result.sel({name: run[name] for name in attrs})
        for name in ("train_accuracy", "validation_loss", "test_accuracy"):
            np.testing.assert_allclose(own[name], curves[f"recorded_{name}"])
    assert set(rows.loc[rows["diverged_step"].notna(), "run"]) == {13}
    first = path.read_bytes()
    jm.to_csv(result, path)
    assert path.read_bytes() == first


def test_without_curves_a_csv_has_the_ends_of_the_runs_that_have_ended(tmp_path):
    result = make_result()
    ends = result[[name for name in result if not name.startswith("recorded_")]]
    finished = np.ones((3, 3, 3), bool)
    finished[1] = False
    gone = ends.where(finished).assign(finished=(ends["diverged_step"].dims, finished))
    jm.to_csv(gone.assign_attrs(result.attrs), tmp_path / "a.csv")
    rows = pd.read_csv(tmp_path / "a.csv")
    assert len(rows) == 18 and set(rows["step"]) == {10} and set(rows["learning_rate"]) == {0.1, 0.4}
    np.testing.assert_allclose(rows["test_loss"], result["test_loss"].values[[0, 2]].ravel())


def test_only_curves_of_validation_leave_the_other_columns_empty_before_the_end(tmp_path):
    others = [name for name in make_result() if name.startswith(("recorded_train", "recorded_test"))]
    result = make_result().drop_vars(others)
    jm.to_csv(result, tmp_path / "a.csv")
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["test_accuracy"].notna().tolist() == [False, False, True] * 27
    assert rows["validation_accuracy"].notna().all() and len(rows) == 81


def test_a_csv_of_somebody_else_stays(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("day,seed\n1,2\n")
    with pytest.raises(ValueError, match="was not written by jaxmnist"):
        jm.to_csv(make_result(), path)
    assert path.read_text() == "day,seed\n1,2\n"
    with pytest.raises(ValueError, match=r"^path is .*a\.txt'; a path that ends in \.csv is needed"):
        jm.to_csv(make_result(), str(tmp_path / "a.txt"))

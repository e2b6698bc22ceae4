"""The importance of hyperparameters is found where it was planted."""

import functools
import importlib.util

import numpy as np
import pytest
from test_any_axes import ticks, words
from test_results import make_result

import jaxmnist as jm
from jaxmnist.analysis import importance
from jaxmnist.analysis.metrics import judged


def planted(**more):
    """Returns a grid whose accuracy depends on the rate most, less on the size, and on the activation not at all."""
    axes = dict(
        activation=["tanh", "relu"], batch_size=[8, 16], learning_rate=np.geomspace(0.01, 10, 8).tolist(), seed=[0]
    )
    rate = np.linspace(0.1, 0.8, 8)
    accuracy = (np.zeros((2, 1, 1)) + np.array([0.0, 0.1])[:, None] + rate).ravel()
    return make_result(accuracy, accuracy, **more, **axes)


@functools.cache
def planted_table():
    return jm.importance_table(planted())


def test_what_matters_most_is_first_and_what_matters_not_has_next_to_nothing():
    table = planted_table().set_index("hyperparameter")
    assert table.index.tolist() == ["learning_rate", "batch_size", "activation"]
    # The variances of the effects are 0.0525 and 0.0025.
    assert table["fanova"]["learning_rate"] > 0.8 and 0.005 < table["fanova"]["batch_size"] < 0.15
    assert table["fanova"]["activation"] < 0.03 and table["ped_anova"]["activation"] < 0.05
    assert table["ped_anova"].idxmax() == "learning_rate" and table["ped_anova"].sum() == pytest.approx(1)
    assert (table["num_settings"] == 32).all()
    for method in ("fanova", "ped_anova"):
        assert (table[f"{method}_low"] <= table[method]).all() and (table[method] <= table[f"{method}_high"]).all()
    assert (table["fanova_high"] - table["fanova_low"] > 0).all()


def test_bars_are_those_of_the_table_the_most_important_on_top(monkeypatch):
    monkeypatch.setattr("jaxmnist.plots.importance.importance_table", lambda *args: planted_table())
    figure = jm.importance(planted())
    assert ticks(figure.axes[0].yaxis) == ["activation", "batch size", "learning rate"]
    for axes, method in zip(figure.axes, ("fanova", "ped_anova"), strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], planted_table()[method][::-1])
    assert "of accuracy over 32 settings; 95 % bootstrap intervals over settings" in words(figure)


def test_without_optuna_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"optuna is not installed; install it by pip install 'jaxmnist\[search\]'"):
        jm.importance(planted())


def test_few_settings_or_equal_ones_are_refused():
    with pytest.raises(ValueError, match="result holds 7 settings, of 7 different values, of which no run diverged"):
        jm.importance(planted().isel(activation=0, batch_size=0, learning_rate=slice(7)))
    equal = make_result([0.5] * 9, [0.5] * 9, learning_rate=[1, 2, 3], batch_size=[1, 2, 3], seed=0)
    with pytest.raises(ValueError, match="result holds 9 settings, of 1 different values"):
        jm.importance_table(equal)
    with pytest.raises(ValueError, match="result holds 7 settings"):
        jm.importance(planted(diverged=[1] * 25 + [np.nan] * 7))


def test_some_settings_are_drawn_from_those_that_have_a_value():
    result = planted(diverged=[1] * 8 + [np.nan] * 24)
    ended, some = (importance._trials(result, judged(result), most) for most in (500, 10))
    assert len(ended) == 24 and len(some) == 10
    assert {str(trial.params) for trial in some} < {str(trial.params) for trial in ended}
    assert some[0].distributions == ended[0].distributions


def test_a_table_is_made_only_where_it_says_something(monkeypatch):
    monkeypatch.setattr(importance, "_table", lambda trials, *rest: len(trials))
    result = planted()
    metric = judged(result)
    assert importance.table_if_any(result, metric) == 32
    assert importance.table_if_any(result, metric, max_settings=9) == 9
    assert importance.table_if_any(result.isel(activation=0), metric) is None
    assert importance.table_if_any(planted(diverged=[1] * 25 + [np.nan] * 7), metric) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert importance.table_if_any(result, metric) is None

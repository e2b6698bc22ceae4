"""What a result is judged by: accuracy if it has one, otherwise loss, or what is asked for, in the right direction."""

import math

import numpy as np
import pytest
from results_for_tests import LEAST_LOSS, LEAST_MAE, MOST_LOSS, MOST_MAE, RATES, SIZES, make_regression, make_result
from scipy import stats

import jaxmnist as jm
from jaxmnist.analysis import metrics, words


def setting(place):
    """Returns a setting by its place in the grid."""
    return {"learning_rate": RATES[place // 3], "batch_size": SIZES[place % 3]}


def one_seed(result):
    return result.isel(seed=[1])


# What is asked for, and the best setting then.
DIRECTIONS = [
    ({}, LEAST_LOSS), (dict(by="loss"), LEAST_LOSS), (dict(largest=False), LEAST_LOSS), (dict(largest=True), MOST_LOSS),
    (dict(by="loss", largest=True), MOST_LOSS), (dict(by="mae", largest=False), LEAST_MAE),
    (dict(by="mae", largest=True), MOST_MAE),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "place"), DIRECTIONS)
def test_the_best_setting_is_that_of_the_metric_and_direction_asked_for(asked, place):
    result, expected = make_regression(), setting(place)
    assert jm.best(result, **asked).setting == expected
    for table in (jm.settings(result, **asked), jm.ties(result, **asked)):
        assert {name: table[name].iloc[0] for name in expected} == expected
    assert jm.best_of_each(result, "batch_size", **asked)[expected["batch_size"]].setting == expected
    compared = jm.comparison_table(result, "batch_size", **asked).set_index("batch_size")
    assert compared.loc[expected["batch_size"], "learning_rate"] == expected["learning_rate"]
    rate = words.value_words(expected["learning_rate"])
    line = f"chosen on validation: learning_rate {rate}, batch_size {expected['batch_size']}"
    assert line in jm.report(result, **asked)
    finer = jm.refined(result, 47, **asked)["learning_rate"]
    ends = {0.1: finer[0] < 0.1, 0.2: finer[0] == 0.1 and finer[-1] == 0.4, 0.4: finer[-1] > 0.4}
    assert ends[expected["learning_rate"]]


def test_an_accuracy_comes_first_and_a_loss_is_best_where_it_is_least():
    result = make_result()
    assert jm.best(result) == jm.best(result, "accuracy") == jm.best(result, "accuracy", True)
    shuffled = result.assign(validation_loss=1 - result["validation_loss"])
    means = {name: shuffled[f"validation_{name}"].mean("seed") for name in ("accuracy", "loss")}
    for asked, place in (({}, means["accuracy"].argmax(...)), (dict(by="loss"), means["loss"].argmin(...))):
        found = jm.best(shuffled, **asked).setting
        assert found == {name: result[name].values[index] for name, index in place.items()}


def test_a_result_that_names_no_metrics_has_accuracy_and_loss():
    result = make_result()
    named = result.assign_attrs(metrics="accuracy loss", loss="cross_entropy")
    assert jm.report(named) == jm.report(result)
    assert jm.settings(named).equals(jm.settings(result)) and jm.table(named).equals(jm.table(result))


def test_what_nobody_can_know_has_to_be_said():
    with pytest.raises(ValueError, match="largest is None; True or False is needed for the by 'mae'"):
        jm.best(make_regression(), "mae")
    with pytest.raises(ValueError, match="by is 'accuracy'; one of 'mae', 'loss' is needed"):
        jm.settings(make_regression(), "accuracy")
    with pytest.raises(ValueError, match="metric is 'accuracy'; one of 'mae', 'loss' is needed"):
        jm.steps_to_target(make_regression(), 0.5, "accuracy")
    for names in (None, 3, "", "mae"):
        with pytest.raises(ValueError, match=r"result has the metrics .* names are needed, with loss among them"):
            jm.settings(make_regression().assign_attrs(metrics=names))


def test_equal_values_go_to_the_lower_loss():
    result = make_regression().copy()
    result = result.assign(validation_mae=result["validation_mae"] * 0 + 1)
    for largest in (False, True):
        table = jm.settings(result, "mae", largest)
        assert (np.diff(table["validation_loss"]) >= 0).all() and jm.best(result, "mae", largest).setting == setting(4)


def test_the_interval_of_a_metric_is_that_of_its_own_numbers():
    result = make_regression()
    best = jm.best(result, "mae", True)
    values = result["test_mae"].sel(best.setting).values
    assert best.test.mean == pytest.approx(values.mean()) and best.test.mean > 9
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert (best.test.low, best.test.high) == pytest.approx((values.mean() - half, values.mean() + half))
    alone = jm.best(one_seed(result))
    assert math.isnan(alone.test.low) and math.isnan(alone.validation.high)
    assert alone.test.words == "1 seed, no interval"
    assert jm.best(one_seed(make_result())).test.kind.startswith("Wilson interval over 23 images")


def test_tables_hold_all_metrics():
    result = make_regression()
    assert [*jm.table(result)] == [
        "learning_rate", "batch_size", "seed", "validation_mae", "validation_loss", "test_mae", "test_loss",
        "diverged_step",
    ]  # fmt: skip
    assert "test_loss" not in jm.settings(make_result()) and "test_loss" in jm.settings(make_result(), "loss")
    assert "test_loss" not in jm.settings(result, "mae", False)
    table = jm.settings(result)
    assert {f"{split}_{name}" for split in ("validation", "test") for name in ("mae", "loss")} <= set(table)
    curves = jm.curve_table(result)
    assert "test_loss_mean" in curves and "test_mae_mean" not in curves
    several = jm.curve_table(result, ("train", "test"), ("mae", "loss"))
    at_end = several[(several["step"] == 10) & (several["learning_rate"] == 0.2) & (several["batch_size"] == 16)]
    expected = result["test_loss"].sel(setting(LEAST_LOSS)).values.mean() / 1.1
    assert at_end["test_loss_mean"].item() == pytest.approx(expected)


def test_ties_are_of_the_metric_asked_for():
    result = make_regression()
    table = jm.ties(result, "mae", False).set_index(["learning_rate", "batch_size"])
    values = [result["validation_mae"].sel(learning_rate=rate, batch_size=size).values for rate, size in table.index]
    others = [[each for at, each in enumerate(values) if at != row] for row in range(9)]
    p_values = [
        8 * min(stats.ttest_rel(value, each, alternative="greater").pvalue for each in others[row])
        for row, value in enumerate(values)
    ]
    np.testing.assert_allclose(table["p_value"].iloc[1:], p_values[1:])
    assert set(table["standing"].iloc[1:]) == {"worse"} and math.isnan(table["p_value"].iloc[0])
    # The unit of a metric decides nothing.
    small = result.assign(validation_mae=1e-14 * result["validation_mae"])
    np.testing.assert_allclose(jm.ties(small, "mae", False)["p_value"], table["p_value"])


def test_the_report_of_a_regression_speaks_of_its_loss():
    result = make_regression()
    text, best = jm.report(result), jm.best(result)
    assert "accuracy" not in text and "validation loss (mean ± s.d.)" in text
    assert f"its test loss: {best.test.mean:.4g} [{best.test.low:.4g}, {best.test.high:.4g}] (95 % t interval" in text
    mae = result["test_mae"].sel(best.setting).values
    assert f"its test mae: {mae.mean():.4g} [" in text
    target = jm.default_target(result)
    assert f"steps to a validation loss of {target:g}, at the best learning rate" in text
    assert "its test loss: 0.5511 (1 seed, no interval)" in jm.report(one_seed(result))
    assert "its test mae: " in jm.report(result, by="mae", largest=True)
    with pytest.raises(ValueError, match="target is 2; an accuracy between 0 and 1 is needed"):
        jm.report(make_result(), 2)
    assert "steps to a validation loss of 2" in jm.report(result, 2)


def test_comparisons_and_last_values_of_a_regression():
    result = make_regression()
    text = jm.comparison(result, "batch_size")
    best = jm.best_of_each(result, "batch_size")[16]
    assert f"{best.test.mean:.4g} [{best.test.low:.4g}, {best.test.high:.4g}]" in text
    assert "mean loss and 95 % t interval over 3 seeds" in text and "accuracy" not in text
    table = jm.comparison_table(result, "batch_size").set_index("batch_size")
    assert table.loc[16, "test_loss"] == pytest.approx(best.test.mean)
    at_size = result.sel(batch_size=16)
    mean = at_size["test_loss"].sel(learning_rate=0.2).values.mean()
    assert f"test loss after 10 steps, learning rate 0.2: {mean:.4g} [" in jm.final_accuracies(at_size)
    assert "test mae after 10 steps" in jm.final_accuracies(at_size, "mae")


def test_a_loss_reaches_a_target_from_above_and_a_gain_from_below():
    result = make_regression()
    curves = result["recorded_validation_loss"]
    steps = jm.steps_to_target(result, 1.2)
    for place in np.ndindex(steps.shape):
        reached = result["step"].values[curves.transpose(*steps.dims, "step").values[place] <= 1.2]
        assert (steps.values[place] == reached.min()) if len(reached) else np.isnan(steps.values[place])
    assert np.isfinite(steps).any() and np.isnan(steps).any()
    falling = jm.steps_to_target(result, 2.0, "mae", True)
    assert float(falling.sel(setting(MOST_MAE)).max()) == 0 and np.isnan(jm.steps_to_target(result, 0.1)).all()
    with pytest.raises(ValueError, match="largest is None; True or False is needed for the metric 'mae'"):
        jm.steps_to_target(result, 2.0, "mae")


@pytest.mark.parametrize(("metric", "largest"), [("loss", None), ("mae", False), ("mae", True)])
@pytest.mark.parametrize("unit", [1.0, 1e-9, -3.7, np.float32(0.3)])
def test_the_default_target_is_reached_at_every_batch_size_and_hardly_a_better_one(metric, largest, unit):
    result = make_regression()
    name = f"recorded_validation_{metric}"
    result = result.assign({name: (unit * result[name]).astype(np.float32)})
    target = jm.default_target(result, metric, largest)
    reached = jm.best_rates(jm.target_table(result, target, metric, largest))
    assert set(reached["batch_size"]) == set(SIZES)
    better = target + (1 if largest else -1) * 0.11 * abs(target)
    assert set(jm.best_rates(jm.target_table(result, better, metric, largest))["batch_size"]) < set(SIZES)


def test_a_metric_at_equal_budgets_is_the_one_asked_for():
    result = make_regression()
    np.testing.assert_array_equal(jm.at_budget(result, "steps", 5), result["recorded_validation_loss"].sel(step=5))
    at_end = jm.at_budget(result, "steps", 10, "test", "mae")
    np.testing.assert_array_equal(at_end, result["recorded_test_mae"].sel(step=10))


def test_dead_runs_are_those_of_a_classification():
    with pytest.raises(ValueError, match="result is of the loss 'squared_error'; the cross_entropy over classes is"):
        jm.is_dead(make_regression())


def test_functions_are_named_without_their_modules_if_that_is_unique():
    relu, gelu, other = "jax._src.nn.functions.relu", "jax._src.nn.functions.gelu", "mine.relu"
    assert words.value_words(relu, [relu, gelu]) == "relu"
    assert words.value_words(relu, [relu, other]) == relu and words.value_words(gelu, [relu, other, gelu]) == "gelu"
    assert words.value_words("__main__.make.<locals>.<lambda>") == "<lambda>"
    assert words.value_words("jax.nn.leaky_relu(negative_slope=0.1)") == "leaky_relu(negative_slope=0.1)"
    for same in ("None", "(16, 0.5)", "tanh", "1.5", "float32[3] of digest 0a1b"):
        assert words.value_words(same) == same
    assert metrics.is_share("accuracy") and words.number_words("loss", 0.123456) == "0.1235"

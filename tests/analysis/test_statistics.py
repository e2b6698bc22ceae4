import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxmnist.analysis import curves, results, statistics, targets

STEPS = [0, 5, 10, 20, 40]


def make_curves(accuracy, loss=None, diverged=None, num_train=1000, steps=STEPS, **axes):
    """Returns a result whose curves `[R, E]` are given in the order of the grid."""
    import jaxmnist as jm

    runs = jm.grid(**axes)
    accuracy = np.asarray(accuracy, float)
    diverged = np.full(len(accuracy), np.nan) if diverged is None else np.asarray(diverged, float)
    loss = 1 - accuracy if loss is None else np.asarray(loss, float)
    values = dict(
        validation_accuracy=accuracy[:, -1], validation_loss=loss[:, -1], test_accuracy=accuracy[:, -1],
        test_loss=loss[:, -1], diverged_step=diverged,
        recorded_validation_accuracy=accuracy, recorded_validation_loss=loss,
    )  # fmt: skip
    attrs = dict(
        dataset="tiny", num_train=num_train, num_validation=100, num_test=200, num_classes=10, num_steps=steps[-1],
        budget=f"equal steps: {steps[-1]}", model="M()", optimizer="o",
    )  # fmt: skip
    return results.label(runs, values, steps, attrs)


def flat(final):
    return np.repeat(np.asarray(final, float)[:, None], len(STEPS), axis=1)


def test_budgets_pick_recorded_steps_and_interpolate_nothing():
    curve = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    result = make_curves(curve.repeat(3, axis=0), learning_rate=0.1, batch_size=[10, 20, 50], seed=0)

    def picked(budget, amount):
        return curves.at_budget(result, budget, amount).squeeze().values

    np.testing.assert_allclose(picked("steps", 20), [0.4, 0.4, 0.4])
    np.testing.assert_allclose(picked("steps", 39), [0.4, 0.4, 0.4])
    # 400 examples are 40, 20 and 8 steps; what was recorded at or before them: 40, 20, 5.
    np.testing.assert_allclose(picked("examples", 400), [0.5, 0.4, 0.2])
    np.testing.assert_allclose(picked("epochs", 0.4), [0.5, 0.4, 0.2])
    # 500 examples are 50 steps of batch size 10, which has taken 40.
    np.testing.assert_allclose(picked("examples", 500), [np.nan, 0.4, 0.3])
    assert curves.budgets(result) == {"steps": 40, "examples": 400, "epochs": 0.5}
    for budget, amount in (("hours", 1), ("steps", 0), ("steps", math.nan)):
        with pytest.raises(ValueError, match=r"budget is 'hours'|amount is"):
            curves.at_budget(result, budget, amount)


def test_a_diverged_run_has_no_accuracy_at_any_budget():
    result = make_curves(flat([0.9, 0.9]), diverged=[np.nan, 3], learning_rate=0.1, batch_size=8, seed=[0, 1])
    assert np.isnan(curves.at_budget(result, "steps", 5).squeeze().values).tolist() == [False, True]


def test_steps_to_target_is_the_first_recorded_step():
    accuracy = [[0.1, 0.5, 0.9, 0.7, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5]]
    result = make_curves(accuracy, learning_rate=[0.1, 0.2], batch_size=8, seed=0)
    steps = targets.steps_to_target(result, 0.8).squeeze().values
    assert steps[0] == 10 and np.isnan(steps[1])
    assert targets.steps_to_target(result, 0.55, "loss").squeeze().values.tolist() == [5, 40 if 0.5 <= 0.55 else 0]
    with pytest.raises(ValueError, match="metric is 'speed'"):
        targets.steps_to_target(result, 0.5, "speed")


def test_a_target_counts_as_reached_where_every_seed_reaches_it():
    accuracy = [[0.1, 0.9, 0.9, 0.9, 0.9], [0.1, 0.2, 0.9, 0.9, 0.9], [0.1] * 5, [0.1, 0.9, 0.9, 0.9, 0.9]]
    result = make_curves(accuracy, learning_rate=[0.1, 0.2], batch_size=8, seed=[0, 1])
    table = targets.target_table(result, 0.8)
    assert table["num_reached"].tolist() == [2, 1] and table["steps"].tolist()[0] == 7.5
    assert math.isnan(table["steps"][1]) and table["examples"][0] == 60
    # Two values 5 apart: standard error 2.5, and the t quantile of one degree of freedom.
    assert table["half_width"][0] == pytest.approx(2.5 * stats.t.ppf(0.975, 1))
    assert targets.best_rates(table)["learning_rate"].tolist() == [0.1]
    assert targets.default_target(result) == pytest.approx(0.9)


def test_a_run_that_diverged_reaches_no_target():
    accuracy = [
        [0.1, 0.9, 0.9, 0.1, 0.1],
        [0.1, 0.9, 0.9, 0.9, 0.9],
        [0.1, 0.2, 0.2, 0.9, 0.9],
        [0.1, 0.2, 0.9, 0.9, 0.9],
    ]
    diverged = [12, np.nan, np.nan, np.nan]
    result = make_curves(accuracy, diverged=diverged, learning_rate=[0.1, 0.2], batch_size=8, seed=[0, 1])
    for target, metric in ((0.8, "accuracy"), (0.2, "loss")):
        steps = targets.steps_to_target(result, target, metric).squeeze().values
        np.testing.assert_array_equal(steps, [[np.nan, 5], [20, 10]])
        table = targets.target_table(result, target, metric)
        assert table["num_reached"].tolist() == [1, 2]
        np.testing.assert_array_equal(table["steps"], [np.nan, 15])
        assert targets.best_rates(table)["learning_rate"].tolist() == [0.2]


def test_a_planted_critical_batch_size_is_found():
    sizes = np.array([8, 32, 128, 512, 2048])
    law = targets.fit_scaling(sizes, 150 + 36_000 / sizes)
    assert law.critical_batch_size == pytest.approx(240) and law.least_steps == pytest.approx(150)
    generator = np.random.default_rng(0)
    noisy = [
        targets.fit_scaling(sizes, (150 + 36_000 / sizes) * generator.normal(1, 0.05, 5)).critical_batch_size
        for _ in range(200)
    ]
    assert np.median(noisy) == pytest.approx(240, rel=0.05)
    assert targets.fit_scaling([8, 16, 32], [400, 200, 100]).critical_batch_size == math.inf
    with pytest.raises(ValueError, match="too few"):
        targets.fit_scaling([8, 16], [2, 1])


def test_rows_of_a_table_have_a_law_if_there_are_enough_of_them():
    table = pd.DataFrame({"batch_size": [8, 16, 32], "steps": [400.0, 250.0, 175.0]})
    law = targets.table_scaling(table)
    assert law == targets.fit_scaling([8, 16, 32], [400, 250, 175])
    assert law.critical_batch_size == pytest.approx(24) and law.least_steps == pytest.approx(100)
    assert targets.table_scaling(table[:2]) is None
    assert targets.table_scaling(table.assign(steps=[400.0, 250.0, 0.0])) is None


def test_dead_runs_are_told_from_slow_ones_and_from_those_that_never_began():
    guess = math.log(10)
    loss = [
        [3.2, 2.9, guess, guess + 0.001, guess - 0.002],  # dead
        [3.2, 3.1, 3.0, 2.9, 2.8],  # slow
        [guess] * 5,  # a learning rate of 0
        [3.2, guess, guess, 2.1, 1.5],  # passed by
        [3.2, 2.9, guess, guess, guess],  # dead, but diverged on its way
    ]
    result = make_curves(
        np.full((5, 5), 0.1), loss, [np.nan] * 4 + [1], learning_rate=[1, 2, 3, 4, 5], batch_size=8, seed=0
    )
    assert statistics.is_dead(result).squeeze().values.tolist() == [True, False, False, False, False]


def test_refining_zooms_in_around_the_best():
    rates, sizes = [0.001, 0.01, 0.1, 1.0], [8, 16, 32]
    accuracy = np.full((4, 3, 2), 0.5)
    accuracy[2, 1] = 0.9
    result = make_curves(flat(accuracy.ravel()), learning_rate=rates, batch_size=sizes, seed=[0, 1])
    axes = statistics.refined(result, 1000)
    np.testing.assert_allclose(axes["learning_rate"], np.geomspace(0.01, 1, 4), rtol=1e-5)
    assert axes["batch_size"] == [8, 16, 32]
    accuracy[:] = 0.5
    accuracy[3, 2] = 0.9  # at both edges: the grid goes on beyond them
    result = make_curves(flat(accuracy.ravel()), learning_rate=rates, batch_size=sizes, seed=[0, 1])
    axes = statistics.refined(result, 40)
    np.testing.assert_allclose(axes["learning_rate"], np.geomspace(0.1, 10, 4), rtol=1e-5)
    assert axes["batch_size"] == [16, 32, 40]
    accuracy[0, 0] = 0.95
    result = make_curves(flat(accuracy.ravel()), learning_rate=[0, 0.2, 0.4, 0.6], batch_size=sizes, seed=[0, 1])
    assert statistics.refined(result, 1000)["learning_rate"][0] == 0.0


def test_widening_goes_beyond_the_edges_that_the_best_lies_on():
    def grid(rates, sizes, *best):
        accuracy = np.full((len(rates), len(sizes), 2), 0.5)
        accuracy[best] = 0.9
        return make_curves(flat(accuracy.ravel()), learning_rate=rates, batch_size=sizes, seed=[0, 1])

    axes = statistics.widened(grid([0.001, 0.01, 0.1, 1.0], [8, 16, 32], 3, 0), 1000)
    assert axes == {"learning_rate": [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], "batch_size": [4, 8, 16, 32]}
    assert statistics.widened(grid([0.001, 0.01, 0.1], [8, 16, 32], 1, 1), 1000)["batch_size"] == [8, 16, 32]
    # There is nothing below 0, nor above the number of images.
    axes = statistics.widened(grid([0.0, 0.2, 0.4], [8, 16, 32], 0, 2), 32)
    assert axes == {"learning_rate": [0.0, 0.2, 0.4], "batch_size": [8, 16, 32]}


def test_a_result_without_curves_says_what_to_do():
    result = make_curves(flat([0.9]), learning_rate=0.1, batch_size=8, seed=0)
    without = result.drop_vars(["recorded_validation_accuracy", "recorded_validation_loss"])
    for read in (lambda r: curves.at_budget(r, "steps", 1), lambda r: targets.steps_to_target(r, 0.5)):
        with pytest.raises(ValueError, match="sweep with num_evaluations above 1"):
            read(without)

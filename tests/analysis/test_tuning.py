"""The best of so many settings, against their number."""

import itertools

import numpy as np
import pytest
from results_for_tests import make_regression
from test_any_axes import words

import jaxmnist as jm
from jaxmnist.analysis import results, tuning

ATTRIBUTES = dict(
    dataset="tiny", num_validation=100, num_test=200, budget="equal steps: 100", model="CNN()", optimizer="sgd"
)  # fmt: skip


def tried(accuracy, test=None, diverged=(), curves=None, **attributes):
    """Returns a result of settings with 2 seeds, whose mean accuracies are given; of some, one run diverged."""
    count = len(accuracy)
    runs = dict(learning_rate=np.repeat(np.arange(1.0, count + 1), 2), batch_size=[8] * 2 * count, seed=[0, 1] * count)
    values = {"validation_accuracy": np.repeat(accuracy, 2) + np.tile([0.001, -0.001], count)}
    values["validation_loss"] = 1 - values["validation_accuracy"]
    values["test_accuracy"] = np.repeat(accuracy if test is None else test, 2)
    values["diverged_step"] = np.full(2 * count, np.nan)
    values["diverged_step"][[2 * place for place in diverged]] = 3
    if curves is not None:
        values["recorded_validation_accuracy"] = np.asarray(curves, float)
    columns = {name: np.array(column) for name, column in runs.items()}
    return results.label(columns, values, [0, 10, 20, 30], ATTRIBUTES | attributes)


def test_the_mean_is_that_of_the_best_of_every_choice():
    accuracy, test = np.array([0.3, 0.9, 0.5, 0.7, 0.1]), np.array([0.35, 0.6, 0.55, 0.65, 0.2])
    for split, shown in (("validation", accuracy), ("test", test)):
        table = jm.tuning_table(tried(accuracy, test), split)
        assert table["num_tried"].tolist() == [1, 2, 3, 4, 5] and set(table["statistic"]) == {"mean"}
        assert (table["share_found"] == 1).all()
        for count, found in zip(table["num_tried"], table[f"{split}_accuracy"], strict=True):
            choices = itertools.combinations(range(5), count)
            best = [shown[max(choice, key=lambda place: accuracy[place])] for choice in choices]
            assert found == pytest.approx(np.mean(best))
    # Only one of five settings is at most a quarter of them.
    assert table["test_accuracy_low"].notna().tolist() == [True] + [False] * 4


def test_the_expected_best_of_uniform_draws_is_found_without_bias():
    generator, numbers = np.random.default_rng(0), np.arange(1, 41)
    chances = tuning.best_chances(40, numbers)
    draws = np.sort(generator.uniform(size=(2000, 40)))[:, ::-1]
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose((draws @ chances.T).mean(axis=0), numbers / (numbers + 1), atol=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(("is_median", "most"), [(False, 10), (True, 5)])
def test_the_intervals_of_a_part_of_the_settings_hold_the_best_of_uniform_draws(is_median, most):
    generator, held = np.random.default_rng(0), []
    for _ in range(400):
        draws = np.sort(generator.uniform(size=40))[::-1]
        at = tuning._best_of_each_number(draws, is_median).set_index("num_tried")
        truth = 0.5 ** (1 / at.index) if is_median else at.index / (at.index + 1)
        held.append((at["best_low"] <= truth) & (truth <= at["best_high"]))
        assert at["best_low"].notna().sum() == at["best_high"].notna().sum() == most
    assert np.mean(held, axis=0)[:most].min() >= 0.86


def test_a_choice_without_a_best_is_worse_than_any():
    accuracy = np.array([0.9, 0.8, 0.7, 0.6, 0.99])
    table = jm.tuning_table(tried(accuracy, diverged=[4])).set_index("num_tried")
    assert set(table["statistic"]) == {"median"}
    np.testing.assert_allclose(table["share_found"], [0.8, 1, 1, 1, 1])
    for count, found in table["validation_accuracy"].items():
        known = np.where(accuracy == 0.99, -1, accuracy)
        best = sorted(max(choice) for choice in itertools.combinations(known, count))
        assert found == pytest.approx(best[(len(best) - 1) // 2])
    most = jm.tuning_table(tried(accuracy, diverged=[0, 1, 4])).set_index("num_tried")["validation_accuracy"]
    assert np.isnan(most[1]) and most[2] == pytest.approx(0.6) and most[3] == most[5] == pytest.approx(0.7)


def test_the_fewest_steps_are_of_settings_whose_seeds_all_reach_the_target():
    fast, slow, never = [0, 0.9, 0.9, 0.9], [0, 0.5, 0.5, 0.9], [0, 0.5, 0.5, 0.5]
    curves = [fast, slow, slow, slow, fast, never]
    result = tried([0.8, 0.9, 0.7], curves=curves)
    table = jm.tuning_table(result, target=0.85).set_index("num_tried")
    # Steps 20 and 30, and a setting that does not reach it with one seed.
    assert table["steps"].tolist() == [30, 20, 20] and table["statistic"].iloc[0] == "median"
    np.testing.assert_allclose(table["share_found"], [2 / 3, 1, 1])
    reached = jm.tuning_table(tried([0.8, 0.9], curves=curves[:4]), target=0.85)
    assert reached["steps"].tolist() == [25, 20] and set(reached["statistic"]) == {"mean"}


def test_a_loss_is_best_where_it_is_least():
    loss = make_regression()["validation_loss"].mean("seed").values
    table = jm.tuning_table(make_regression())
    assert table["validation_loss"].iloc[0] == pytest.approx(loss.mean())
    assert table["validation_loss"].iloc[-1] == pytest.approx(loss.min())


def test_several_results_are_compared_by_one_statistic():
    several = {"sgd": tried([0.5, 0.6, 0.7], diverged=[0]), "adam": tried([0.4, 0.9, 0.8])}
    table = jm.tuning_table(several).set_index(["result", "num_tried"])
    assert set(table["statistic"]) == {"median"}
    assert table.loc[("adam", 1), "validation_accuracy"] == pytest.approx(0.8)
    for change, what in ((dict(dataset="x"), "data sets"), (dict(budget="equal epochs: 3"), "budgets")):
        with pytest.raises(ValueError, match=f"result has the {what} .*; the same is needed for a comparison"):
            jm.tuning_table(several | {"adam": tried([0.4], **change)})
    pruned = several["sgd"].assign(pruned_step=several["sgd"]["diverged_step"])
    with pytest.raises(ValueError, match="result holds runs that were pruned"):
        jm.tuning_table(pruned)
    with pytest.raises(ValueError, match="split is 'test', but steps to a target are counted on validation alone"):
        jm.tuning_table(tried([0.5], curves=[[0, 1, 1, 1]] * 2), "test", 0.5)


def test_the_figure_draws_the_table_and_says_what_was_resampled():
    several = {"sgd": tried(np.linspace(0.5, 0.9, 12), diverged=[0]), "adam": tried(np.linspace(0.6, 0.8, 8))}
    figure = jm.tuning_curve(several)
    (axes,) = figure.axes
    table = jm.tuning_table(several)
    for line, name in zip(axes.lines, several, strict=True):
        rows = table[table["result"] == name]
        np.testing.assert_array_equal(line.get_xdata(), rows["num_tried"])
        np.testing.assert_allclose(line.get_ydata(), 100 * rows["validation_accuracy"])
    (lowest, highest) = axes.collections[0].get_datalim(axes.transData).get_points()[:, 1]
    first = table[table["result"] == "sgd"]
    np.testing.assert_allclose(lowest, 100 * first["validation_accuracy_low"].min())
    np.testing.assert_allclose(highest, 100 * first["validation_accuracy_high"].max())
    assert "sgd (12 settings, 1 of them never the best)" in [text.get_text() for text in axes.get_legend().texts]
    assert axes.get_ylabel() == "validation accuracy (%): median of the best"
    assert "bootstrap interval over settings, given up to a seventh" in words(figure) and "mean over 2 seeds" in words(
        figure
    )
    curves = np.outer(np.repeat([0.5, 0.7, 0.9], 2), [0, 0.9, 1, 1])
    reached = jm.tuning_curve(tried([0.5, 0.7, 0.9], curves=curves), target=0.6)
    assert reached.axes[0].get_title(loc="left") == "tiny, validation split, equal steps: 100, steps to 60 % accuracy"
    assert "never the best: a seed did not reach the target" in words(reached)
    with pytest.raises(ValueError, match="result holds 9 results; at most 8 lines"):
        jm.tuning_curve({str(place): several["sgd"] for place in range(9)})

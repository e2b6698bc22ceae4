import math

import numpy as np
import pytest
from results_for_tests import make_result
from scipy import stats
from test_results import make_result as result_of

import jaxmnist as jm
from jaxmnist.analysis.ties import compared

GOOD = 0.9 + 0.0005 * np.array([0, 1, -1, 2, -2, 0])


def standings(by_rate, margin=None, **more):
    """Returns the standing of each learning rate, given its accuracies by seed."""
    accuracy = np.asarray(list(by_rate.values()), float)
    axes = dict(learning_rate=list(by_rate), batch_size=8, seed=range(accuracy.shape[1]))
    table = jm.ties(result_of(accuracy.ravel(), accuracy.ravel(), **more, **axes), margin=margin)
    return table.set_index("learning_rate")["standing"].to_dict()


def test_each_kind_of_standing_is_found_where_it_was_planted():
    wild = [0.91, 0.89, 0.76, 0.8, 0.85, 0.79]
    close = GOOD - 0.002 + 0.0005 * np.array([1, -1, 1, -1, 0, 0])
    found = standings({0.1: GOOD, 0.2: close, 0.3: GOOD - 0.05, 0.4: wild, 0.5: GOOD})
    assert found == {0.1: "best", 0.2: "as good", 0.3: "worse", 0.4: "unclear", 0.5: "as good"}
    # What is better than the best with most seeds may itself be the best, and then by more than the margin.
    wilder = [0.93, 0.6, 0.92, 0.91, 0.72, 0.925]
    assert standings({0.1: GOOD, 0.4: wilder, 0.5: GOOD}) == {0.1: "best", 0.4: "unclear", 0.5: "unclear"}
    # Of a margin that is smaller than its distance, the second is worse: all of its seeds are.
    assert standings({0.1: GOOD, 0.2: close}, 0.001) == {0.1: "best", 0.2: "worse"}
    assert standings({0.1: GOOD, 0.3: GOOD - 0.05}, 0.06) == {0.1: "best", 0.3: "as good"}


def test_seeds_that_are_good_or_bad_for_all_hide_nothing():
    by_seed = np.random.default_rng(0).normal(0, 0.06, 8)
    noise = 0.001 * np.random.default_rng(1).normal(size=(2, 8))
    accuracy = 0.9 + by_seed + noise - [[0.0], [0.02]]
    assert standings(dict(zip((0.1, 0.2), accuracy, strict=True))) == {0.1: "best", 0.2: "worse"}
    assert stats.ttest_ind(*accuracy).pvalue > 0.05


def test_a_lead_that_is_luck_makes_no_other_setting_worse():
    """The first row is chosen for its mean: against it alone, others would often seem worse."""
    generator = np.random.default_rng(0)
    names_the_best, naive = 0, 0
    for _ in range(300):
        values = generator.normal(0, 1, (10, 6))
        values = values[np.argsort(-values.mean(axis=1))]
        p_worse, *_ = compared(values, 0.5)
        naive += stats.ttest_rel(values[0], values[-1], alternative="greater").pvalue <= 0.05
        # Any of the ten equals is the best, as much as the others.
        names_the_best += p_worse[generator.integers(10)] <= 0.05
    assert names_the_best <= 0.07 * 300 and naive > 0.3 * 300


@pytest.mark.parametrize("behind", [0.5, 0.0])
def test_what_lies_just_beyond_the_margin_is_rarely_called_as_good(behind):
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(300):
        values = generator.normal(0, 0.3, (10, 6))
        values[0] -= behind
        order = np.argsort(-values.mean(axis=1))
        _, p_as_good, *_ = compared(values[order], 0.5)
        called += p_as_good[np.flatnonzero(order == 0)[0]] <= 0.05
    assert called <= 0.07 * 300 if behind else called > 0.25 * 300


def test_p_values_are_those_of_paired_tests_with_each_of_the_others():
    values = np.random.default_rng(0).normal(0.9, 0.01, (5, 6))
    values[2, 1] = np.nan
    values = values[np.argsort(-np.nanmean(values, axis=1))]
    p_worse, p_as_good, *_ = compared(values, 0.01)
    for row in range(5):
        worse, as_good = [], []
        for other in {*range(5)} - {row}:
            both = np.isfinite(values[row] + values[other])
            difference = values[row, both] - values[other, both]
            worse.append(stats.ttest_1samp(difference, 0, alternative="less").pvalue)
            as_good.append(stats.ttest_1samp(difference, -0.01, alternative="greater").pvalue)
        assert p_worse[row] == pytest.approx(min(1, 4 * min(worse))) and p_as_good[row] == pytest.approx(max(as_good))


def test_what_diverged_was_pruned_or_has_too_few_seeds_says_so():
    diverged = [np.nan] * 4 + [3] + [np.nan] * 4
    result = result_of([0.9] * 9, [0.9] * 9, diverged, learning_rate=[0.1, 0.2, 0.3], batch_size=8, seed=range(3))
    by_rate = jm.ties(result).set_index("learning_rate")["standing"].to_dict()
    assert by_rate == {0.1: "best", 0.3: "as good", 0.2: "diverged"}
    result["pruned_step"] = result["validation_loss"].where(result["learning_rate"] == 0.3) * 0 + 5
    assert jm.ties(result)["standing"].tolist() == ["best", "pruned", "diverged"]
    alone = jm.ties(result.sel(seed=0).drop_vars("pruned_step"))
    assert alone["standing"].tolist() == ["best", "unclear", "unclear"] and alone["p_value"].isna().all()
    everywhere = result_of([0.9] * 4, [0.9] * 4, [1] * 4, learning_rate=[0.1, 0.2], batch_size=8, seed=[0, 1])
    assert jm.ties(everywhere)["standing"].tolist() == ["diverged", "diverged"]


def test_settings_without_seeds_in_common_are_not_compared():
    runs = jm.union(jm.grid(learning_rate=0.1, batch_size=8, seed=range(4)), dict(
        learning_rate=[0.2] * 4, batch_size=[8] * 4, seed=[4, 5, 6, 3]), jm.grid(
        learning_rate=0.3, batch_size=8, seed=range(4)))  # fmt: skip
    accuracy = np.array([0.9, 0.91, 0.9, 0.91, 0.7, 0.7, 0.7, 0.7, 0.5, 0.51, 0.5, 0.51])
    values = dict(
        validation_accuracy=accuracy, validation_loss=1 - accuracy, test_accuracy=accuracy,
        diverged_step=np.full(12, np.nan),
    )  # fmt: skip
    result = jm.analysis.results.label(runs, values, [0], {})
    assert jm.ties(result)["standing"].tolist() == ["best", "unclear", "worse"]


def test_the_margin_of_a_loss_is_a_share_of_the_best():
    result = result_of([0.5] * 12, [0.5] * 12, learning_rate=[0.1, 0.2, 0.3], batch_size=8, seed=range(4))
    factors = np.array([1, 1.005, 1.1])[:, None, None] * (1 + 1e-4 * np.arange(4) * [[[1]], [[-1]], [[1]]])
    for unit in (1.0, 1e-14):
        loss = result.assign(validation_loss=(result["validation_loss"].dims, unit * factors))
        assert jm.ties(loss, by="loss")["standing"].tolist() == ["best", "as good", "worse"]
        assert jm.ties(loss, by="loss", largest=True)["standing"].tolist() == ["best", "worse", "worse"]
        assert jm.ties(loss, by="loss", margin=0.2 * unit)["standing"].tolist() == ["best", "as good", "as good"]


def test_the_report_counts_the_settings_that_are_as_good_and_those_that_cannot_be_told():
    text = jm.report(make_result())
    counts = jm.ties(make_result())["standing"].value_counts()
    assert counts["unclear"] == 8 and math.isnan(counts.get("as good", math.nan))
    assert "cannot be told with these seeds: 8 other settings" in text and "as good as the best, within" not in text


def test_the_lead_over_the_best_of_the_others_has_the_interval_that_it_says():
    generator = np.random.default_rng(0)
    truth = np.array([0.0] * 8 + [-0.2, -3.0])
    lead = np.array([truth[place] - np.delete(truth, place).max() for place in range(10)])
    held = np.zeros(10)
    for _ in range(400):
        values = truth[:, None] + generator.normal(0, 0.5, (10, 6))
        order = np.argsort(-values.mean(axis=1))
        found = compared(values[order], 0.1)
        assert found.lead[0] == pytest.approx(-found.lead[1])
        held[order] += (found.lead_low <= lead[order]) & (lead[order] <= found.lead_high)
    assert (held >= 0.93 * 400).all() and held[-2:].min() < 0.99 * 400
    # Of two settings, it is the interval of a paired t test.
    first, second = values[:2]
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = compared(values[:2], 0.1)
    np.testing.assert_allclose([found.lead_low[0], found.lead_high[0]], expected)
    assert found.lead[0] == pytest.approx((first - second).mean())


def test_leads_stand_beside_the_settings_they_are_of():
    wild = [0.91, 0.89, 0.76, 0.8, 0.85, 0.79]
    accuracy = np.stack([wild, GOOD, GOOD - 0.05])
    table = jm.ties(result_of(*[accuracy.ravel()] * 2, learning_rate=[0.1, 0.2, 0.3], batch_size=8, seed=range(6)))
    assert table["learning_rate"].tolist() == [0.2, 0.3, 0.1]
    ahead = GOOD.mean() - (GOOD - 0.05).mean()
    np.testing.assert_allclose(table["lead"], [ahead, -ahead, np.mean(wild) - GOOD.mean()])
    np.testing.assert_allclose(table[["lead_low", "lead_high"]].iloc[1], [-ahead, -ahead])
    loss = jm.ties(
        result_of(*[1 - accuracy.ravel()] * 2, learning_rate=[1, 2, 3], batch_size=8, seed=range(6)), by="loss"
    )
    assert (loss["lead"] < 0).sum() == 2 and loss["lead"].iloc[0] > 0

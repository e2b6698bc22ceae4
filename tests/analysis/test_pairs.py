"""How many seeds would tell two settings apart."""

import math

import numpy as np
import pytest
from scipy import stats
from test_results import make_result

import jaxmnist as jm
from jaxmnist.analysis.pairs import effect_size, power_of, seeds_to_tell

A, B, C = dict(learning_rate=0.1), dict(learning_rate=0.2), dict(learning_rate=0.3)
FIRST, SECOND = np.array([0.9, 0.91, 0.93, 0.92]), np.array([0.88, 0.9, 0.9, 0.915])


def three_rates(third=SECOND - 0.1):
    accuracy = np.concatenate([FIRST, SECOND, third])
    return make_result(accuracy, accuracy, learning_rate=[0.1, 0.2, 0.3], batch_size=8, seed=range(4))


# Cohen 1988 and G*Power 3.1 (matched pairs, two-sided): effect, power, level, number of pairs.
@pytest.mark.parametrize(
    ("effect", "power", "significance", "number"),
    [(0.2, 0.8, 0.05, 199), (0.5, 0.8, 0.05, 34), (0.8, 0.8, 0.05, 15), (0.5, 0.95, 0.05, 54), (0.5, 0.8, 0.01, 51)],
)
def test_numbers_of_seeds_are_those_of_power_tables(effect, power, significance, number):
    assert seeds_to_tell(effect, power, significance) == seeds_to_tell(-effect, power, significance) == number


def test_so_many_tests_are_significant_as_the_power_says():
    generator = np.random.default_rng(0)
    differences = generator.normal(0.9, 1, (20_000, 8))
    share = (stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05).mean()
    assert power_of(0.9, 8) == pytest.approx(share, abs=0.01)


def test_more_seeds_and_larger_effects_have_more_power():
    effects = [0.01, 0.1, 0.5, 1, 2, 5, 9, 9.05, 9.15, 12, 100, 1e4, 1e8]
    for number in (2, 3, 4, 10, 100):
        powers = [power_of(effect, number) for effect in effects]
        assert (np.diff(powers) >= -1e-9).all() and powers[0] >= 0.05 and powers[-1] == pytest.approx(1)
    needed = [seeds_to_tell(effect) for effect in effects]
    assert (np.diff(needed) <= 0).all() and needed[-1] == 2


def test_very_small_effects_are_found_by_very_many_seeds():
    assert seeds_to_tell(0.0284) == pytest.approx(seeds_to_tell(0.0280) * (0.0280 / 0.0284) ** 2, rel=1e-3)
    assert seeds_to_tell(1e-6) == pytest.approx(7.849e12, rel=1e-3)
    assert math.isinf(seeds_to_tell(0.0)) and seeds_to_tell(math.inf) == 2 and math.isnan(seeds_to_tell(math.nan))
    assert seeds_to_tell(0.5, power=1e-300) == 2


def test_differences_that_are_the_same_for_all_seeds_have_no_spread():
    assert effect_size(np.stack([FIRST, FIRST - 0.1])) == math.inf
    assert effect_size(np.stack([FIRST - 0.1, FIRST])) == -math.inf
    assert effect_size(np.stack([FIRST, FIRST * (1 + 1e-9)])) == 0
    assert math.isnan(effect_size(np.ones((2, 1))))


def test_the_seeds_needed_are_of_the_paired_differences_on_validation():
    effect = (FIRST - SECOND).mean() / (FIRST - SECOND).std(ddof=1)
    expected = next(n for n in range(2, 99) if power_of(effect, n) >= 0.8)
    assert jm.seeds_needed(three_rates(), A, B) == jm.seeds_needed(three_rates(), B, A) == expected == 6
    assert jm.seeds_needed(three_rates(), A, B, power=0.99) > expected
    assert jm.seeds_needed(three_rates(), A, B, significance=0.001) > expected
    assert math.isinf(jm.seeds_needed(three_rates(SECOND), B, C))


def test_a_comparison_says_the_lead_of_each_and_the_seeds_that_would_tell_it():
    accuracy = np.concatenate([FIRST, SECOND, SECOND - 0.1])
    result = make_result(accuracy, accuracy, learning_rate=0.1, momentum=[0.0, 0.5, 0.9], batch_size=8, seed=range(4))
    table = jm.comparison_table(result, "momentum").set_index("momentum")
    ahead = (FIRST - SECOND).mean()
    np.testing.assert_allclose(table["lead"], [ahead, -ahead, (SECOND - 0.1 - FIRST).mean()])
    assert table["seeds_needed"].tolist() == [6, 6, 3]
    ranked = jm.ties(result).set_index("momentum").loc[table.index]
    np.testing.assert_allclose(table[["lead_low", "lead_high"]], ranked[["lead_low", "lead_high"]])
    text = jm.comparison(result, "momentum")
    low, high = 100 * table.loc[0.0, ["lead_low", "lead_high"]]
    assert f"{100 * ahead:.2f} [{low:.2f}, {high:.2f}]" in text.splitlines()[4] and text.splitlines()[4].endswith(" 6")
    one_seed = jm.comparison(result.sel(seed=[0]), "momentum")
    assert "nan" not in one_seed and jm.comparison_table(result.sel(seed=[0]), "momentum")["seeds_needed"].isna().all()

"""The winner's curse, of planted settings."""

import numpy as np
import pytest
from results_for_tests import make_regression
from test_results import make_result

import jaxmnist as jm
from jaxmnist.analysis.optimism import chosen_again


def of_settings(validation, test, diverged=None, seeds=None):
    """Returns a result of settings `[S]` with seeds `[N]`, given their accuracies `[S, N]`."""
    count, num_seeds = np.shape(validation)
    axes = dict(learning_rate=np.arange(1.0, count + 1).tolist(), batch_size=8, seed=range(num_seeds))
    return make_result(np.ravel(validation), np.ravel(test), diverged, **axes)


def planted(generator, means, num_seeds):
    """Returns settings that are as good on test as on validation, with noise of deviation 0.01, `[2, S, N]`."""
    return np.asarray(means)[:, None] + generator.normal(0, 0.01, (2, len(means), num_seeds))


def test_one_setting_gains_nothing_by_choice():
    best, gap, luck, share_chosen = chosen_again(planted(np.random.default_rng(0), [0.9], 5))
    assert best == 0 and share_chosen == 1 and luck == pytest.approx(0, abs=3e-4)
    assert gap.low < 0 < gap.high


def test_a_setting_that_is_far_the_best_is_chosen_again_with_its_own_gap():
    spread = 0.001 * np.array([-1, 0, 1, 0])
    result = of_settings([0.7 + spread, 0.9 + spread], [0.7 - 0.02 * spread, 0.88 - spread])
    found = jm.optimism(result)
    assert found.setting == jm.best(result).setting and found.share_chosen == 1
    assert found.gap.mean == pytest.approx(0.02) and found.luck == pytest.approx(0, abs=1e-4)
    # Then it is a t interval, to the noise of the bootstrap.
    width = 3.1824 * (2 * spread).std(ddof=1) / 2
    assert (found.gap.high - found.gap.low) / 2 == pytest.approx(width, rel=0.05)


def test_the_choice_among_equals_is_optimistic_by_the_expected_maximum():
    generator = np.random.default_rng(0)
    # The expected maximum of 20 means of 4 seeds: 1.867 standard errors (Harter 1961, Biometrika 48:151).
    truth = 1.867 * 0.01 / 2
    _, gaps, lucks, _ = zip(*[chosen_again(planted(generator, np.full(20, 0.9), 4)) for _ in range(50)], strict=True)
    assert np.mean([gap.mean for gap in gaps]) == pytest.approx(truth, rel=0.2)
    assert np.mean([gap.low <= truth <= gap.high for gap in gaps]) >= 0.95
    # Equals do not seem equal: a bootstrap finds a part of the luck.
    assert 0.5 * truth < np.mean(lucks) < truth


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [3, 10])
def test_intervals_hold_the_gap_of_the_whole_procedure(num_seeds):
    generator, means = np.random.default_rng(0), np.linspace(0.88, 0.9, 6)
    found = [chosen_again(planted(generator, means, num_seeds))[1] for _ in range(1500)]
    truth = np.mean([each.mean for each in found])
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.94


def test_what_diverged_and_seeds_that_some_lack_are_left_out():
    generator = np.random.default_rng(0)
    validation = np.concatenate([generator.normal(0.9, 0.01, (2, 4)), np.full((1, 4), 0.99)])
    result = of_settings(validation, validation - 0.01, np.where(np.arange(12) == 8, 3.0, np.nan))
    found = jm.optimism(result)
    assert found.setting == jm.best(result).setting and "2 settings" in found.gap.kind
    assert found.gap.mean == pytest.approx(0.01)
    flat = result.stack(run=["learning_rate", "batch_size", "seed"]).reset_index("run")
    assert "over 3 seeds" in jm.optimism(flat.isel(run=slice(1, None))).gap.kind
    with pytest.raises(ValueError, match="fewer than 2 seeds that all settings have"):
        jm.optimism(result.sel(seed=[1]))
    with pytest.raises(ValueError, match="every setting has runs that diverged"):
        jm.optimism(result.sel(learning_rate=[3.0]))


def test_a_loss_that_is_larger_on_test_is_optimistic():
    found = jm.optimism(make_regression())
    chosen = jm.best(make_regression())
    assert found.setting == chosen.setting
    assert found.gap.mean == pytest.approx(chosen.test.mean - chosen.validation.mean) and found.gap.mean > 0

"""What the spread of a metric is made of, of planted sources."""

import numpy as np
import pytest
from results_for_tests import make_result as make_grid

import jaxmnist as jm
from jaxmnist.analysis import results
from jaxmnist.analysis.variance import binomial_variance, crossed_variances

SOURCES = ["init_seed", "order_seed", "interaction", "examples"]


def crossed(values, diverged=None):
    """Returns a result of settings, `[S, I, J]` test accuracies by learning rate, `init_seed` and `order_seed`."""
    values = np.asarray(values, float)
    num_settings, rows, columns = values.shape
    axes = dict(learning_rate=0.1 * np.arange(1, num_settings + 1), init_seed=range(rows), order_seed=range(columns))
    runs = jm.grid(**axes, batch_size=8, seed=[0])
    found = {f"{split}_accuracy": values.ravel() for split in ("validation", "test")}
    found |= {f"{split}_loss": 1 - values.ravel() for split in ("validation", "test")}
    found["diverged_step"] = np.full(values.size, np.nan) if diverged is None else np.ravel(diverged)
    return results.label(runs, found, [0], dict(num_validation=100, num_test=200))


def test_each_source_is_found_where_it_was_planted():
    by_row, by_column = np.array([-0.02, 0.0, 0.02]), np.array([-0.01, 0.01])
    both = 0.004 * np.array([[1, -1], [-2, 2], [1, -1]])
    rows, columns, left = by_row[:, None] + np.zeros((3, 2)), by_column + np.zeros((3, 2)), both
    table = jm.variance_table(crossed([0.9 + rows + columns + left]))
    assert table["source"].tolist() == SOURCES and "learning_rate" not in table
    residual = (left**2).sum() / 2
    expected = [by_row.var(ddof=1) - residual / 2, by_column.var(ddof=1) - residual / 3, residual, 0.9 * 0.1 / 200]
    np.testing.assert_allclose(table["variance"], expected)
    np.testing.assert_allclose(table["std"], np.sqrt(expected))
    assert (table["variance_low"] <= table["variance"]).all() and (table["variance"] <= table["variance_high"]).all()
    # Without the other sources, all is due to one.
    alone = jm.variance_table(crossed([0.9 + columns])).set_index("source")
    assert alone.loc[["init_seed", "interaction"], "variance"].to_numpy() == pytest.approx(0, abs=1e-20)
    assert alone.loc["order_seed", "variance"] == pytest.approx(by_column.var(ddof=1))


def test_intervals_hold_the_variances_of_which_runs_were_drawn():
    generator, truth = np.random.default_rng(0), np.array([4.0, 1.0, 0.25])
    held, found = np.zeros(3), np.zeros(3)
    for _ in range(1000):
        rows, columns = 2 * generator.normal(size=(6, 1)), generator.normal(size=(1, 8))
        each = np.array(list(crossed_variances(rows + columns + 0.5 * generator.normal(size=(6, 8))).values()))
        found += each[:, 0] / 1000
        held += (each[:, 1] <= truth) & (truth <= each[:, 2])
    np.testing.assert_allclose(found, truth, rtol=0.06)
    assert (held >= 0.93 * 1000).all() and (held <= 0.97 * 1000).all()


def test_the_variance_of_an_accuracy_on_so_many_examples_is_binomial():
    generator = np.random.default_rng(0)
    observed = generator.binomial(500, 0.9, size=20_000) / 500
    assert binomial_variance(0.9, 500)[0] == pytest.approx(observed.var(), rel=0.03)
    assert binomial_variance(0.5, 10)[2] == 0.25 / 10 and binomial_variance(1.0, 10)[0] == 0


def test_settings_have_rows_of_their_own_and_those_that_diverged_have_none():
    values = np.random.default_rng(0).uniform(0.5, 0.9, (2, 3, 2))
    diverged = np.where(np.arange(12) == 7, 3.0, np.nan)
    table = jm.variance_table(crossed(values, diverged))
    assert table["learning_rate"].tolist() == [0.1] * 4 + [0.2] * 4 and table["source"].tolist() == 2 * SOURCES
    assert table["variance"].isna().tolist() == [False] * 4 + [True] * 4
    loss = jm.variance_table(crossed(values), "validation", "loss")
    np.testing.assert_allclose(loss["variance"][:3], table["variance"][:3])
    assert loss["variance"].isna().tolist() == [False, False, False, True] * 2


def test_only_crossed_seeds_can_be_taken_apart():
    result = crossed(np.full((2, 3, 2), 0.9))
    with pytest.raises(ValueError, match="result has fewer than 2 values of init_seed"):
        jm.variance_table(result.sel(init_seed=[1]))
    with pytest.raises(ValueError, match="result has fewer than 2 values of init_seed"):
        jm.variance_table(make_grid())
    flat = result.stack(run=["learning_rate", "init_seed", "order_seed", "batch_size", "seed"]).reset_index("run")
    with pytest.raises(ValueError, match="result lacks runs of a setting; every init_seed with every order_seed"):
        jm.variance_table(flat.isel(run=slice(1, None)))
    assert jm.variance_table(flat).equals(jm.variance_table(result))

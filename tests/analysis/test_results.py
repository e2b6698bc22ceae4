from pathlib import Path

import numpy as np
import optax
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import jaxmnist as jm
from jaxmnist.analysis import intervals, results


def make_result(validation, test, diverged=None, **axes):
    """Returns a result with given accuracies in the order of the grid."""
    runs = jm.grid(**axes)
    validation = np.asarray(validation, float)
    diverged = np.full(len(validation), np.nan) if diverged is None else np.asarray(diverged, float)
    values = dict(
        validation_accuracy=validation, validation_loss=1 - validation, test_accuracy=np.asarray(test, float),
        test_loss=1 - np.asarray(test, float), diverged_step=diverged,
    )  # fmt: skip
    attrs = dict(dataset="tiny", num_validation=100, num_test=200, budget="equal steps: 3", model="M()", optimizer="o")
    return results.label(runs, values, [0, 3], attrs)


@pytest.fixture(scope="module")
def swept(tiny) -> xr.Dataset:
    runs = jm.grid(learning_rate=[1.0, 0.1, 1e6], batch_size=[5, 3], seed=[1, 0], momentum=0.5)
    return jm.sweep(
        jm.SoftmaxRegression(4), optax.sgd, runs, tiny, num_steps=6, num_evaluations=3, record=("test",), progress=False
    )


def test_save_and_load_give_the_same(swept, tmp_path):
    jm.save(swept, tmp_path)
    loaded = jm.load_results(tmp_path)
    xr.testing.assert_identical(loaded, swept)
    with xr.open_dataset(tmp_path / "results.nc") as plain:
        assert plain.attrs["num_steps"] == 6 and "jax==" in plain.attrs["versions"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.nc"]


def test_csv_has_a_row_per_run_in_the_order_typed(swept, tmp_path):
    jm.save(swept, tmp_path)
    header, *rows = [line.split(",") for line in (tmp_path / "results.csv").read_text().splitlines()]
    assert header == [
        "learning_rate", "batch_size", "momentum", "seed", "validation_accuracy", "validation_loss",
        "test_accuracy", "test_loss", "diverged_step",
    ]  # fmt: skip
    typed = [[float(row[i]) for i in (0, 1, 3)] for row in rows]
    assert typed == [[rate, size, seed] for rate in (1.0, 0.1, 1e6) for size in (5, 3) for seed in (1, 0)]
    for row in rows:
        place = dict(learning_rate=float(row[0]), batch_size=int(row[1]), seed=int(row[3]), momentum=0.5)
        assert float(row[4]) == pytest.approx(float(swept["validation_accuracy"].sel(place)), rel=1e-6)
        assert (row[8] == "") == (row[0] != "1000000.0") and not row[8].endswith(".0")


def test_a_selection_keeps_what_it_holds(swept):
    one = swept.sel(learning_rate=0.1, batch_size=[5])
    frame = results.table(one)
    assert frame[["learning_rate", "batch_size", "seed"]].values.tolist() == [[0.1, 5, 1], [0.1, 5, 0]]
    assert jm.best(one).setting == {"learning_rate": 0.1, "batch_size": 5, "momentum": 0.5}


def test_failed_save_leaves_what_was_there(swept, tmp_path, monkeypatch):
    jm.save(swept, tmp_path)
    before = (tmp_path / "results.nc").read_bytes()

    def fail(self, content):
        self.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        jm.save(swept, tmp_path)
    assert (tmp_path / "results.nc").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [None, b"", b"not a file of results"])
def test_load_results_refuses(tmp_path, content):
    if content is not None:
        (tmp_path / "results.nc").write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.nc"):
        jm.load_results(tmp_path)


def test_best_is_chosen_on_validation_though_test_disagrees():
    result = make_result([0.8, 0.82, 0.7, 0.7], [0.1, 0.2, 0.9, 0.9], learning_rate=[0.1, 0.5], seed=[0, 1])
    best = jm.best(result)
    assert best.setting == {"learning_rate": 0.1} and best.edges == ["learning_rate"]
    assert best.validation.mean == pytest.approx(0.81) and best.test.mean == pytest.approx(0.15)


def test_best_inside_the_grid_has_no_edge_and_its_own_types():
    axes = dict(learning_rate=[1, 0.1, 0.5], batch_size=[8], seed=[0])
    best = jm.best(make_result([0.7, 0.6, 0.8], [0.7, 0.6, 0.8], **axes))
    assert best.edges == [] and best.setting == {"learning_rate": 0.5, "batch_size": 8}
    assert isinstance(best.setting["batch_size"], int)


def test_booleans_are_values_and_no_mask():
    axes = dict(nesterov=[True, False], learning_rate=[0.1, 1.0], seed=[0])
    accuracy = np.array([0.1, 0.2, 0.3, 0.4])
    result = make_result(accuracy, accuracy, **axes)
    assert results.table(result)["validation_accuracy"].tolist() == accuracy.tolist()
    assert results.by_run(result, jm.grid(**axes))["validation_accuracy"].tolist() == accuracy.tolist()
    curves = np.stack([accuracy[[2, 3, 0, 1]]] * 2, axis=1)  # of the sorted axes
    assert jm.curve_table(with_curves(result, curves))["test_accuracy_mean"].tolist() == np.repeat(accuracy, 2).tolist()
    assert jm.best(result).setting == {"nesterov": False, "learning_rate": 1.0}


def test_only_numbers_have_an_edge():
    axes = dict(optimizer=["adam", "sgd"], nesterov=[False, True], batch_size=[8, 16], learning_rate=[0.1, 1.0, 2.0])
    accuracy = np.full(24, 0.5)
    accuracy[1] = 0.9
    best = jm.best(make_result(accuracy, accuracy, seed=[0], **axes))
    assert best.setting == dict(optimizer="adam", nesterov=False, batch_size=8, learning_rate=1.0)
    assert best.edges == ["batch_size"]


def test_diverged_settings_are_never_best():
    axes = dict(learning_rate=[0.1, 0.5], seed=[0, 1])
    assert jm.best(make_result([0.5, 0.5, 0.9, 0.9], [0.5] * 4, [np.nan] * 3 + [7], **axes)).setting == {
        "learning_rate": 0.1
    }
    assert jm.best(make_result([np.nan, 0.5, 0.9, 0.9], [0.5] * 4, [1, 2, 3, 4], **axes)) is None


def test_settings_tabulates_over_seeds():
    frame = jm.settings(
        make_result([0.5, 0.7, 0.9, 0.8], [0] * 4, [np.nan] * 3 + [2], learning_rate=[1, 2], seed=[0, 1])
    )
    assert frame["learning_rate"].tolist() == [1, 2] and frame["num_diverged"].tolist() == [0, 1]
    assert frame["num_seeds"].tolist() == [2, 2]
    np.testing.assert_allclose(
        frame["validation_accuracy_std"], [np.std([0.5, 0.7], ddof=1), np.std([0.9, 0.8], ddof=1)]
    )


def test_interval_over_seeds_is_students():
    values = [0.90, 0.92, 0.91, 0.95]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert jm.interval(values, 1000)[:3] == pytest.approx((np.mean(values), low, high))


def test_seeds_of_equal_value_have_no_interval():
    mean, low, high, kind = jm.interval([0.9, 0.9], 1000)
    assert mean == 0.9 and np.isnan([low, high]).all() and kind == "2 seeds of equal value, no interval"


def test_a_bootstrap_interval_is_studentized():
    values = np.random.default_rng(0).beta(30, 2, 12)
    mean, low, high, kind = jm.interval(values, 1000, kind="bootstrap")
    assert mean == values.mean() and kind == "studentized bootstrap interval over 12 seeds"

    def t_values(sample):
        return (sample.mean() - mean) / sample.std(ddof=1)

    drawn = stats.bootstrap((values,), t_values, vectorized=False, n_resamples=2000, rng=1).bootstrap_distribution
    expected = mean - np.percentile(drawn, [97.5, 2.5]) * values.std(ddof=1)
    np.testing.assert_allclose([low, high], expected, atol=0.2 * (high - low))
    # A long tail downwards reaches further from the mean.
    assert mean - low > high - mean
    same = jm.interval([0.9] * 10, 1000, kind="bootstrap")
    assert same[:3] == pytest.approx((0.9, 0.9, 0.9))
    # Nine in ten resample to nothing else too often for a lower end.
    assert jm.interval([0.9] * 9 + [0.5], 1000, kind="bootstrap").low == 0
    with pytest.raises(ValueError, match="kind is 'bootstrap', but there are 9 accuracies; 10 or more are needed"):
        jm.interval(values[:9], 1000, kind="bootstrap")


@pytest.mark.slow
def test_a_bootstrap_interval_holds_the_mean_of_skewed_values_more_often_than_students():
    generator = np.random.default_rng(0)
    for count, least in ((10, 0.9), (30, 0.92)):
        drawn = generator.lognormal(size=(500, count))
        held = [
            np.mean([found.low <= np.exp(0.5) <= found.high for found in map(interval, drawn)])
            for interval in (intervals.t_interval, intervals.bootstrap_interval)
        ]
        assert held[0] < 0.9 and held[1] >= least
    normal = map(intervals.bootstrap_interval, generator.normal(size=(500, 10)))
    assert np.mean([found.low <= 0 <= found.high for found in normal]) >= 0.93


def test_interval_of_one_seed_is_wilsons():
    mean, low, high, kind = jm.interval([0.9], 100)
    z, n = stats.norm.ppf(0.975), 100
    centre, half = (0.9 + z**2 / (2 * n)), z * np.sqrt(0.9 * 0.1 / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx(((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)))
    assert mean == 0.9 and "100 images" in kind


def test_curve_table_has_a_row_per_recorded_step(swept):
    one = swept.sel(learning_rate=[0.1], batch_size=3)
    frame = jm.curve_table(one, "test")
    assert frame.columns[:3].tolist() == ["step", "num_seeds", "test_accuracy_mean"]
    assert frame["step"].tolist() == [0, 2, 4, 6] and (frame["num_seeds"] == 2).all()
    curves = one["recorded_test_accuracy"].squeeze().values
    np.testing.assert_allclose(frame["test_accuracy_mean"], curves.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(frame["test_accuracy_std"], curves.std(axis=0, ddof=1), rtol=1e-6)
    with pytest.raises(ValueError, match="recorded_train_loss"):
        jm.curve_table(swept, ("test", "train"), "loss")


def test_curve_table_has_every_setting_in_the_order_typed(swept):
    frame = jm.curve_table(swept, ["test"], ("accuracy", "loss"))
    assert frame.columns[:4].tolist() == ["learning_rate", "batch_size", "step", "num_seeds"]
    settings = frame[["learning_rate", "batch_size"]].drop_duplicates().values.tolist()
    assert settings == [[rate, size] for rate in (1.0, 0.1, 1e6) for size in (5, 3)]
    for (rate, size), rows in frame[frame["learning_rate"] < 2].groupby(["learning_rate", "batch_size"]):
        loss = swept["recorded_test_loss"].sel(learning_rate=rate, batch_size=size).mean("seed").squeeze()
        np.testing.assert_allclose(rows["test_loss_mean"], loss, rtol=1e-6)


def test_a_sample_has_the_curves_of_its_grid(swept):
    names = [name for name in results.hyperparameters(swept)]
    sample = swept.stack(run=names).reset_index("run").transpose("run", ...)
    by = ["learning_rate", "batch_size", "step"]
    tables = (jm.curve_table(result, "test").sort_values(by, ignore_index=True) for result in (swept, sample))
    pd.testing.assert_frame_equal(*tables)


def with_curves(result, curves, split="test", metric="accuracy"):
    """Returns the result with curves in the order of its sorted axes, recorded at the steps 0, 10, 20, ..."""
    curves = np.asarray(curves, float)
    shape = (*result["test_loss"].shape, curves.shape[-1])
    variable = ((*result["test_loss"].dims, "step"), curves.reshape(shape))
    return result.assign({f"recorded_{split}_{metric}": variable}).assign_coords(step=10 * np.arange(curves.shape[-1]))


def test_curve_statistics_of_a_known_case():
    result = make_result([0.5] * 4, [0.5] * 4, learning_rate=[0.1], seed=range(4))
    frame = jm.curve_table(with_curves(result, [[0.1, 0.90], [0.1, 0.92], [0.1, 0.91], [0.1, 0.95]]), "test")
    low, high = stats.t.interval(0.95, 3, 0.92, stats.sem([0.90, 0.92, 0.91, 0.95]))
    last = frame.iloc[-1]
    assert last["test_accuracy_mean"] == pytest.approx(0.92) and last["test_accuracy_min"] == 0.90
    assert last["test_accuracy_half_width"] == pytest.approx((high - low) / 2) and last["test_accuracy_max"] == 0.95
    assert frame["test_accuracy_half_width"][0] == 0 and (frame["num_diverged"] == 0).all()
    one = jm.curve_table(with_curves(result, np.ones((4, 2))).sel(seed=[0]), "test")
    assert one["test_accuracy_std"].isna().all() and one["test_accuracy_half_width"].isna().all()


def test_no_mean_over_runs_of_which_one_has_diverged():
    # The loss of step 12 is that of the parameters after 11 steps: at step 10 the run was sane, at step 20 not.
    result = make_result([0.5] * 4, [0.5] * 4, [np.nan, 12, np.nan, np.nan], learning_rate=[0.1, 0.2], seed=[0, 1])
    frame = jm.curve_table(with_curves(result, np.full((4, 4), 0.5)), "test")
    by_rate = [frame[frame["learning_rate"] == rate] for rate in (0.1, 0.2)]
    assert by_rate[0]["test_accuracy_mean"].isna().tolist() == [False, False, True, True]
    assert by_rate[0]["test_accuracy_min"].isna().tolist() == [False, False, True, True]
    assert by_rate[0]["num_diverged"].tolist() == [0, 0, 1, 1] and not by_rate[1].isna().any(axis=None)
    on_the_dot = make_result([0.5] * 2, [0.5] * 2, [np.nan, 11], learning_rate=[0.1], seed=[0, 1])
    assert jm.curve_table(with_curves(on_the_dot, np.ones((2, 3))), "test")["num_diverged"].tolist() == [0, 1, 1]
    not_finite = make_result([0.5] * 2, [0.5] * 2, learning_rate=[0.1], seed=[0, 1])
    frame = jm.curve_table(with_curves(not_finite, [[0.1, 0.5], [0.1, np.nan]]), "test")
    assert frame["test_accuracy_mean"].isna().tolist() == [False, True]


def test_the_best_of_each_value_among_those_that_have_it():
    validation = [0.5, 0.6, 0.7, 0.8, 0.9, 0.1, 0.2, 0.15]
    values = dict(validation_accuracy=validation, validation_loss=validation, test_accuracy=validation)
    values |= dict(test_loss=validation, diverged_step=[np.nan] * 6 + [3, 4])
    parts = {"a": [1, 2, 3], "b": [10, 20, 30], "c": [5, 6]}
    grids = [jm.grid(optimizer=[name], learning_rate=rates, seed=[0]) for name, rates in parts.items()]
    arrays = {name: np.asarray(column, float) for name, column in values.items()}
    result = results.label(jm.union(*grids), arrays, [], dict(num_validation=100, num_test=200))
    best = jm.best_of_each(result, "optimizer")
    assert best["a"].setting == {"optimizer": "a", "learning_rate": 3} and best["a"].edges == ["learning_rate"]
    assert best["b"].setting == {"optimizer": "b", "learning_rate": 20} and best["b"].edges == []
    assert best["b"].test.mean == 0.9 and best["c"] is None
    full = make_result([0.1, 0.2, 0.4, 0.3], [0.5] * 4, learning_rate=[1, 2], batch_size=[8, 16], seed=[0])
    assert {size: of.setting["learning_rate"] for size, of in jm.best_of_each(full, "batch_size").items()} == {
        8: 2,
        16: 2,
    }


def test_runs_that_differ_in_seeds_alone_are_repetitions_of_one_setting(tiny):
    runs = jm.grid(learning_rate=[0.1, 0.3], batch_size=8, init_seed=[0, 1], order_seed=[0, 1, 2])
    result = jm.sweep(jm.SoftmaxRegression(4, 0.1), optax.sgd, runs, tiny, num_steps=3, progress=False)
    settings = jm.settings(result).set_index("learning_rate")
    assert settings["num_seeds"].tolist() == [6, 6] and "init_seed" not in settings
    for rate in (0.1, 0.3):
        mean = result["validation_accuracy"].sel(learning_rate=rate).mean().item()
        assert settings.loc[rate, "validation_accuracy"] == pytest.approx(mean)
    assert jm.settings(result.sel(init_seed=0))["num_seeds"].tolist() == [3, 3]
    assert set(jm.table(result).columns) >= {"init_seed", "order_seed"}
    # Both seeds alike are one seed.
    same = jm.sweep(
        jm.SoftmaxRegression(4, 0.1), optax.sgd, jm.grid(learning_rate=0.3, batch_size=8, seed=[0, 1]), tiny,
        num_steps=3, progress=False,
    )  # fmt: skip
    for seed in (0, 1):
        ours = result["test_loss"].sel(learning_rate=0.3, init_seed=seed, order_seed=seed).item()
        np.testing.assert_allclose(ours, same["test_loss"].sel(seed=seed).item(), rtol=1e-5)
    assert len(np.unique(result["test_loss"])) == result["test_loss"].size

"""The published noise scale, and critical batch sizes beside noise scales, with planted cases."""

import functools
import math

import numpy as np
import pandas as pd
import pytest

import jaxmnist as jm
from jaxmnist.analysis import results
from jaxmnist.analysis.intervals import t_interval
from jaxmnist.studies import published_noise, published_noise_figures
from jaxmnist.studies.published import Row, Table

SIZES, STEPS = [8, 16, 32, 64], np.arange(0, 200, 5)
NOISELESS_STEPS, CRITICAL_BATCH_SIZES = 10, {0: 64, 1: 128}


@functools.cache
def planted():
    """Returns a result whose steps to 80 % follow the law exactly, for each seed; to 85 % it takes twice as many."""
    runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=SIZES, seed=[0, 1])
    curves = []
    for rate, size, seed in zip(*runs.values(), strict=True):
        steps = NOISELESS_STEPS * (1 + CRITICAL_BATCH_SIZES[int(seed)] / size)
        # The larger rate never reaches a target.
        curve = np.where(2 * steps <= STEPS, 0.85, np.where(steps <= STEPS, 0.8, 0.5))
        curves.append(curve if rate == 0.1 else np.full(len(STEPS), 0.5))
    final = np.array(curves)[:, -1]
    values = {f"{split}_{metric}": final for split in ("validation", "test") for metric in ("accuracy", "loss")}
    values |= {"diverged_step": np.full(16, np.nan), "recorded_validation_accuracy": np.array(curves)}
    attributes = dict(dataset="planted", num_train=100, num_validation=10, num_test=10, num_steps=195)
    return results.label(runs, values, STEPS.tolist(), attributes)


def test_the_replicated_statistic_is_the_noise_scale_if_that_stays():
    trace, squared_norm = 500.0, 0.7
    norms = [[squared_norm + trace / size for size in (2560, 128)]] * 23
    assert math.isclose(published_noise.replicated_scale(norms), trace / squared_norm, rel_tol=1e-9)


def test_the_replicated_statistic_is_the_mean_of_the_ratio_of_running_averages():
    norms = np.random.default_rng(0).uniform([0.1, 0.5], [0.2, 2.0], (7, 2))
    average_trace = average_norm = 0.0
    ratios = []
    for large, small in norms:
        average_trace = 0.99 * average_trace + 0.01 * (small - large) / (1 / 128 - 1 / 2560)
        average_norm = 0.99 * average_norm + 0.01 * (2560 * large - 128 * small) / (2560 - 128)
        ratios.append(average_trace / average_norm)
    assert math.isclose(published_noise.replicated_scale(norms), np.mean(ratios), rel_tol=1e-9)


def test_windows_hold_the_norms_of_their_mean_and_last_gradients(monkeypatch):
    monkeypatch.setattr(published_noise, "WINDOW", 2)
    transformation = published_noise.gradient_windows(2)
    params = {"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}
    state = transformation.init(params)
    for numbers in ([1, 2, 0], [3, -2, 4], [5, 5, 5], [7, 1, -1]):
        grads = {"a": np.array(numbers[:2], np.float32), "b": np.array(numbers[2:], np.float32)}
        updates, state = transformation.update(grads, state, params)
        assert updates is grads
    np.testing.assert_allclose(state.squared_norms, [[4 + 0 + 4, 9 + 4 + 16], [36 + 9 + 4, 49 + 1 + 1]])


def test_the_gradients_are_those_of_the_run(monkeypatch):
    monkeypatch.setattr(published_noise, "WINDOW", 1)
    monkeypatch.setattr(published_noise, "BATCH_SIZE", 16)
    data, model, seeds = jm.load("digits"), jm.SoftmaxRegression(), (3, 4)
    found = published_noise.gradients_of(data, seeds, 2, model)
    for norms, seed in zip(found, seeds, strict=True):
        # The first parameters are zeros, so that all probabilities are a tenth.
        rows = jm.example_order(len(data.train.targets), seed, 16)
        pixels = data.train.inputs[rows].reshape(16, -1) / 255
        errors = 0.1 - np.eye(10)[data.train.targets[rows]]
        grads = errors.T @ pixels / 16, errors.mean(axis=0)
        np.testing.assert_allclose(norms[0], sum((grad**2).sum() for grad in grads), rtol=1e-4)
        assert norms[1, 0] == norms[1, 1] != norms[0, 0]
    assert found[0][0, 0] != found[1][0, 0]


def test_the_critical_batch_size_is_that_of_each_seeds_steps():
    found, logarithms = published_noise.critical_batch_size(planted(), 0.8), t_interval(np.log([64.0, 128.0]))
    np.testing.assert_allclose(found[:3], np.exp(logarithms[:3]), rtol=1e-5)
    assert found.kind == "t interval over 2 seeds"
    assert published_noise.critical_batch_size(planted(), 0.9) is None
    assert published_noise.critical_batch_size(planted().isel(batch_size=[0, 1]), 0.8) is None


def stub_noise(model, optimizer, dataset, *, batch_size, seed, steps):
    """Stands for `jm.noise_scale_along_training`: the noise scale is the step, and 100 more for each seed."""
    assert (batch_size, dataset) == (64, "data") and len(steps) > 1
    return pd.DataFrame({"step": list(steps), "noise_scale": [step + 100.0 * seed for step in steps]})


def test_rows_set_critical_batch_sizes_beside_noise_scales_of_the_largest_batch(monkeypatch):
    monkeypatch.setattr(jm, "noise_scale_along_training", stub_noise)
    rows = published_noise.target_rows(planted(), "data", (0.8, 0.85, 0.9), 0.0)
    # At 64 examples, 80 % is reached at step 20 by seed 0 and 30 by seed 1.
    numbers = [64 * 128, 10 * 115, 20 * 130, 64 * 128, 20 * 130, 40 * 160]
    np.testing.assert_allclose([row.ours.mean for row in rows], np.sqrt(numbers), rtol=1e-5)
    names = [f"{kind}, to {target} %" for target in (80, 85) for kind in published_noise.KINDS]
    assert [row.name for row in rows] == names and {row.unit for row in rows} == {"examples"}


def test_the_figure_shows_each_kind_against_the_target():
    means = {"critical batch size": (50, 120), "mean noise scale": (100, 700), "noise scale reached": (200, 1500)}
    rows = [Row("one epoch, residual network", "examples", 876.0, t_interval([800.0, 900.0]), 1.0)]
    for place, target in enumerate((80, 90.5)):
        for kind, values in means.items():
            ours = t_interval([0.8 * values[place], 1.2 * values[place]])
            rows.append(Row(f"{kind}, to {target:g} %", "examples", None, ours, 1.0))
    axes = published_noise_figures.figure(Table("title", "source", "recipe", "budget", "2 seeds", tuple(rows))).axes[0]
    drawn = [container.lines[0] for container in axes.containers]
    np.testing.assert_allclose([line.get_xdata() for line in drawn], [[80, 90.5]] * 3, atol=0.1)
    np.testing.assert_allclose([line.get_ydata().astype(float) for line in drawn], list(means.values()))
    assert axes.get_yscale() == "log" and len({line.get_color() for line in drawn}) == 3


@pytest.mark.slow
def test_the_table_trains_both_networks(monkeypatch, tmp_path):
    data = jm.load("digits")
    few = [jm.Split(*(field[:40] for field in getattr(data, name))) for name in ("train", "validation", "test")]
    monkeypatch.setattr(jm, "load", lambda name: jm.Dataset(name, data.class_names, *few))
    monkeypatch.setattr(published_noise, "BATCH_SIZES", (2, 4, 8))
    monkeypatch.setattr(published_noise, "LEARNING_RATES", (0.1,))
    monkeypatch.setattr(published_noise, "TARGETS", (0.3,))
    norms = [[[0.5 + size / 1000 for size in (1, 20)]] * 3] * 3
    monkeypatch.setattr(
        published_noise, "gradients_of", lambda dataset, *_: norms if len(dataset.train.targets) == 80 else None
    )
    table = published_noise.noise_table(False, tmp_path, False)
    assert [row.name.partition(",")[0] for row in table.rows] == ["one epoch", *published_noise.KINDS]
    assert all(row.ours.mean > 0 for row in table.rows) and table.rows[0].theirs == 876
    assert jm.load_results(tmp_path).attrs["num_steps"] == 600

"""Figures of results without an accuracy: the right label, and colours and outlines the right way round."""

import json

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from results_for_tests import LEAST_LOSS, LEAST_MAE, MOST_LOSS, MOST_MAE, RATES, SIZES, make_regression, make_result

import jaxmnist as jm

DIRECTIONS = [
    ({}, LEAST_LOSS, MOST_LOSS), (dict(by="loss", largest=True), MOST_LOSS, LEAST_LOSS),
    (dict(by="mae", largest=False), LEAST_MAE, MOST_MAE), (dict(by="mae", largest=True), MOST_MAE, LEAST_MAE),
]  # fmt: skip


def luminance(color):
    return np.dot(color[:3], [0.2126, 0.7152, 0.0722])


def words_of(figure):
    """Returns all text of a figure."""
    figure.draw_without_rendering()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return " ".join(" ".join(text.get_text().split()) for text in texts)


def noisy(low, high):
    """Returns the regression with losses from one value to another, evenly in their logarithm, the best one last."""
    result = make_regression()
    loss = np.geomspace(high, low, 9)[:, None] * np.array([0.99, 1.0, 1.01])
    return result.assign(validation_loss=(result["validation_loss"].dims, loss.reshape(3, 3, 3)))


@pytest.mark.parametrize(("asked", "best", "worst"), DIRECTIONS)
def test_the_best_cell_is_the_brightest_and_outlined(asked, best, worst):
    axes = jm.heatmap(make_regression(), **asked).axes[0]
    mesh = axes.collections[0]
    # [batch_size, learning_rate] to the order of the grid.
    colors = mesh.cmap(mesh.norm(mesh.get_array())).transpose(1, 0, 2).reshape(9, 4)
    brightness = [luminance(color) for color in colors]
    assert np.argmax(brightness) == best and np.argmin(brightness) == worst
    outlined = {(np.searchsorted(RATES, p.get_x()), np.searchsorted(SIZES, p.get_y())) for p in axes.patches}
    assert outlined == {(best // 3, best % 3)}


@pytest.mark.parametrize(("largest", "worst", "end"), [(False, MOST_MAE, "max"), (True, LEAST_MAE, "min")])
def test_an_outlier_among_the_worst_is_black(largest, worst, end):
    mesh = jm.heatmap(make_regression(), by="mae", largest=largest).axes[0].collections[0]
    colors = mesh.cmap(mesh.norm(mesh.get_array())).transpose(1, 0, 2).reshape(9, 4)
    black = [place for place, color in enumerate(colors) if luminance(color) == 0]
    assert black == [worst] and mesh.colorbar.extend == end


@pytest.mark.parametrize(("asked", "best", "worst"), DIRECTIONS)
def test_the_best_dot_is_the_brightest_and_drawn_last(asked, best, worst):
    dots = jm.scatter(make_regression(), **asked).axes[0].collections[0]
    brightness = [luminance(color) for color in dots.cmap(dots.norm(dots.get_array()))]
    assert np.argmax(brightness) == len(brightness) - 1 and np.argmin(brightness) == 0
    np.testing.assert_allclose(dots.get_offsets()[[0, -1]], [[RATES[at // 3], SIZES[at % 3]] for at in (worst, best)])


@pytest.mark.parametrize("asked", [{}, dict(by="mae", largest=True)])
def test_budgets_share_colours_of_which_the_best_are_bright(asked):
    figure = jm.budget_maps(make_regression(), **asked)
    panels = [axes.collections[0] for axes in figure.axes[:3]]
    values = np.ma.concatenate([mesh.get_array().ravel() for mesh in panels])
    brightness = np.array([luminance(color) for color in panels[0].cmap(panels[0].norm(values.compressed()))])
    best = np.argmax if asked else np.argmin
    assert brightness[best(values.compressed())] == brightness.max()
    assert len({(mesh.norm.vmin, mesh.norm.vmax) for mesh in panels}) == 1
    assert figure.axes[-1].get_ylabel() == ("validation mae" if asked else "validation loss (squared error)")


def test_a_loss_that_spans_orders_of_magnitude_has_logarithmic_colours():
    wide, narrow = (jm.heatmap(noisy(low, 1.0)).axes[0].collections[0] for low in (1e-6, 0.5))
    assert isinstance(wide.norm, LogNorm) and not isinstance(narrow.norm, LogNorm)
    assert wide.norm.vmin == pytest.approx(1e-6, rel=1e-3) and wide.norm.vmax == pytest.approx(1, rel=1e-3)
    figure = jm.heatmap(noisy(1e-6, 1.0))
    assert "% of the mean (median cell)" in words_of(figure)
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert "1.00" in cells and r"$1\times 10^{-6}$" in cells and "0.00018" in cells


@pytest.mark.slow
def test_no_figure_of_a_regression_speaks_of_accuracy_or_per_cent():
    figures = jm.figures(make_regression().sel(learning_rate=[0.1, 0.2], batch_size=[8, 16]))
    assert set(figures) == {"scatter", "heatmap", "budgets", "steps_to_target", "learning_curves", "test_loss"}
    for name, figure in figures.items():
        words = words_of(figure)
        assert "accuracy" not in words and "nats" not in words and "points" not in words, name
        assert "loss (squared error)" in words or "steps to a loss of" in words, name
        for percent in ("95 % interval", "95 % t interval", "t tests, 5 %", "% of the mean"):
            words = words.replace(percent, "")
        assert "%" not in words, name
    for name, figure in jm.figures(make_result()).items():
        assert "accuracy" in words_of(figure), name
    assert "test_mae" in jm.figures(make_regression().sel(batch_size=8), by="mae", largest=False)


def test_one_seed_of_a_regression_has_no_interval():
    for draw in (jm.heatmap, jm.scatter):
        words = words_of(draw(make_regression().isel(seed=[0])))
        assert "1 seed" in words and "interval" not in words


def test_curves_show_all_metrics_of_the_result():
    figure = jm.curves(make_regression().sel(learning_rate=0.1, batch_size=8))
    assert [axes.get_ylabel() for axes in figure.axes] == ["mae", "loss (squared error)"]
    mae = jm.curves(make_regression().sel(learning_rate=0.1, batch_size=8), metrics="mae")
    assert len(mae.axes) == 1
    with pytest.raises(ValueError, match="metrics is \\('accuracy',\\); a sequence of distinct ones of 'mae', 'loss'"):
        jm.curves(make_regression(), metrics=("accuracy",))


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (0.01, "log")])
def test_a_curve_that_falls_by_orders_of_magnitude_has_a_logarithmic_axis(factor, scale):
    result = make_regression().sel(learning_rate=0.1, batch_size=8)
    falling = {name: result[name] * np.array([1.0, 1.0, factor]) for name in result if name.startswith("recorded")}
    result = result.assign(falling)
    assert jm.accuracy_curve(result).axes[0].get_yscale() == scale
    assert {axes.get_yscale() for axes in jm.curves(result).axes} == {scale}
    line = jm.accuracy_curve(result).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), result["recorded_test_loss"].mean("seed"))


def test_the_ring_of_a_rate_curve_is_the_least_loss():
    result = make_regression()
    figure = jm.rate_curve(result, "batch_size", jm.best_of_each(result, "batch_size"))
    axes = figure.axes[0]
    assert axes.get_ylabel() == "validation loss (squared error)"
    rings = [line.get_xydata()[0] for line in axes.lines if line.get_markersize() == 13]
    means = result["validation_loss"].mean("seed")
    for size, (rate, height) in zip(SIZES, rings, strict=True):
        column = means.sel(batch_size=size)
        assert height == pytest.approx(float(column.min())) and rate == RATES[column.values.argmin()]
    mae = jm.rate_curve(result, "batch_size", {}, "test", "mae")
    assert mae.axes[0].get_ylabel() == "test mae"


def test_steps_to_a_loss_are_those_below_it():
    figure = jm.target_maps(make_regression(), 2.5)
    assert "validation split, steps to a loss of 2.5" in figure.get_suptitle()
    steps = figure.axes[0].collections[0].get_array()
    best = jm.steps_to_target(make_regression(), 2.5).mean("seed").transpose("batch_size", "learning_rate")
    np.testing.assert_array_equal(steps.filled(np.nan), best)


def test_functions_are_shown_by_their_last_name():
    names = ["a.b.relu", "a.b.tanh", "None"]
    result = make_regression().assign_coords(batch_size=names).rename(batch_size="activation")
    axes = json.loads(result.attrs["axes"])
    del axes["batch_size"]
    result = result.assign_attrs(axes=json.dumps(axes | {"activation": names}))
    figure = jm.rate_curve(result, "activation", jm.best_of_each(result, "activation"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["relu", "tanh", "None"]
    curves = jm.curves(result.sel(learning_rate=0.1))
    assert "activation relu" in words_of(curves) and "a.b." not in words_of(curves)
    assert "activation tanh" in words_of(jm.accuracy_curve(result.sel(activation="a.b.tanh")))
    text = jm.report(result)
    assert "activation tanh" in text and "a.b." not in text and "a.b." not in jm.comparison(result, "activation")


def test_curves_of_one_training_follow_its_metrics():
    rows = [dict(seed=0, step=step, validation_loss=1 / (1 + step), validation_r2=-0.1 * step) for step in (0, 10, 20)]
    loss, r2 = jm.training_curves(rows, "noisy").axes
    assert (loss.get_ylabel(), r2.get_ylabel()) == ("validation loss", "validation r2")
    assert (loss.get_yscale(), r2.get_yscale()) == ("log", "linear")
    np.testing.assert_allclose(r2.lines[0].get_xydata(), [[10, -1], [20, -2]])

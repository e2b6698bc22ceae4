import numpy as np
import pytest
from scipy import stats
from test_curves import caption
from test_results import make_result

import jaxmnist as jm
from jaxmnist.analysis import results


def two_optimizers(diverged=None):
    """Returns three rates of each, the best of `a` at 2 and that of `b` at 10, over 2 seeds."""
    grids = [jm.grid(optimizer=[name], learning_rate=rates, momentum=0.9, seed=[0, 1]) for name, rates in (
        ("a", [1, 2, 4]), ("b", [10, 20, 40])
    )]  # fmt: skip
    accuracy = np.array([0.6, 0.62, 0.8, 0.84, 0.7, 0.7, 0.9, 0.9, 0.5, 0.5, 0.4, 0.4])
    values = {name: accuracy for name in ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")}
    values["diverged_step"] = np.full(12, np.nan) if diverged is None else np.asarray(diverged, float)
    attrs = dict(dataset="tiny", num_validation=100, num_test=200, budget="equal steps: 3", model="M()", optimizer="o")
    return results.label(jm.union(*grids), values, [], attrs)


def rate_curve(result):
    return jm.rate_curve(result, "optimizer", jm.best_of_each(result, "optimizer"))


def test_rate_curve_shows_means_intervals_and_the_choice():
    figure = rate_curve(two_optimizers())
    axes = figure.axes[0]
    a, b = axes.containers
    np.testing.assert_allclose(a.lines[0].get_xydata(), [[1, 61], [2, 82], [4, 70]])
    np.testing.assert_allclose(b.lines[0].get_xydata(), [[10, 90], [20, 50], [40, 40]])
    half = 100 * stats.t.ppf(0.975, 1) * stats.sem([0.8, 0.84])
    np.testing.assert_allclose(a.lines[2][0].get_segments()[1], [[2, 82 - half], [2, 82 + half]])
    rings = [line.get_xydata().tolist() for line in axes.lines if line.get_markersize() == 13]
    np.testing.assert_allclose(rings, [[[2, 82]], [[10, 90]]])
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "validation accuracy (%)"
    assert "95 % t interval over 2 seeds" in caption(figure)
    assert "momentum 0.9 (of momentum alone)" in caption(figure)


def test_rate_curve_never_draws_an_accuracy_where_runs_diverged(tmp_path):
    figure = rate_curve(two_optimizers([np.nan] * 4 + [3, np.nan] + [2] * 6))
    axes = figure.axes[0]
    a, b = axes.containers
    assert np.isnan(a.lines[0].get_ydata()).tolist() == [False, False, True]
    assert np.isnan(b.lines[0].get_ydata()).all()
    crosses = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "x"]
    assert crosses == [[4], [10, 20, 40]]
    assert figure.legends[0].get_title().get_text() == "optimizer"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a (1 of 6 runs diverged)", "b (6 of 6 runs diverged)"] and "cross" in caption(figure)
    figure.savefig(tmp_path / "figure.png")


def test_rate_curve_refuses_what_differs_in_more():
    result = make_result([0.5] * 8, [0.5] * 8, learning_rate=[1, 2], batch_size=[1, 2], momentum=[0, 0.9], seed=[0])
    with pytest.raises(ValueError, match="momentum"):
        jm.rate_curve(result, "batch_size", {})

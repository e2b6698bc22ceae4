"""Slices and parallel coordinates show all settings, and the best of each value."""

import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from results_for_tests import make_regression
from test_any_axes import MOMENTA, RATES, SIZES, four_axes, sample_of, three_axes, words
from test_results import make_result

import jaxmnist as jm


def marked(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_slice_shows_all_settings_and_the_best_on_validation_of_each_value(split):
    result = three_axes()
    figure = jm.slices(result, split)
    table = jm.settings(result)
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning rate", "batch size (examples)", "momentum"]
    for axes, name, values in zip(figure.axes, ("learning_rate", "batch_size", "momentum"), (RATES, SIZES, MOMENTA),
                                  strict=True):  # fmt: skip
        dots, best, ring = marked(axes, "o")
        np.testing.assert_allclose(np.sort(dots.get_ydata()), np.sort(100 * table[f"{split}_accuracy"]))
        np.testing.assert_allclose(dots.get_xdata(), table[name])
        expected = [100 * table[table[name] == value].iloc[0][f"{split}_accuracy"] for value in values]
        np.testing.assert_allclose(best.get_ydata(), expected)
        np.testing.assert_allclose(ring.get_xydata()[0], [table[name][0], 100 * table[f"{split}_accuracy"][0]])
    assert "dark: the best setting of each value on validation, with its 95 % t interval" in words(figure)


def test_the_intervals_of_a_sample_have_their_best_setting_where_it_is():
    result = sample_of()
    axes = jm.slices(result).axes[0]
    best = marked(axes, "o")[1]
    table = jm.settings(result)
    edges = np.geomspace(table["learning_rate"].min(), table["learning_rate"].max(), 9)
    place = np.clip(np.searchsorted(edges, table["learning_rate"], "right") - 1, 0, 7)
    first = table.groupby(place).first()
    np.testing.assert_allclose(
        best.get_xydata(), np.stack([first["learning_rate"], 100 * first["validation_accuracy"]], 1)
    )
    assert axes.get_xscale() == "log"


def test_what_diverged_or_lies_far_below_is_at_the_foot():
    accuracy = [0.9, 0.1, 0.91, 0.92, 0.5, 0.93, 0.9, 0.92, 0.94]
    diverged = np.full(9, np.nan)
    diverged[4] = 3
    result = make_result(accuracy, accuracy, diverged, learning_rate=RATES, batch_size=[8, 16, 32], seed=0)
    figure = jm.slices(result)
    rates = figure.axes[0]
    assert [line.get_xdata().tolist() for line in marked(rates, "x")] == [[0.2]]
    assert [line.get_xdata().tolist() for line in marked(rates, "v")] == [[0.1]]
    assert rates.get_ylim()[0] > 80 and "triangles: outside the axes" in words(figure)
    assert "crosses: a run diverged" in words(figure) and "settings, 1 seed" in words(figure)
    hidden, shown = [each for each in jm.parallel(result).axes[0].collections if isinstance(each, LineCollection)]
    assert len(hidden.get_segments()) == 1 and len(hidden.get_segments()[0]) == 2 and len(shown.get_segments()) == 8


def test_lines_lead_through_the_values_of_a_setting_to_its_place_on_the_colour_bar():
    result = four_axes()
    figure = jm.parallel(result)
    axes, bar = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "learning rate",
        "batch size",
        "momentum",
        "activation",
    ]
    places = {
        text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text() in ("tanh", "relu", "gelu")
    }
    assert places["tanh"] < places["relu"] < places["gelu"]
    segments = axes.collections[-1].get_segments()
    table = jm.settings(result)[::-1]
    low, high = bar.get_ylim()
    for segment, activation, accuracy in zip(segments, table["activation"], table["validation_accuracy"], strict=True):
        assert segment[3].tolist() == [3, places[activation]] and segment[4, 0] == 4
        assert segment[4, 1] == pytest.approx((100 * accuracy - low) / (high - low))
    assert bar.get_ylabel() == "validation accuracy (%)"


def test_an_outlier_ends_at_the_arrow_of_the_colour_bar():
    accuracy = [0.1, 0.85, 0.86, 0.87, 0.88, 0.89, 0.9, 0.91]
    result = make_result(accuracy, accuracy, learning_rate=range(8), batch_size=[10], seed=[0])
    ends = [segment[-1, 1] for segment in jm.parallel(result).axes[0].collections[-1].get_segments()]
    assert ends[0] == 0 and ends[1] == pytest.approx(0.05 / 1.05) and ends[-1] == 1


def test_an_interval_does_not_lead_the_axis_beyond_all_examples():
    accuracy = [0.8, 1.0, 0.7, 0.72]
    axes = jm.slices(make_result(accuracy, accuracy, learning_rate=[0.1, 0.2], batch_size=8, seed=[0, 1])).axes[0]
    assert 100 < axes.get_ylim()[1] < 110


@pytest.mark.parametrize("draw", [jm.slices, jm.parallel])
def test_figures_of_settings_need_several(draw):
    with pytest.raises(ValueError, match="result holds one setting; several are needed"):
        draw(three_axes().sel(learning_rate=0.1, batch_size=10, momentum=[0.5]))


@pytest.mark.parametrize("draw", [jm.slices, jm.parallel])
def test_a_loss_has_its_own_scale(draw, tmp_path):
    figure = draw(make_regression())
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert "validation loss (squared error)" in labels
    figure.savefig(tmp_path / "figure.png")


@pytest.mark.slow
@pytest.mark.parametrize("draw", [jm.slices, jm.parallel])
def test_figures_of_100_000_runs_are_small(draw):
    accuracy = np.random.default_rng(0).uniform(0, 1, 100_000)
    rates = np.geomspace(1e-3, 1, 100).tolist()
    result = make_result(accuracy, accuracy, learning_rate=rates, batch_size=list(range(1, 251)), seed=range(4))
    file = io.BytesIO()
    draw(result).savefig(file, format="svg")
    assert len(file.getvalue()) < 2e6

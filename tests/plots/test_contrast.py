"""Two settings are compared seed by seed."""

import numpy as np
import pytest
from scipy import stats
from test_any_axes import ticks, words
from test_results import make_result

import jaxmnist as jm

FIRST, SECOND = [0.9, 0.91, 0.93, 0.92], [0.88, 0.9, 0.9, 0.915]


def two_rates(diverged=None, first=FIRST, second=SECOND):
    accuracy = [*first, *second]
    return make_result(accuracy, accuracy[::-1], diverged, learning_rate=[0.1, 0.2], batch_size=8, seed=range(4))


A, B = dict(learning_rate=0.1), dict(learning_rate=0.2)


def differences(figure):
    return next(line for line in figure.axes[1].lines if line.get_markersize() < 5).get_ydata()


def test_differences_are_of_the_same_seed_with_their_interval():
    figure = jm.contrast(two_rates(), A, B)
    expected = 100 * (np.array(FIRST) - SECOND)
    np.testing.assert_allclose(differences(figure), expected)
    found = stats.ttest_rel(FIRST, SECOND).confidence_interval(0.95)
    interval = f"[{100 * found.low:.2f}, {100 * found.high:.2f}]"
    assert f"mean of a - b: 1.62 points {interval}, 95 % t interval over 4 seeds" in words(figure)
    assert ticks(figure.axes[0].xaxis) == ["a\nlearning rate 0.1", "b\nlearning rate 0.2"]
    joined = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(joined[:4], 100 * np.stack([FIRST, SECOND], axis=1))
    assert differences(jm.contrast(two_rates(), A, B, "test")) == pytest.approx(-expected[::-1])


def test_seeds_are_paired_by_their_numbers_whatever_their_order():
    runs = dict(learning_rate=[0.1] * 3 + [0.2] * 3, batch_size=[8] * 6, seed=[0, 1, 2, 2, 3, 1])
    accuracy = np.array([0.5, 0.6, 0.7, 0.71, 0.9, 0.63])
    values = dict(
        validation_accuracy=accuracy, validation_loss=1 - accuracy, test_accuracy=accuracy,
        diverged_step=np.full(6, np.nan),
    )  # fmt: skip
    result = jm.analysis.results.label({k: np.array(v) for k, v in runs.items()}, values, [0], two_rates().attrs)
    np.testing.assert_allclose(differences(jm.contrast(result, B, A)), [3, 1])


def test_a_seed_that_diverged_is_left_out_and_counted():
    figure = jm.contrast(two_rates([np.nan] * 5 + [2] + [np.nan] * 2), A, B)
    np.testing.assert_allclose(differences(figure), 100 * (np.array(FIRST) - SECOND)[[0, 2, 3]])
    assert "seeds left out since a run diverged: 1" in words(figure)
    with pytest.raises(ValueError, match="a and b have fewer than 2 seeds in common of which no run diverged"):
        jm.contrast(two_rates([np.nan] * 5 + [2] * 3), A, B)


def test_of_several_settings_the_best_on_validation_is_taken():
    accuracy = np.array([[0.5, 0.9], [0.6, 0.7]])[:, :, None] + 0.01 * np.arange(3)
    result = make_result(*[accuracy.ravel()] * 2, learning_rate=[0.1, 0.2], batch_size=[8, 16], seed=range(3))
    figure = jm.contrast(result, dict(batch_size=16), dict(batch_size=8))
    assert differences(figure) == pytest.approx([30, 30, 30])
    assert ticks(figure.axes[0].xaxis) == ["a\nlearning rate 0.1\nbatch size 16", "b\nlearning rate 0.2\nbatch size 8"]
    with pytest.raises(ValueError, match="a and b are the same setting; two are needed"):
        jm.contrast(result, dict(batch_size=16), dict(learning_rate=0.1, batch_size=16))

"""The six published conditions of the boundary of trainability, beside the notebook's arithmetic in numpy."""

import numpy as np
import pytest
from conftest import mostly_slow

import jaxmnist as jm
from jaxmnist.studies import boundary, boundary_figures, fractal

STEPS, LAST = 30, 20
# Rates at which rounding does not grow beyond the tolerance, on either side of the boundary.
WINDOWS = {name: (-1.0, 2.0, -1.0, 3.0) for name in fractal.CONDITIONS} | {
    "tanh": (-1.0, 2.0, -1.0, 5.0), "offset": (-3.0, 0.0, -1.0, 3.0),
}  # fmt: skip


def derivative(name, z):
    """Returns an activation and its derivative at z."""
    if name == "tanh":
        return np.tanh(np.sqrt(2) * z), np.sqrt(2) * (1 - np.tanh(np.sqrt(2) * z) ** 2)
    return (np.sqrt(2) * np.maximum(z, 0), np.sqrt(2) * (z > 0)) if name == "relu" else (z, np.ones_like(z))


def forward(weights, inputs, activation):
    z = inputs @ weights[0] / 4
    hidden, slope = derivative(activation, z)
    return hidden, slope, (hidden @ weights[1])[:, 0] / 4 / 4


def notebook(condition, rates, offset=None):
    """Returns the notebook's `convergence_measure` of one run, its `train_step` written out."""
    setup = fractal.CONDITIONS[condition]
    data = fractal.numbers(setup.num_examples)
    inputs, targets = data["inputs"], data["targets"]
    trained = fractal.dataset(condition, STEPS).train
    order = jm.example_order(len(trained.targets), 0, STEPS * (setup.batch_size or setup.num_examples))
    weights, losses = [data["first"].T, data["last"].T], []
    for rows in order.reshape(STEPS, -1):
        if offset is not None:
            weights[0] = weights[0] + offset
        losses.append(np.mean((forward(weights, inputs, setup.activation)[2] - targets) ** 2))
        hidden, slope, outputs = forward(weights, trained.inputs[rows], setup.activation)
        error = (2 * (outputs - trained.targets[rows]) / len(rows))[:, None]
        before = error @ weights[1].T / 16 * slope
        gradients = trained.inputs[rows].T @ before / 4, hidden.T @ error / 16
        weights = [each - rate * gradient for each, rate, gradient in zip(weights, rates, gradients, strict=True)]
    ratios = np.where(np.isfinite(losses), losses, 1e6) / losses[0]
    ratios = np.minimum(ratios, 1e6)
    return -ratios.sum() if ratios[-LAST:].mean() < 1 else (1 / ratios).sum()


@pytest.mark.parametrize(
    "condition", mostly_slow(["offset", "linear", "relu", "single_point", "minibatch", "tanh"], "offset")
)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_each_pixel_is_what_the_notebook_computes(condition):
    left, right, bottom, top = WINDOWS[condition]
    arguments = fractal.problem(condition, WINDOWS[condition], 2, STEPS)
    found = fractal.picture(jm.sweep(**arguments, progress=False), condition)
    quarters = np.array([0.25, 0.75])
    horizontal, vertical = 10 ** (left + quarters * (right - left)), 10 ** (bottom + quarters * (top - bottom))
    for (row, column), value in np.ndenumerate(found):
        x, y = horizontal[column], vertical[row]
        rates, offset = ((y, y), x) if condition == "offset" else ((x, y), None)
        assert value == pytest.approx(notebook(condition, rates, offset), rel=2e-5), (row, column)
    assert (found < 0).any() and (found >= 0).any()


def test_minibatches_are_drawn_with_replacement_for_one_epoch():
    split = fractal.dataset("minibatch", 50).train
    assert split.inputs.shape == (50 * 16, 16) and split.inputs.dtype == np.float64
    assert 200 < len(np.unique(split.targets)) < 272  # 800 draws of 272 miss some 14 of them
    assert len(fractal.dataset("tanh", 50).train.targets) == 272


def test_the_random_numbers_are_those_of_the_notebook():
    data = fractal.numbers(272)
    assert {name: each.shape for name, each in data.items()} == {
        "first": (16, 16), "last": (1, 16), "inputs": (272, 16), "targets": (272,),
    }  # fmt: skip
    assert all(each.dtype == np.float64 for each in data.values())
    # Recorded with jax 0.10.2, whose older way of drawing is that of the notebook's time.
    np.testing.assert_allclose(data["first"][0, 0], 1.8020351263179202, rtol=1e-12)
    np.testing.assert_array_equal(fractal.numbers(16)["first"], data["first"])


@pytest.mark.parametrize("window", [(1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 2.0, 1.0), (float("nan"), 1.0, 0.0, 1.0)])
def test_an_empty_window_is_one_sentence(window):
    with pytest.raises(ValueError, match="a window begins below its end"):
        fractal.problem("tanh", window, 2)


@pytest.mark.slow
def test_a_zoom_goes_deeper_into_the_boundary_and_is_drawn(monkeypatch, tmp_path):
    windows = []
    given = fractal.problem
    monkeypatch.setattr(
        fractal, "problem", lambda name, window, *rest: windows.append(window) or given(name, window, *rest)
    )
    measures = fractal.zoom("single_point", 8, 2, num_steps=25, folder=tmp_path)
    assert [measure.shape for measure in measures] == [(8, 8), (8, 8)]
    assert windows[0] == fractal.WINDOW
    assert windows[1] == boundary.zoomed(measures[0], fractal.WINDOW, 4.0, fractal.PIECES)
    result = jm.load_results(tmp_path / "01")
    np.testing.assert_array_equal(fractal.picture(result, "single_point"), measures[1])
    axes = boundary_figures.paper_figure(result, "single_point", windows[1], "frame 2").axes[0]
    assert axes.get_title(loc="left").startswith("tanh, a single example, random data, equal steps: 25, 64 runs")
    np.testing.assert_allclose(axes.images[0].get_array(), boundary_figures.colors(measures[1]))
    with pytest.raises(ValueError, match="over offset and both"):
        fractal.picture(result, "offset")

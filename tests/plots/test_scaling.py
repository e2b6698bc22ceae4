import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_statistics import make_curves

import jaxmnist as jm
from jaxmnist.plots import scaling


def curved(num_steps=8):
    """Returns curves that need fewer steps where batches are larger."""
    steps = np.arange(num_steps) * 10
    sizes, rates, seeds = [8, 32, 128], [0.1, 1.0], range(3)
    speed = np.array([1.0, 1.8, 2.4])
    accuracy = [
        np.minimum(0.9, 0.1 + 0.012 * (1 + 0.05 * seed) * speed[i] * (1 if rate == 0.1 else 0.3) * steps)
        for rate in rates
        for i, _ in enumerate(sizes)
        for seed in seeds
    ]
    diverged = np.full(18, np.nan)
    diverged[-1] = 4
    return make_curves(
        np.array(accuracy), diverged=diverged, steps=steps.tolist(), learning_rate=rates, batch_size=sizes, seed=seeds
    )


def test_three_budgets_share_one_scale_and_name_their_amounts():
    result = curved()
    figure = jm.budget_maps(result)
    panels = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "equal steps: 70", "equal examples: 560", "equal epochs: 2",
    ]  # fmt: skip
    meshes = [axes.collections[0] for axes in panels]
    assert len({mesh.get_clim() for mesh in meshes}) == 1
    mean = 100 * result["validation_accuracy"].mean("seed").transpose("batch_size", "learning_rate").values
    shown = meshes[0].get_array()
    assert shown.mask.tolist() == [[False, False], [False, False], [False, True]]
    np.testing.assert_allclose(shown.compressed(), mean.ravel()[:5])
    assert "hatched: a run diverged" in figure.get_supxlabel().replace("\n", " ")


def test_steps_to_target_names_what_was_not_reached_and_the_retuned_rates():
    result = curved()
    figure = jm.target_maps(result, 0.6)
    shown = figure.axes[0].collections[0].get_array()
    table = jm.target_table(result, 0.6).pivot(index="batch_size", columns="learning_rate", values="steps")
    np.testing.assert_array_equal(shown.filled(np.nan), table.to_numpy())
    assert np.isnan(table.to_numpy()).any()
    middle = figure.axes[1]
    (top,) = middle.child_axes
    assert [text.get_text() for text in top.get_xticklabels()] == ["0.1"] * 3 and not middle.texts
    assert top.get_xlabel() == "retuned learning rate"
    perfect = next(line for line in middle.lines if line.get_label() == "perfect scaling")
    np.testing.assert_allclose(perfect.get_ydata() * perfect.get_xdata(), table.to_numpy()[0, 0] * 8)
    unreachable = jm.target_maps(result, 0.99)
    assert "no setting reaches" in unreachable.axes[1].texts[0].get_text()


@pytest.mark.parametrize("draw", [jm.budget_maps, lambda result: jm.target_maps(result, 0.5)])
def test_no_mean_is_drawn_over_a_hyperparameter_that_is_not_shown(draw):
    axes = dict(learning_rate=[0.1, 1.0], batch_size=[8, 32], seed=range(2))
    accuracy = np.repeat(np.linspace(0.1, 0.9, 6)[None], 16, axis=0)
    draw(make_curves(accuracy[:8], steps=list(range(6)), momentum=0.9, **axes))
    with pytest.raises(ValueError, match="several values of momentum, but the figure shows only learning_rate and"):
        draw(make_curves(accuracy, steps=list(range(6)), momentum=[0.0, 0.9], **axes))


def overlapping(texts):
    """Returns which neighbours among texts overlap on the canvas."""
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return [places for places in itertools.pairwise(range(len(boxes))) if boxes[places[0]].overlaps(boxes[places[1]])]


@pytest.mark.parametrize("sizes", [[8], [8, 512], range(1, 61), np.geomspace(8, 512, 15).astype(int).tolist()])
def test_labels_of_batch_sizes_and_rates_do_not_touch(sizes):
    best = pd.DataFrame({"batch_size": sizes, "learning_rate": 0.0125, "half_width": 1.0})
    best = best.assign(steps=2000 / best["batch_size"], examples=2000.0)
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    for axes, column in zip(figure.subplots(1, 3)[1:], ("steps", "examples"), strict=True):
        scaling._against_batch_size(axes, best, column)
    figure.draw_without_rendering()
    for axes in (*figure.axes[1:], *figure.axes[1].child_axes):
        texts = axes.get_xticklabels()
        assert texts and overlapping(texts) == []
        assert texts[-1].get_text() in (str(sizes[-1]), "0.013")

"""Maps over any two hyperparameters, of any selection of the runs of a result."""

import io

import numpy as np
import pytest
import xarray as xr
from conftest import mostly_slow
from test_results import make_result

import jaxmnist as jm
from jaxmnist.analysis import results

RATES, SIZES, MOMENTA = [0.1, 0.2, 0.3], [10, 20], [0.0, 0.5, 0.9]


def three_axes(name="momentum", values=MOMENTA, num_seeds=2, rates=RATES):
    """Returns the result of a grid over rates, sizes and one more hyperparameter, with accuracies in no order."""
    count = len(rates) * len(SIZES) * len(values) * num_seeds
    accuracy = np.random.default_rng(0).permutation(np.linspace(0.5, 0.9, count))
    axes = dict(learning_rate=rates, batch_size=SIZES, seed=range(num_seeds))
    return make_result(accuracy, accuracy[::-1], **{**axes, name: values})


def four_axes():
    accuracy = np.random.default_rng(0).permutation(np.linspace(0.5, 0.9, 24))
    names = dict(learning_rate=[0.1, 0.2], batch_size=SIZES, momentum=[0.0, 0.9], activation=["tanh", "relu", "gelu"])
    return make_result(accuracy, accuracy, **names, seed=0)


def sample_of(count=60):
    settings = jm.sample(count, 0, learning_rate=jm.loguniform(0.01, 10), batch_size=8, momentum=jm.uniform(0, 1))
    runs = jm.with_seeds(settings, range(2))
    accuracy = np.random.default_rng(0).permutation(np.linspace(0.5, 0.9, 2 * count))
    values = dict(
        validation_accuracy=accuracy, validation_loss=1 - accuracy, test_accuracy=accuracy,
        diverged_step=np.full(2 * count, np.nan),
    )  # fmt: skip
    return results.label(runs, values, [0, 3], make_result([0.5], [0.5], learning_rate=1, batch_size=1, seed=0).attrs)


def drawn(figure, panel=0):
    return np.ma.filled(figure.axes[panel].collections[0].get_array(), np.nan)


def words(figure):
    return " ".join(figure.get_supxlabel().split())


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def mean_of(result, split="validation", **setting):
    return 100 * float(result[f"{split}_accuracy"].sel(setting).mean("seed"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_cell_has_the_best_of_the_rest_on_validation_whatever_it_shows(split):
    result = three_axes()
    figure = jm.heatmap(result, split, y="momentum")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "momentum")
    for i, momentum in enumerate(MOMENTA):
        for j, rate in enumerate(RATES):
            at = dict(momentum=momentum, learning_rate=rate)
            size = max(SIZES, key=lambda size: mean_of(result, batch_size=size, **at))
            assert drawn(figure)[i, j] == pytest.approx(mean_of(result, split, batch_size=size, **at))
    assert "each cell: the best batch size on validation" in words(figure)


def test_columns_and_rows_have_a_panel_for_each_value():
    result = three_axes()
    figure = jm.heatmap(result, x="learning_rate", y="batch_size", columns="momentum")
    for panel, momentum in enumerate(MOMENTA):
        expected = 100 * result["validation_accuracy"].sel(momentum=momentum).mean("seed")
        np.testing.assert_allclose(drawn(figure, panel), expected.transpose("batch_size", "learning_rate"))
        assert figure.axes[panel].get_title(loc="left") == f"momentum {momentum:g}"
    assert len({axes.collections[0].norm for axes in figure.axes[:3]}) == 1 and "each cell" not in words(figure)


def test_rows_go_down_and_columns_go_right():
    result = four_axes()
    figure = jm.heatmap(result, x="learning_rate", y="batch_size", columns="activation", rows="momentum")
    titles = [axes.get_title(loc="left") for axes in figure.axes[:6]]
    assert titles[:2] == ["momentum 0, activation tanh", "momentum 0, activation relu"] and "0.9" in titles[3]
    at = result["validation_accuracy"].sel(momentum=0.9, activation="relu", seed=0)
    np.testing.assert_allclose(drawn(figure, 4), 100 * at.transpose("batch_size", "learning_rate"))
    np.testing.assert_array_equal(
        [round(axes.get_position().x0, 3) for axes in figure.axes[:3]],
        [round(axes.get_position().x0, 3) for axes in figure.axes[3:6]],
    )


def test_names_and_booleans_stand_in_the_order_typed():
    figure = jm.heatmap(four_axes(), x="activation", y="batch_size")
    assert ticks(figure.axes[0].xaxis) == ["tanh", "relu", "gelu"] and figure.axes[0].get_xlabel() == "activation"
    flags = jm.heatmap(three_axes("nesterov", [True, False]), y="nesterov")
    assert ticks(flags.axes[0].yaxis) == ["True", "False"]
    sizes = jm.heatmap(three_axes("hidden_size", [100, 128, 160]), y="hidden_size")
    assert ticks(sizes.axes[0].yaxis) == ["100", "128", "160"]
    rates = jm.heatmap(three_axes(rates=[0.901, 0.902, 0.903]))
    assert ticks(rates.axes[0].xaxis) == ["0.901", "0.902", "0.903"]


def test_a_sample_is_put_into_intervals_of_which_each_shows_its_best_setting():
    result = sample_of()
    figure = jm.heatmap(result)
    axes = figure.axes[0]
    shown, table = drawn(figure), jm.settings(result)
    assert axes.get_xscale() == "log" and axes.get_yscale() == "linear" and shown.shape == (8, 8)
    x_edges = np.geomspace(table["learning_rate"].min(), table["learning_rate"].max(), 9)
    y_edges = np.linspace(table["momentum"].min(), table["momentum"].max(), 9)
    best = np.full((8, 8), np.nan)
    for rate, momentum, accuracy in table[["learning_rate", "momentum", "validation_accuracy"]].to_numpy():
        i, j = (min(np.searchsorted(e, v, "right") - 1, 7) for e, v in ((y_edges, momentum), (x_edges, rate)))
        best[i, j] = np.fmax(best[i, j], 100 * accuracy)
    np.testing.assert_allclose(shown, best)
    assert "each cell: the best setting in its intervals" in words(figure) and "empty: no setting" in words(figure)


def test_a_union_of_grids_keeps_its_values():
    parts = [jm.grid(learning_rate=rates, batch_size=SIZES, seed=0) for rates in ([0.1, 0.2], [0.4, 0.8])]
    runs = jm.union(*parts)
    accuracy = np.linspace(0.5, 0.9, 8)
    values = dict(
        validation_accuracy=accuracy, validation_loss=1 - accuracy, test_accuracy=accuracy,
        diverged_step=np.full(8, np.nan),
    )  # fmt: skip
    axes = jm.heatmap(results.label(runs, values, [0], four_axes().attrs, places={"row": np.arange(8)})).axes[0]
    assert ticks(axes.xaxis) == ["0.1", "0.2", "0.4", "0.8"]


SELECTIONS = [
    lambda result: result.sel(batch_size=20),
    lambda result: result.sel(batch_size=20, seed=[0]),
    lambda result: result.isel(learning_rate=[2, 0]),
    lambda result: result.isel(momentum=1),
    lambda result: result.stack(cell=["learning_rate", "momentum"]).isel(cell=[0, 3, 7, 8]),
    lambda result: result.stack(run=["learning_rate", "batch_size", "momentum", "seed"]).isel(run=slice(0, 20)),
    lambda result: result.isel(learning_rate=xr.DataArray([0, 2], dims="p"), momentum=xr.DataArray([1, 0], dims="p")),
]


@pytest.mark.parametrize("select", mostly_slow(SELECTIONS, SELECTIONS[0], SELECTIONS[4], SELECTIONS[6]))
def test_a_map_shows_what_xarray_selects(select):
    result = select(three_axes())
    figure = jm.heatmap(result, x="learning_rate", y="momentum")
    table = jm.settings(result)
    best = 100 * table.groupby(["momentum", "learning_rate"])["validation_accuracy"].max().unstack()
    assert drawn(figure).shape == best.shape
    np.testing.assert_allclose(drawn(figure), best)
    whole = jm.settings(three_axes().sel(seed=np.unique(result["seed"])))
    both = table.merge(whole, on=["learning_rate", "batch_size", "momentum", "num_seeds"])
    assert len(both) >= len(table) - 1
    np.testing.assert_allclose(both["validation_accuracy_x"], both["validation_accuracy_y"])


def test_a_selection_of_one_value_is_named_in_the_caption():
    assert "momentum 0.5; mean over" in words(jm.heatmap(three_axes().sel(momentum=0.5)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(x="seed"), "x is 'seed'; one of 'learning_rate', 'batch_size', 'momentum' is needed"),
        (dict(x="momentum", columns="momentum"), "x is 'momentum', as columns is; another hyperparameter is needed"),
        (dict(rows="learning_rate"), "rows is 'learning_rate', which has 9 values; one with at most 8 is needed"),
    ],
)
def test_axes_that_cannot_be_drawn_are_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        jm.heatmap(three_axes(rates=np.linspace(0.1, 0.9, 9).tolist()), **asked)
    with pytest.raises(ValueError, match="result has the hyperparameters learning_rate; a map needs two"):
        jm.heatmap(make_result([0.5] * 2, [0.5] * 2, learning_rate=[0.1, 0.2], seed=0))


@pytest.mark.slow
def test_a_map_of_100_000_runs_is_small():
    accuracy = np.random.default_rng(0).uniform(0, 1, 100_000)
    result = make_result(
        accuracy, accuracy, learning_rate=np.geomspace(1e-3, 1, 100).tolist(), batch_size=list(range(1, 251)),
        seed=range(4),
    )  # fmt: skip
    for draw in (jm.heatmap, jm.scatter):
        file = io.BytesIO()
        draw(result).savefig(file, format="svg")
        assert len(file.getvalue()) < 2e6

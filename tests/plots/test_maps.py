import inspect
import io

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image
from test_curves import three_rates
from test_results import make_result
from test_scaling import curved
from test_statistics import make_curves

import jaxmnist as jm
from jaxmnist import checks
from jaxmnist.analysis import arguments, results
from jaxmnist.plots import panels
from jaxmnist.plots.style import Figure, write_caption
from jaxmnist.studies import boundary_figures

# Each would change a figure, or keep it from being drawn where there is no TeX.
ODD_SETTINGS = {
    "text.usetex": True,
    "font.size": 30,
    "font.family": "no such font",
    "axes.grid": True,
    "axes.facecolor": "green",
    "figure.facecolor": "yellow",
    "figure.dpi": 33,
    "savefig.dpi": 33,
    "savefig.bbox": "tight",
    "savefig.facecolor": "red",
    "xtick.labelsize": 30,
    "lines.linewidth": 9,
    "legend.frameon": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "another",
}


def grid_result(rates, sizes, num_seeds=2, diverged=()):
    count = len(rates) * len(sizes) * num_seeds
    accuracy = np.linspace(0.5, 0.9, count)
    steps = np.full(count, np.nan)
    steps[list(diverged)] = 3
    return make_result(accuracy, accuracy, steps, learning_rate=rates, batch_size=sizes, seed=range(num_seeds))


def texts(figure):
    axes = figure.axes[0]
    return [text.get_text() for text in axes.texts], axes.get_title(loc="left"), figure.get_supxlabel()


def test_heatmap_shows_the_mean_over_seeds_in_its_cell():
    result = grid_result([0.1, 0.2, 0.3], [10, 20])
    figure = jm.heatmap(result)
    (mesh, *_), axes = figure.axes[0].collections, figure.axes[0]
    mean = 100 * result["validation_accuracy"].mean("seed").transpose("batch_size", "learning_rate").values
    np.testing.assert_allclose(mesh.get_array(), mean)
    written = {tuple(np.round(text.get_position(), 6)): text.get_text() for text in axes.texts}
    assert written[0.1, 20] == f"{mean[1, 0]:.1f}" and len(written) == 6
    assert axes.get_xlabel() == "learning rate" and axes.get_ylabel() == "batch size (examples)"
    assert figure.axes[1].get_ylabel() == "validation accuracy (%)"


def test_figures_name_data_set_split_budget_and_seeds():
    result = grid_result([0.1, 0.2, 0.3], [10, 20])
    for figure, split in ((jm.heatmap(result), "validation"), (jm.scatter(result), "test")):
        _, title, caption = texts(figure)
        assert title == f"tiny, {split} split, equal steps: 3"
        assert "mean over 2 seeds, 95 % interval ±" in caption


def test_captions_name_the_hyperparameters_that_no_axis_shows():
    accuracy = np.linspace(0.5, 0.9, 4)
    axes = dict(learning_rate=[0.1, 0.2], batch_size=[10], seed=range(2), momentum=[0.9], activation=["tanh"])
    result = make_result(accuracy, accuracy, np.full(4, np.nan), **axes)
    for figure in (jm.heatmap(result), jm.scatter(result)):
        caption = texts(figure)[-1]
        assert "momentum 0.9, activation tanh; mean over 2 seeds" in caption.replace("\n", " ")
        assert "learning rate" not in caption and "batch size 10" not in caption


def test_a_caption_is_no_wider_than_its_figure():
    for width in (7.2, 10.5):
        figure = Figure(figsize=(width, 3), layout="constrained")
        # These words, which stand below a comparison of optimizers, have many wide letters.
        words = "batch size 100, momentum 0.9 (of momentum alone), weight decay 0.01 (of adamw alone)"
        write_caption(figure, "SoftmaxRegression", words, "", words, words)
        figure.savefig(io.BytesIO(), format="png")
        box = figure.texts[-1].get_window_extent()
        assert box.x0 > 0 and box.x1 < figure.bbox.width and "; ;" not in figure.get_supxlabel().replace("\n", " ")


def test_diverged_cells_are_never_coloured():
    result = grid_result([0.1, 0.2, 0.3], [10, 20], diverged=[0])
    figure = jm.heatmap(result)
    colored = figure.axes[0].collections[0].get_array()
    assert colored.mask.sum() == 1 and colored.mask[0, 0]
    labels, _, caption = texts(figure)
    assert "50 %" in labels and "hatched" in caption
    dots, crosses = jm.scatter(result).axes[0].collections
    assert len(dots.get_offsets()) == 5 and crosses.get_offsets().tolist() == [[0.1, 10]]


def test_one_seed_of_several_can_be_drawn():
    result = grid_result([0.1, 0.2, 0.3], [10, 20], num_seeds=3).sel(seed=0)
    for figure in (jm.heatmap(result), jm.scatter(result)):
        assert "1 seed" in figure.get_supxlabel()


def test_outliers_do_not_look_like_the_lower_end_of_the_scale():
    result = grid_result([0.1, 0.2, 0.3, 0.4], [10, 20])
    result["validation_accuracy"][0, 0] = 0.01
    mesh = jm.heatmap(result).axes[0].collections[0]
    assert mesh.norm(1.0) < 0 and tuple(mesh.cmap(-0.1)) != tuple(mesh.cmap(0.0))


def test_a_sample_is_drawn_at_its_values():
    accuracy = np.linspace(0.5, 0.9, 27)
    result = make_result(accuracy, accuracy, learning_rate=[0.01, 0.013, 1.0], batch_size=[8, 64, 16], seed=range(3))
    result = result.stack(run=result["test_loss"].dims).isel(run=[0, 12, 26]).reset_index("run")
    axes = jm.scatter(result).axes[0]
    assert axes.get_xscale() == "log"
    assert sorted(axes.collections[0].get_offsets().tolist()) == [[0.01, 8], [0.013, 16], [1.0, 64]]


def test_pruned_and_unfinished_cells_are_never_coloured():
    result = grid_result([0.1, 0.2, 0.3], [10, 20])
    result["pruned_step"] = result["diverged_step"].copy()
    result["pruned_step"][0, 0] = 4
    result.attrs["rungs"] = "4 8"
    figure = jm.heatmap(result)
    assert figure.axes[0].collections[0].get_array().mask.tolist() == [[True, False, False], [False] * 3]
    assert "dotted: pruned" in figure.get_supxlabel() and len(figure.axes[0].texts) == 5
    part = grid_result([0.1, 0.2, 0.3], [10, 20])
    part["finished"] = part["diverged_step"].isnull()
    part["finished"][1, 1, 0] = False
    part["validation_accuracy"][1, 1, 0] = np.nan
    mask = jm.heatmap(part).axes[0].collections[0].get_array().mask
    assert mask.tolist() == [[False] * 3, [False, True, False]]


def test_all_diverged_still_draws(tmp_path):
    result = grid_result([0.1, 0.2], [10, 20], diverged=range(8))
    for figure in (jm.heatmap(result), jm.scatter(result)):
        figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("rates", "scale", "note"),
    [
        ([0, 0.2, 0.4], "linear", ""),
        ([0.01, 0.1, 1], "log", ""),
        ([0.1, 0.3, 1], "log", ""),
        ([0, 0.001, 0.1, 1], "linear", ", values spaced evenly"),
        ([0.5], "linear", ""),
        ([0.1, 1.0], "linear", ""),
    ],
)
def test_axes_have_the_scale_of_their_values(rates, scale, note, tmp_path):
    figure = jm.heatmap(grid_result(rates, [8, 16, 32]))
    axes = figure.axes[0]
    assert axes.get_xscale() == scale and axes.get_yscale() == "log"
    assert axes.get_xlabel() == "learning rate" + note
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{rate:g}" for rate in rates]
    figure.savefig(tmp_path / "figure.png")


def test_large_maps_have_no_numbers_in_their_cells():
    assert not jm.heatmap(grid_result(np.geomspace(1e-3, 10, 17), range(8, 81, 8))).axes[0].texts


def test_outliers_below_do_not_take_the_colours():
    accuracy = [0.1, 0.1, 0.85, 0.86, 0.87, 0.88, 0.89, 0.9]
    result = make_result(accuracy, accuracy, learning_rate=range(8), batch_size=[10], seed=[0])
    mesh = jm.heatmap(result).axes[0].collections[0]
    assert mesh.norm.vmin == pytest.approx(85) and mesh.colorbar.extend == "min"


def test_a_scatter_refuses_what_it_cannot_show():
    result = make_result([0.5] * 4, [0.5] * 4, learning_rate=[1, 2], batch_size=[1], momentum=[0, 0.9], seed=[0])
    with pytest.raises(ValueError, match="several values of momentum, but the figure shows only learning_rate and"):
        jm.scatter(result)


def sample_result(**columns):
    """Returns a result of six runs that are no grid, each with a learning rate and a batch size of its own."""
    runs = dict(learning_rate=np.geomspace(0.01, 1, 6), batch_size=np.arange(1, 7), **columns, seed=np.zeros(6, int))
    accuracy = np.linspace(0.5, 0.9, 6)
    values = dict(
        validation_accuracy=accuracy, validation_loss=1 - accuracy, test_accuracy=accuracy,
        diverged_step=np.full(6, np.nan),
    )  # fmt: skip
    attrs = dict(dataset="tiny", num_validation=100, num_test=200, budget="equal steps: 3", model="M()", optimizer="o")
    return results.label(runs, values, [0, 3], attrs)


@pytest.mark.parametrize(
    "hidden",
    [
        dict(momentum=np.linspace(0, 0.9, 6)),
        dict(optimizer=np.array(["sgd", "adam"] * 3)),
        dict(nesterov=np.array([False, True] * 3), hidden_size=np.arange(6)),
    ],
)
def test_a_sample_whose_settings_differ_in_more_is_no_scatter(hidden):
    constant = {name: np.repeat(values[:1], 6) for name, values in hidden.items()}
    assert len(jm.scatter(sample_result(**constant)).axes[0].collections[0].get_offsets()) == 6
    with pytest.raises(ValueError, match=f"several values of {', '.join(hidden)}, but the figure shows only"):
        jm.scatter(sample_result(**hidden))


def test_every_figure_shows_as_a_picture_in_a_notebook():
    functions = filter(inspect.isfunction, [boundary_figures.figure, *(getattr(jm, name) for name in jm.__all__)])
    returned = [inspect.signature(function).return_annotation for function in functions]
    figures = [kind for kind in returned if inspect.isclass(kind) and issubclass(kind, matplotlib.figure.Figure)]
    assert len(figures) > 12 and set(figures) == {Figure}
    figure = jm.heatmap(grid_result([0.1, 0.2, 0.3], [10, 20]))
    with Image.open(io.BytesIO(figure._repr_png_())) as picture:
        assert picture.format == "PNG" and picture.size == (720, 460)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: jm.heatmap(grid_result([0.1, 0.2, 0.3], [10, 20], diverged=[0])),
        pytest.param(lambda: jm.scatter(grid_result([0.1, 0.2, 0.3], [10, 20])), marks=pytest.mark.slow),
        pytest.param(lambda: jm.target_maps(curved(), 0.6), marks=pytest.mark.slow),
        pytest.param(lambda: jm.curves(three_rates()), marks=pytest.mark.slow),
        lambda: jm.confusion(np.array([0, 1]), np.array([1, 1]), ["a", "b"], "title"),
    ],
)
def test_a_figure_is_the_same_whatever_the_settings_of_matplotlib(draw):
    def drawn():
        figure, files = draw(), [io.BytesIO(), io.BytesIO()]
        figure.savefig(files[0], format="svg", metadata={"Date": None})
        figure.savefig(files[1], format="png", dpi=150)
        return [figure._repr_png_(), *(file.getvalue() for file in files)]

    expected = drawn()
    with mpl.rc_context(ODD_SETTINGS):
        before = {name: mpl.rcParams[name] for name in ODD_SETTINGS}
        assert drawn() == expected
        assert {name: mpl.rcParams[name] for name in ODD_SETTINGS} == before


def test_the_confusion_matrix_counts_every_image():
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 0])
    figure = jm.confusion(labels, predicted, ["a", "b", "c"], "test split")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1", "1", "0", "0", "1", "0", "2", "0", "1"] and "3 wrong" in figure.axes[0].get_title("left")


def test_mistakes_name_both_classes_and_their_probabilities():
    images, probabilities = np.zeros((2, 6, 5, 1), np.uint8), np.array([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    figure = jm.mistakes(images, np.array([0, 2]), probabilities, ["a", "b", "c"], "test split")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["taken for b: 70.0 %\ntrue a: 20.0 %", "true c: 70.0 %"] and len(titles) == 25


def test_curves_leave_out_step_0_and_have_a_line_per_seed():
    rows = [
        dict(seed=seed, step=step, validation_loss=1 / (1 + step), validation_accuracy=0.5 + step / 100)
        for seed in (4, 7)
        for step in (0, 10, 20)
    ]
    loss, error = jm.training_curves(rows, "digits").axes
    assert len(loss.lines) == len(error.lines) == 2
    np.testing.assert_allclose(error.lines[0].get_xydata(), [[10, 40], [20, 30]])
    assert "steps" in error.get_xlabel() and "%" in error.get_ylabel() and "nats" in loss.get_ylabel()


def test_filters_show_each_kernel_once():
    kernel = np.random.default_rng(0).normal(size=(5, 5, 1, 11))
    shown = [axes.images[0].get_array() for axes in jm.filters(kernel, "kernels").axes if axes.images]
    np.testing.assert_array_equal(np.stack(shown[:11], axis=-1), kernel[:, :, 0])


def test_settings_as_good_as_the_best_are_outlined_and_dashed_where_that_cannot_be_told():
    accuracy = np.array(
        [[0.9, 0.91, 0.92, 0.93], [0.9001, 0.9099, 0.9201, 0.9299], [0.5, 0.51, 0.52, 0.53], [0.85, 0.9, 0.8, 0.87]]
    )
    rates = [0.1, 0.2, 0.3, 0.4]
    result = make_result(accuracy.ravel(), accuracy.ravel(), learning_rate=rates, batch_size=8, seed=range(4))
    figure = jm.heatmap(result)
    outlines = [patch for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] == (0, 0, 0)]
    drawn = {round(patch.get_x() + patch.get_width() / 2, 6): patch.get_linestyle() for patch in outlines}
    assert drawn == {0.1: "-", 0.2: "-", 0.4: panels.DASHED}
    words = figure.get_supxlabel().replace("\n", " ")
    assert (
        "solid outline: as good as the best on validation, within 0.5 points; dashed outline: cannot be told" in words
    )
    alone = jm.heatmap(result.sel(seed=0))
    assert len({patch.get_xy() for patch in alone.axes[0].patches}) == 1 and "dashed" not in alone.get_supxlabel()


def test_scaling_lines_go_through_the_best_of_the_smallest_batch():
    rates, sizes = [0.01, 0.1, 1.0], [10, 100, 1000]
    accuracy = np.full((3, 3), 0.5)
    accuracy[1, 0] = 0.9
    result = make_result(accuracy.ravel(), accuracy.ravel(), learning_rate=rates, batch_size=sizes, seed=0)
    lines = {line.get_linestyle(): line for line in jm.heatmap(result).axes[0].lines}
    for style, power in (("--", 1.0), (":", 0.5)):
        x, y = lines[style].get_data()
        assert (x[0], y[0]) == pytest.approx((0.1, 10))
        np.testing.assert_allclose(np.log(x / 0.1), power * np.log(y / 10), atol=1e-9)


def test_dead_settings_are_marked_whatever_the_order_of_dims():
    loss = np.full((1, 3, 2, 2, 4), 1.0)
    loss[0, 2, 1, 0] = [3.2, 2.9, np.log(10), np.log(10)]  # learning rate 0.3, batch size 20, one of its seeds
    accuracy = np.full((12, 4), 0.5)
    result = make_curves(
        accuracy, loss.reshape(12, 4), steps=[0, 5, 10, 20], momentum=0.9, learning_rate=[0.1, 0.2, 0.3],
        batch_size=[10, 20], seed=range(2),
    )  # fmt: skip
    figure = jm.heatmap(result)
    assert [text.get_position() for text in figure.axes[0].texts if "dead" in text.get_text()] == [(0.3, 20)]
    assert "stuck at log(classes)" in figure.get_supxlabel().replace("\n", " ")


def test_a_heat_map_checks_once_and_parses_the_axes_once(monkeypatch):
    rates, sizes = [0.1 * 1.2**i for i in range(20)], list(range(8, 168, 8))
    result = grid_result(rates, sizes)
    calls = {"checks": 0, "parses": 0}

    def counted(name, function):
        def count(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    for kind in (checks.Kind, checks.Optional, arguments.IsResult):
        monkeypatch.setattr(kind, "check", counted("checks", kind.check))
    for name in ("check_result", "check_shown", "_check_axes"):
        monkeypatch.setattr(arguments, name, counted("checks", getattr(arguments, name)))
    monkeypatch.setattr(arguments.json, "loads", counted("parses", arguments.json.loads))
    arguments._parse.cache_clear()
    jm.heatmap(result)
    assert 1 <= calls["checks"] <= 20 and calls["parses"] == 1


def test_the_interval_of_a_map_is_not_cut_where_an_accuracy_ends():
    result = make_result([0.8, 1.0], [0.8, 1.0], learning_rate=0.1, batch_size=10, seed=range(2))
    half_width = 100 * jm.settings(result)["validation_accuracy_half_width"].iloc[0]
    assert half_width > 100
    for figure in (jm.heatmap(result), jm.scatter(result, "validation")):
        assert f"±{half_width:.1f} points" in " ".join(figure.get_supxlabel().split())

import numpy as np
import pytest
from scipy import stats
from test_results import make_result, with_curves

import jaxmnist as jm

SPLITS = ("train", "validation", "test")


def recorded(curves, diverged=None, **axes):
    """Returns a result with these curves, their loss one less them, on every split."""
    curves = np.asarray(curves, float)
    last = curves[:, -1]
    result = make_result(last, last, diverged, **axes)
    for split in SPLITS:
        result = with_curves(result, curves, split)
        result = with_curves(result, 1 - curves, split, "loss")
    return result


def one_setting(num_steps=2, num_seeds=2):
    rise = 1 - 0.9 / (1 + np.arange(num_steps))
    curves = np.stack([rise + 0.01 * seed * (np.arange(num_steps) > 0) for seed in range(num_seeds)])
    return recorded(curves, learning_rate=[0.1], batch_size=[10], seed=range(num_seeds))


def three_rates(diverged=None):
    curves = np.repeat([[0.1, 0.5, 0.7], [0.1, 0.6, 0.8], [0.1, 0.7, 0.9]], 2, axis=0)
    curves[1::2, 1:] += 0.02
    return recorded(curves, diverged, learning_rate=[0.1, 0.5, 1], batch_size=[10], seed=[0, 1])


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def means(axes):
    return [line for line in axes.lines if line.get_linewidth() > 1]


def band(axes, place=0):
    return axes.collections[place].get_paths()[0].get_extents()


def test_curve_shows_mean_and_spread():
    result = recorded([[0.1, 0.5], [0.1, 0.7]], learning_rate=[0.1], batch_size=[10], seed=[0, 1])
    figure = jm.accuracy_curve(result)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 10], [10, 60]])
    assert band(axes).y1 == pytest.approx(60 + 100 * np.std([0.5, 0.7], ddof=1))
    assert axes.get_ylabel() == "test accuracy (%)" and axes.get_xlabel() == "training steps"
    assert axes.get_title(loc="left") == "tiny, test split, equal steps: 3" and not figure.legends
    assert "learning rate 0.1, batch size 10; mean and one standard deviation over 2 seeds" in caption(figure)


def test_the_band_can_be_students_interval():
    values = [0.5, 0.7, 0.65]
    result = recorded([[0.1, value] for value in values], learning_rate=[0.1], batch_size=[10], seed=range(3))
    figure = jm.accuracy_curve(result, band="half_width")
    _, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert band(figure.axes[0]).y1 == pytest.approx(100 * high)
    assert "mean and 95 % t interval over 3 seeds" in caption(figure)


def test_every_setting_has_its_line_and_can_be_told_without_colour():
    figure = jm.accuracy_curve(three_rates())
    lines = figure.axes[0].lines
    assert [line.get_ydata()[-1] for line in lines] == pytest.approx([71, 81, 91])
    assert legend(figure) == ["learning rate 0.1", "learning rate 0.5", "learning rate 1"]
    assert len({line.get_marker() for line in lines}) == len({str(line._unscaled_dash_pattern) for line in lines}) == 3
    lightness = [np.dot([0.2126, 0.7152, 0.0722], line.get_color()[:3]) for line in lines]
    assert np.diff(sorted(lightness)).min() > 0.1
    assert figure.legends[0].get_title().get_text() == "tiny, test split, equal steps: 3"


def test_what_comes_late_is_drawn_larger_on_linear_axes_alone():
    result = one_setting(30)
    axes = jm.accuracy_curve(result).axes[0]
    (zoomed,) = axes.child_axes
    assert zoomed.lines[0].get_xdata()[0] == 60 and len(zoomed.lines[0].get_xdata()) == 24
    assert not jm.accuracy_curve(result, log_log=True).axes[0].child_axes


def test_log_log_shows_the_error_without_step_0():
    result = recorded([[0.1, 0.5, 0.9], [0.1, 0.7, 0.9]], learning_rate=[0.1], batch_size=[10], seed=[0, 1])
    figure = jm.accuracy_curve(result, "validation", log_log=True)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[10, 40], [20, 10]])
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_ylabel() == "validation error (%)"
    assert "step 0 left out" in caption(figure)


def test_learning_curves_of_one_setting_have_a_line_per_split():
    figure = jm.curves(one_setting())
    accuracy, loss = figure.axes
    assert legend(figure) == ["training", "validation", "test"] and len(means(accuracy)) == len(means(loss)) == 3
    assert accuracy.get_ylabel() == "accuracy (%)" and loss.get_ylabel() == "loss (nats per example)"
    np.testing.assert_allclose(means(loss)[2].get_xydata(), [[0, 0.9], [10, 0.445]])
    assert "2 seeds" in caption(figure)


def test_learning_curves_of_several_settings_have_a_panel_per_split():
    figure = jm.curves(three_rates(), log_log=True)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["training split", "validation split", "test split"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["error (%)", "", "", "loss (nats per example)", "", ""]
    assert all(len(means(axes)) == 3 and axes.get_yscale() == "log" for axes in figure.axes)
    np.testing.assert_allclose(means(figure.axes[5])[1].get_xydata(), [[10, 0.39], [20, 0.19]])


def test_linear_learning_curves_say_what_lies_outside_the_axes():
    result = one_setting(30)
    figure = jm.curves(result)
    assert "before step 29, curves lie outside the axes" in caption(figure)
    low, high = figure.axes[0].get_ylim()
    mean = 100 * result["recorded_train_accuracy"].mean("seed").values.ravel()
    assert mean[0] < low < mean[3] and mean[-1] < high
    assert "outside" not in caption(jm.curves(result, log_log=True))
    assert "outside" not in caption(jm.curves(one_setting(4)))
    # Within the axes, nothing is cut off.
    flat = result.copy(deep=True)
    for name in ("recorded_train_accuracy", "recorded_validation_accuracy", "recorded_test_accuracy"):
        flat[name][...] = 0.5 + 0.01 * flat["seed"].values[:, None]
    assert "outside" not in caption(jm.curves(flat, metrics="accuracy"))


def test_the_axis_of_an_accuracy_goes_from_0_to_100_percent_at_most_and_so_does_its_band():
    result = one_setting()
    result["recorded_test_accuracy"][...] = np.stack([np.full(2, 0.05), np.full(2, 0.95)]).reshape(
        result["recorded_test_accuracy"].shape
    )
    axes = jm.curves(result, splits=["test"], metrics="accuracy").axes[0]
    assert axes.get_ylim() == (0, 100)
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0 and band.get_paths()[0].vertices[:, 1].max() == 100


def test_lines_end_where_a_run_diverges_and_the_figure_says_so():
    result = three_rates([np.nan] * 4 + [np.nan, 15])
    figure = jm.accuracy_curve(result)
    last = [line.get_ydata()[-1] for line in figure.axes[0].lines]
    assert last[:2] == pytest.approx([71, 81]) and np.isnan(last[2])
    assert legend(figure)[2] == "learning rate 1 (1 of 2 runs diverged)" and legend(figure)[0] == "learning rate 0.1"
    assert "1 of 6 runs diverged" in caption(figure)
    assert "1 of 6 runs diverged" in caption(jm.curves(result))


@pytest.mark.parametrize("log_log", [False, True])
def test_one_setting_that_diverged_has_a_note_and_no_accuracy(log_log, tmp_path):
    result = recorded(np.full((2, 12), 0.1), [1, 1], learning_rate=[1e6], batch_size=[10], seed=[0, 1])
    for figure in (jm.accuracy_curve(result, log_log=log_log), jm.curves(result, log_log=log_log)):
        axes = figure.axes[0]
        assert all(np.isnan(line.get_ydata()).all() for line in axes.lines)
        assert [text.get_text() for text in axes.texts] == ["2 of 2 runs diverged"]
        assert "2 of 2 runs diverged" in caption(figure)
        figure.savefig(tmp_path / "figure.png")


def test_an_error_of_0_is_no_harm_to_logarithmic_axes(tmp_path):
    result = recorded([[0.1, 0.9, 1, 1], [0.1, 1, 1, 1]], learning_rate=[1], batch_size=[10], seed=[0, 1])
    for figure in (jm.accuracy_curve(result, log_log=True), jm.curves(result, log_log=True)):
        figure.savefig(tmp_path / "figure.png")


def test_bands_on_logarithmic_axes_stay_above_zero(tmp_path):
    curves = [[0.1, 0.2, 0.3], [0.1, 0.99, 0.999]]
    figure = jm.accuracy_curve(
        recorded(curves, learning_rate=[1], batch_size=[10], seed=[0, 1]), log_log=True, band="half_width"
    )
    assert band(figure.axes[0]).y0 > 0
    figure.savefig(tmp_path / "figure.png")


def test_curves_need_a_result_alone_and_draw_each_seed_beside_mean_and_interval():
    result = three_rates().drop_vars(
        [f"recorded_{split}_{name}" for split in ("train", "test") for name in ("accuracy", "loss")]
    )
    figure = jm.curves(result)
    accuracy, loss = figure.axes
    thin = [line for line in accuracy.lines if line.get_linewidth() < 1]
    curves = 100 * result["recorded_validation_accuracy"].squeeze("batch_size").transpose(
        "learning_rate", "seed", "step"
    )
    np.testing.assert_allclose([line.get_ydata() for line in thin], curves.values.reshape(6, 3))
    np.testing.assert_allclose([line.get_ydata() for line in means(accuracy)], curves.mean("seed"))
    _, high = stats.t.interval(0.95, 1, 71, stats.sem([70, 72]))
    assert band(accuracy).y1 == pytest.approx(high) and len(means(loss)) == 3
    assert "mean and 95 % t interval over 2 seeds; thin: each seed" in caption(figure)
    alone = jm.curves(result.sel(seed=0)).axes[0]
    assert len(alone.lines) == 3 and "thin" not in caption(jm.curves(result.sel(seed=0)))


def test_a_seed_ends_where_it_diverges_and_the_others_go_on():
    axes = jm.curves(three_rates([np.nan] * 4 + [np.nan, 15]), splits=["test"]).axes[0]
    thin = [line.get_ydata() for line in axes.lines if line.get_linewidth() < 1]
    assert np.isnan(thin[5]).tolist() == [False, False, True] and np.isfinite(np.concatenate(thin[:5])).all()


SELECTIONS = [
    (dict(learning_rate=0.5), [81]),
    ([dict(learning_rate=1.0), dict(learning_rate=0.5, batch_size=10)], [91, 81]),
    (jm.settings(three_rates()).head(2), [91, 81]),
    (dict(batch_size=10), [71, 81, 91]),
]


@pytest.mark.parametrize(("settings", "ends"), SELECTIONS)
@pytest.mark.parametrize("stacked", [False, True])
def test_curves_of_any_selection_of_settings(settings, ends, stacked):
    result = three_rates()
    result = result.stack(run=["learning_rate", "batch_size", "seed"]) if stacked else result
    figure = jm.curves(result, settings, splits=["test"], metrics="accuracy")
    assert [line.get_ydata()[-1] for line in means(figure.axes[0])] == pytest.approx(ends)


def test_too_many_settings_are_the_best_of_them():
    final = np.linspace(0.5, 0.9, 10)
    curves = np.stack([np.full(10, 0.1), final], axis=1)
    result = recorded(curves, learning_rate=np.linspace(0.1, 1, 10).tolist(), batch_size=[10], seed=[0])
    figure = jm.curves(result, splits=["test"], metrics="accuracy")
    assert [line.get_ydata()[-1] for line in means(figure.axes[0])] == pytest.approx(100 * final[:1:-1])
    assert "the 8 best of 10 settings on validation" in caption(figure)


def test_settings_that_are_not_there_are_named():
    for settings, said in (
        (dict(learning_rate=0.25), r"settings has {'learning_rate': 0.25}; values that a run of the result has"),
        (dict(momentum=0.9), r"settings names \['momentum'\]; some of learning_rate, batch_size are needed"),
        ([], "a sequence of such dictionaries, or rows of a table is needed"),
    ):
        with pytest.raises(ValueError, match=said):
            jm.curves(three_rates(), settings)

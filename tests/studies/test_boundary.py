import functools

import jax
import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.core.state import init_state
from jaxmnist.studies import boundary, boundary_figures

AXES = ("first_learning_rate", "last_learning_rate")


@pytest.fixture(scope="module")
def small():
    return boundary.averaged(jm.load("digits"))


def sweep(small, axes=AXES, window=(-1, 3, -1, 3), resolution=4, num_steps=25):
    return jm.sweep(
        boundary.TanhNetwork(), boundary.layered_sgd, boundary.grid(axes, window, resolution), small,
        num_steps=num_steps, num_evaluations=num_steps, record=("train",), progress=False,
    )  # fmt: skip


def test_images_are_averaged_over_blocks(small):
    images = jm.load("digits").train.inputs[:16].astype(float)
    assert small.train.inputs.shape == (16, 4, 4, 1) and small.train.inputs.dtype == np.uint8
    np.testing.assert_array_equal(small.train.inputs[3, 1, 2, 0], np.round(images[3, 7:14, 14:21].mean()))
    assert small.train is small.test and small.name == "digits"
    few = jm.Split(images[:5], small.train.targets[:5])
    with pytest.raises(jm.DataError, match="digits has 5 images"):
        boundary.averaged(jm.Dataset("digits", small.class_names, few, few, few))


def test_blocks_of_uneven_sizes_and_colours():
    images = np.random.default_rng(0).integers(0, 256, (16, 6, 5, 3)).astype(np.uint8)
    split = jm.Split(images, np.zeros(16, np.int32))
    averaged = boundary.averaged(jm.Dataset("other", ("a", "b"), split, split, split)).train.inputs
    assert averaged[0, 0, 3, 0] == np.round(images[0, :2, 4:].mean())


@pytest.mark.slow
def test_a_run_of_the_picture_is_that_run_by_itself(small):
    result = sweep(small)
    losses = result["recorded_train_loss"].squeeze()
    split, order = jax.device_put(small.train), jm.example_order(16, 0, 25 * 16)

    @jax.jit
    def losses_alone(rates):
        model, optimizer = boundary.TanhNetwork(), boundary.layered_sgd(**rates)
        state = init_state(model, optimizer, 0, split.inputs)
        return jm.fit(model, optimizer, state, split, order, 16, num_steps=25)[1]

    for i, j in ((0, 0), (3, 0), (1, 2), (2, 3)):
        alone = losses_alone({name: float(result[name][k]) for name, k in zip(AXES, (i, j), strict=True)})
        # Full batch: the batch losses before each step are the recorded ones. Rounding grows where training is chaotic.
        swept = losses.isel({AXES[0]: i, AXES[1]: j}).values
        np.testing.assert_allclose(swept[:10], alone[:10], rtol=2e-4, atol=1e-5)


def test_the_pictures_rows_are_the_grids(small):
    result = sweep(small, window=(-1, 0, 0, 3))
    measure = boundary.picture(result, AXES)
    assert result[AXES[0]].values.astype(np.float32).tolist() == boundary.points(AXES[0], -1, 0, 4).tolist()
    for row, column in ((0, 3), (2, 1)):
        run = result.isel({AXES[0]: column, AXES[1]: row}).squeeze()
        alone = boundary.convergence_measure(run["recorded_train_loss"].values, result["step"].values)
        assert measure[row, column] == alone
    np.testing.assert_array_equal(boundary.picture(result, AXES[::-1]), measure.T)


def test_each_learning_rate_moves_its_layer_alone(small):
    model = boundary.TanhNetwork()
    state = init_state(model, boundary.layered_sgd(), 0, small.train.inputs)
    for name, moved in (("first_learning_rate", "first"), ("last_learning_rate", "last")):
        rates = {"first_learning_rate": 0.0, "last_learning_rate": 0.0} | {name: 0.5}
        optimizer = boundary.layered_sgd(**rates)
        state = init_state(model, optimizer, 0, small.train.inputs)
        step = jax.jit(functools.partial(jm.train_step, model, optimizer))
        after, _ = step(state, jm.Batch(*small.train, np.ones(16, np.float32)))
        for layer in ("first", "last"):
            same = np.array_equal(after.params[layer], state.params[layer])
            assert same == (layer != moved)


@pytest.mark.parametrize("axes", [("learning_rate", "init_scale"), ("momentum", "last_learning_rate")])
def test_other_axes(small, axes):
    window = boundary.default_window(axes)
    losses = sweep(small, axes, window, 3, num_steps=5)["recorded_train_loss"]
    assert losses.sizes[axes[0]] == losses.sizes[axes[1]] == 3 and np.isfinite(losses.isel(step=0)).all()
    if "init_scale" in axes:
        same = [len(np.unique(losses.isel(step=0, init_scale=i))) for i in range(3)]
        assert same == [1, 1, 1] and len(np.unique(losses.isel(step=0, learning_rate=0))) == 3


def test_axes_that_make_no_picture():
    for axes, words in (
        (("momentum", "momentum"), "momentum twice"),
        (("learning_rate", "last_learning_rate"), "sets the rates of both layers"),
    ):
        with pytest.raises(ValueError, match=words):
            boundary.grid(axes, (-1, 1, -1, 1), 4)


def test_measure_of_curves_made_by_hand():
    steps = np.arange(0, 101, 5)
    halved = np.where(steps == 0, 2.0, 1.0)
    doubled = np.where(steps == 0, 2.0, 4.0)
    infinite = np.where(steps < 50, 2.0, np.inf)
    unknown = np.where(steps < 50, 2.0, np.nan)
    huge = np.where(steps < 50, 2.0, 1e30)
    oscillating = np.where(steps >= 80, np.where(steps % 10 == 0, 3.8, 0.1), 2.0)
    # A spike before the last 20 steps is forgiven.
    spike = np.where(steps == 50, 1e9, halved)
    curves = np.stack([halved, doubled, infinite, unknown, huge, oscillating, spike])
    measure = boundary.convergence_measure(curves, steps)
    assert measure[0] == pytest.approx(-100 * (1 + 20 * 0.5) / 21)
    assert measure[1] == pytest.approx(100 * (1 + 20 * 0.5) / 21)
    assert measure[2] == measure[3] == measure[4] == pytest.approx(100 * (10 + 11e-6) / 21)
    assert measure[5] > 0  # mean of 3.8, 0.1, 3.8, 0.1, 3.8: above 2
    assert measure[6] == pytest.approx(-100 * (1 + 19 * 0.5 + 1e6) / 21)
    # Faster is closer to zero, on both sides.
    fast, slow = 2.0 * np.exp(-steps / 5), 2.0 * np.exp(-steps / 50)
    assert boundary.convergence_measure(slow, steps) < boundary.convergence_measure(fast, steps) < 0
    assert 0 < boundary.convergence_measure(4 / fast, steps) < boundary.convergence_measure(4 / slow, steps)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 40, 100, 101, 250, 500, 1000, 12345])
def test_records_see_both_phases_of_an_oscillation(num_steps):
    num_evaluations = boundary.num_records(num_steps)
    assert 1 <= num_evaluations <= min(num_steps, boundary.MAX_RECORDS)
    recorded = np.array([round(i * num_steps / num_evaluations) for i in range(num_evaluations + 1)])
    assert recorded[-1] == num_steps
    assert set(recorded % 2) == {0, 1}
    if num_steps == 500:
        assert num_evaluations == 100


def test_points_that_float32_cannot_tell_apart_are_refused():
    values = boundary.points("learning_rate", 0, 1e-4, 256)
    assert values.dtype == np.float32 and (np.diff(values) > 0).all() and len(values) == 256
    # A power of ten changes by 256 float32 gaps over 1.3e-5 in log10 units, near 1.
    with pytest.raises(ValueError, match="same float32 number"):
        boundary.points("learning_rate", 0, 1e-5, 256)
    with pytest.raises(ValueError, match="same float32 number"):
        boundary.points("momentum", 0.9, 0.9 + 1e-6, 256)
    boundary.points("momentum", 0.0, 1e-6, 256)
    for name, low, high, words in (
        ("learning_rate", 30, 40, "beyond float32"),
        ("learning_rate", -39, -38, "beyond float32"),
        ("learning_rate", 1, 1, "begins below its end"),
        ("learning_rate", float("nan"), 1, "begins below its end"),
        ("momentum", 0.5, 1.5, "lies from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            boundary.points(name, low, high, 8)


def test_as_many_frames_as_are_let_through_can_be_told_apart():
    window = (-2.0, 4.0, -2.0, 4.0)
    with pytest.raises(ValueError, match="10 is the most"):
        boundary.check_frames(AXES, window, 256, 30, 4.0)
    boundary.check_frames(AXES, window, 256, 10, 4.0)
    generator = np.random.default_rng(0)
    width = 6 / 4**9
    for place in generator.uniform(-2, 4 - width, 100):
        boundary.points(AXES[0], place, place + width, 256)


def test_boundary_lies_where_neighbours_do_not_agree():
    measure = np.full((8, 8), -1.0)
    assert not boundary.boundary(measure).any()
    measure[:, 5:] = 1.0
    edges = boundary.boundary(measure)
    assert edges[:7, 4].all() and edges.sum() == 7


def test_the_window_zooms_onto_the_boundary():
    y, x = np.mgrid[:64, :64]
    measure = np.where(np.hypot(x - 20, y - 30) < 12, -1.0, 1.0)
    window = (-2.0, 4.0, 0.0, 1.0)
    x0, x1, y0, y1 = boundary.zoomed(measure, window, 4.0)
    assert x1 - x0 == pytest.approx(6 / 4) and y1 - y0 == pytest.approx(1 / 4)
    assert x0 >= -2 and x1 <= 4 and y0 >= 0 and y1 <= 1
    column, row = ((x0 + x1) / 2 + 2) / 6 * 64, (y0 + y1) / 2 * 64
    assert column == pytest.approx(round(column)) and row == pytest.approx(round(row))
    around = measure[round(row) - 1 : round(row) + 1, round(column) - 1 : round(column) + 1] < 0
    assert around.any() and not around.all()
    with pytest.raises(ValueError, match="no boundary"):
        boundary.zoomed(np.ones((8, 8)), window, 4.0)


def test_a_boundary_at_the_very_edge_stays_inside():
    measure = np.ones((16, 16))
    measure[0, 0] = -1
    assert boundary.zoomed(measure, (0.0, 1.0, 0.0, 1.0), 4.0) == (0.0, 0.25, 0.0, 0.25)


def lightness(rgb):
    """Returns relative luminance to the power of CIE lightness, 0 to 100."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_colours_tell_both_kinds_apart_in_greyscale():
    speeds = np.random.default_rng(0).permutation(np.arange(1.0, 201)).reshape(10, 20)
    measure = np.concatenate([-speeds, speeds])
    light = lightness(boundary_figures.colors(measure))
    assert light[:10].min() - light[10:].max() > 20
    # Each half is monotone, and they meet where both are slow: the palest and the darkest.
    by_speed = np.argsort(speeds, axis=None)
    assert (np.diff(light[:10].ravel()[by_speed]) > 0).all()
    assert (np.diff(light[10:].ravel()[by_speed]) < 0).all()
    # Runs of the same speed have the same colour.
    assert len(np.unique(boundary_figures.colors(np.full((4, 4), -3.0)).reshape(-1, 3), axis=0)) == 1


def test_the_figure_says_what_it_shows(small):
    result = sweep(small)
    figure = boundary_figures.figure(result, AXES, (-1, 3, -1, 3), "16 hidden units", "frame 1 of 2")
    axes = figure.axes[0]
    title = axes.get_title(loc="left")
    assert "digits, 16 training images averaged to 4x4, equal steps: 25, 16 runs" in title and "frame 1 of 2" in title
    assert (axes.get_xlabel(), axes.get_ylabel()) == tuple(boundary.AXES[name].words for name in AXES)
    np.testing.assert_allclose(axes.images[0].get_array(), boundary_figures.colors(boundary.picture(result, AXES)))
    share = (boundary.picture(result, AXES) < 0).mean()
    assert f"{100 * share:.1f} % of the runs converge" in figure.get_supxlabel().replace("\n", " ")
    narrow = boundary_figures.figure(result, AXES, (1, 1.002, 1, 1.002)).axes[0]
    assert "distance from 1.001" in narrow.get_xlabel() and "log10" in narrow.get_xlabel()


def test_a_picture_without_divergence_can_be_drawn(small, tmp_path):
    result = sweep(small, window=(-2, -1, -2, -1))
    assert (boundary.picture(result, AXES) < 0).all()
    boundary_figures.figure(result, AXES, (-2, -1, -2, -1)).savefig(tmp_path / "figure.png")


def test_results_that_are_no_picture(small):
    result = sweep(small)
    for wrong in (result.drop_vars("recorded_train_loss"), result.isel(first_learning_rate=0)):
        with pytest.raises(ValueError, match="a picture needs a sweep over"):
            boundary.picture(wrong, AXES)
    result["finished"] = result["diverged_step"].notnull()
    with pytest.raises(ValueError, match="not finished"):
        boundary.picture(result, AXES)

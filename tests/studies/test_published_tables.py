"""The published tables of the fractal boundary and of MNIST-1D."""

import jax
import numpy as np
import optax
import pytest
from scripts_for_tests import run

import jaxmnist as jm
from jaxmnist.studies import dimension, fractal, published_fractal, published_mnist1d
from jaxmnist.studies.boundary import boundary

SHAPES = {"logistic regression": 410, "MLP": 78_858, "CNN": 5_210, "GRU": 5_110}


def disc(resolution, radius):
    """Returns a measure that is negative within a circle."""
    y, x = np.mgrid[:resolution, :resolution]
    return np.where(np.hypot(x - resolution / 2, y - resolution / 2) < radius * resolution, -1.0, 1.0)


def test_the_fractal_table_has_both_estimators_for_each_condition(monkeypatch, tmp_path):
    measures = [disc(64, 0.3), disc(64, 0.4), np.ones((64, 64))]  # the last has no boundary
    asked = []
    monkeypatch.setattr(fractal, "zoom", lambda *given, folder, progress: asked.append((*given, folder)) or measures)
    table = published_fractal.fractal_table(False, tmp_path, False)
    assert asked == [(name, 64, 3, tmp_path / name) for name in fractal.CONDITIONS]
    assert [row.theirs for row in table.rows[::2]] == [1.17, 1.20, 1.41, 1.55, 1.66, 1.98]
    assert all(row.theirs is None and row.inside is None for row in table.rows[1::2])
    sets = [boundary(measure) for measure in measures[:2]]
    median = dimension.median_slope([pixels[:-1, :-1] for pixels in sets])
    slopes = [dimension.box_dimension(pixels).dimension for pixels in sets]
    assert table.rows[0].ours == median and table.rows[1].ours.mean == pytest.approx(np.mean(slopes))
    assert table.rows[1].ours.words == "95 % t interval over 2 pictures"
    assert "3 pictures of 64 x 64 runs" in table.budget


def test_the_notes_say_what_the_same_pictures_give_at_fewer_points():
    measures = [disc(256, 0.3), disc(256, 0.4)]
    rows = published_fractal.dimension_rows("tanh", measures, 5.0)
    coarse = dimension.median_slope([boundary(measure[::4, ::4])[:-1, :-1] for measure in measures])
    assert rows[0].note.startswith(f"{coarse.mean:.3f} at 64, ") and rows[0].note.endswith(" at 128 points an axis")
    assert [row.seconds for row in rows] == [5.0, 0.0] and rows[0].name == "tanh, full batch"


@pytest.mark.parametrize("name", SHAPES)
def test_the_models_of_mnist1d_have_the_sizes_of_their_source(name):
    model, inputs = published_mnist1d.MODELS[name], np.zeros((2, 40), np.float32)
    outputs, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), inputs))
    assert outputs.shape == (2, 10)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == SHAPES[name]


def planted(num_train=60):
    """Returns examples whose label is the place of the largest of the first ten numbers."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(num_train + 40, 40)).astype(np.float32)
    targets = inputs[:, :10].argmax(axis=1).astype(np.int32)
    parts = [slice(0, num_train), slice(num_train, num_train + 20), slice(num_train + 20, None)]
    return jm.Dataset("mnist1d", tuple("0123456789"), *(jm.Split(inputs[rows], targets[rows]) for rows in parts))


def test_places_are_shuffled_alike_in_all_examples():
    dataset = planted()
    shuffled = published_mnist1d.shuffled(dataset)
    (place,) = np.flatnonzero((shuffled.train.inputs == dataset.train.inputs[:, :1]).all(axis=0))
    assert place != 0
    np.testing.assert_array_equal(shuffled.test.inputs[:, place], dataset.test.inputs[:, 0])
    np.testing.assert_array_equal(np.sort(shuffled.test.inputs), np.sort(dataset.test.inputs))
    assert shuffled.name == "mnist1d_shuffled" and shuffled.validation.targets is dataset.validation.targets


def test_a_rate_is_chosen_on_validation_and_trained_on_all_examples(monkeypatch, tmp_path):
    monkeypatch.setattr(published_mnist1d, "BATCH_SIZE", 20)
    monkeypatch.setattr(published_mnist1d, "CHOOSING_SEEDS", 2)
    dataset, model = planted(), published_mnist1d.MODELS["logistic regression"]
    row, at_theirs = published_mnist1d.accuracy_rows("logistic", model, dataset, 30, 3, tmp_path, False)
    rates, trained = (jm.load_results(tmp_path / name) for name in ("rates", "trained"))
    assert dict(rates.sizes) == {"learning_rate": 4, "batch_size": 1, "seed": 2}
    best = rates["validation_accuracy"].mean("seed").squeeze()
    rate = float(best["learning_rate"][int(np.argmax(best.values))])
    assert rate != 0.01 and trained["learning_rate"].values.tolist() == sorted((0.01, rate))
    assert f"learning rate {rate:g}" in row.note and at_theirs.name == "logistic, at their rate"
    assert trained.attrs["num_train"] == 80 and rates.attrs["num_train"] == 60
    for found, of in ((row, rate), (at_theirs, 0.01)):
        assert found.ours.mean == pytest.approx(100 * float(trained["test_accuracy"].sel(learning_rate=of).mean()))
        assert found.ours.words == "95 % t interval over 3 seeds" and found.theirs is None


def test_the_mnist1d_table_has_two_rows_of_each_model_and_compares_theirs_if_full(monkeypatch, tmp_path):
    monkeypatch.setattr(jm, "load", lambda name: planted())
    asked = []

    def rows(name, model, dataset, *others):
        asked.append((name, dataset.name, *others))
        return [published_mnist1d.Row(name, "%", None, jm.interval([0.5, 0.6], 20), 1.0)] * 2

    monkeypatch.setattr(published_mnist1d, "accuracy_rows", rows)
    full = published_mnist1d.mnist1d_table(True, tmp_path, False)
    assert [row.theirs for row in full.rows[::2]] == [32, 68, 94, 91, 32, 68, 56, 57]
    assert [row.theirs for row in full.rows[1::2]] == [31.5, None, 92.3, 89.1, 31.5, None, 58.7, 53.3]
    assert asked[5] == ("MLP, shuffled", "mnist1d_shuffled", 6000, 10, tmp_path / "MLP_shuffled", False)
    short = published_mnist1d.mnist1d_table(False, None, False)
    assert {row.theirs for row in short.rows} == {None} and "not to be compared" in short.budget
    assert asked[-1] == ("GRU, shuffled", "mnist1d_shuffled", 1500, 3, None, False)


def test_the_script_makes_a_table_once_and_leaves_out_what_has_no_data(monkeypatch, tmp_path):
    measures = [disc(64, 0.3), disc(64, 0.4)]
    calls = []
    monkeypatch.setattr(fractal, "zoom", lambda *given, **others: calls.append(given) or measures)

    def unavailable(name):
        raise jm.DatasetUnavailable(f"dataset {name!r} is not here")

    monkeypatch.setattr(jm, "load", unavailable)
    out, _ = run("published", "--table", "fractal", "--output-dir", "out", cwd=tmp_path)
    assert "tanh, full batch, least squares" in out and "wrote out/published.csv" in out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "fractal.json", "fractal.png", "fractal.svg", "published.csv"]
    again, _ = run("published", "--table", "fractal", "--output-dir", "out", cwd=tmp_path)
    assert again == out and len(calls) == 6
    left, _ = run("published", "--table", "mnist1d", "--resume", "out", cwd=tmp_path, status=2)
    left, _ = run("published", "--table", "mnist1d", "--output-dir", "out", cwd=tmp_path)
    assert "the table mnist1d is left out: dataset 'mnist1d' is not here" in left
    _, err = run("published", "--full", "--output-dir", "out", cwd=tmp_path, status=2)
    assert "begun with full False" in err


@pytest.mark.slow
def test_a_short_table_of_one_condition_is_trained_and_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(fractal, "CONDITIONS", {"single_point": fractal.CONDITIONS["single_point"]})
    table = published_fractal.fractal_table(False, tmp_path, False)
    assert len(table.rows) == 2 and 0.5 < table.rows[0].ours.mean < 2
    again = published_fractal.fractal_table(False, tmp_path, False)
    assert [row.ours for row in again.rows] == [row.ours for row in table.rows]


@pytest.mark.slow
def test_gated_units_learn_a_shuffled_planted_task():
    dataset = published_mnist1d.shuffled(planted(400))
    runs = jm.grid(learning_rate=0.01, batch_size=100, seed=range(2))
    result = jm.sweep(published_mnist1d.MODELS["GRU"], optax.adam, runs, dataset, num_steps=300, progress=False)
    assert float(result["test_accuracy"].min()) > 0.3

"""Recipes of published tables: networks, optimizers, steps and learning rates are those of their sources."""

import functools
import math

import jax
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.studies import published_deepobs, published_kmnist, published_tutorial
from jaxmnist.studies.published_noise import ResidualNetwork
from jaxmnist.studies.published_recipes import (
    FlaxExample,
    KerasExample,
    Recipe,
    TwoConvolutions,
    accuracy_row,
    pytorch_init,
    with_validation,
)

RECIPE = Recipe("a name", 91.72, jm.SoftmaxRegression(), optax.sgd, (0.01, 0.5), 20, 15, short_steps=2)


@functools.cache
def digits():
    data = jm.load("digits")
    parts = [jm.Split(*(field[:60] for field in getattr(data, name))) for name in ("train", "validation", "test")]
    return jm.Dataset("digits", data.class_names, *parts)


@pytest.mark.parametrize(
    ("model", "num_params"),
    [
        (FlaxExample(), 824_458), (KerasExample(), 34_826), (TwoConvolutions(is_pytorch=True), 1_199_882),
        (TwoConvolutions(is_pytorch=False), 1_199_882), (published_deepobs.NETWORK, 3_274_634),
        (ResidualNetwork(), 41_194),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)  # fmt: skip
def test_networks_have_as_many_parameters_as_published(model, num_params):
    images = np.zeros((1, 28, 28, 1), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == num_params


def test_pytorch_initialises_uniformly_within_the_inverse_root_of_the_inputs():
    init, key = pytorch_init(100), jax.random.key(0)
    for name, shape in (("kernel_init", (100, 50)), ("bias_init", (5000,))):
        values = np.asarray(init[name](key, shape, np.float32))
        assert 0.099 < abs(values).max() <= 0.1
        assert abs(values.mean()) < 0.003 and abs(values.std() - 0.1 / math.sqrt(3)) < 0.002


@pytest.mark.slow
def test_pixels_are_standardised_for_pytorch_alone():
    image = np.full((1, 8, 8, 1), 0.1307, np.float32)
    for is_pytorch in (True, False):
        model = TwoConvolutions(is_pytorch=is_pytorch)
        params = model.init(jax.random.key(0), image)
        # Of a mean image that is standardised nothing is left but the biases, whatever the first kernel.
        layers = params["params"]
        first = layers["Conv_0"] | {"kernel": 2 * layers["Conv_0"]["kernel"]}
        doubled = {"params": layers | {"Conv_0": first}}
        same = np.allclose(model.apply(params, image), model.apply(doubled, image), atol=1e-6)
        assert same == is_pytorch


def test_the_rate_of_pytorchs_example_falls_after_each_epoch(monkeypatch):
    monkeypatch.setattr(published_tutorial, "PYTORCH_EPOCH", 2)
    decaying, plain = published_tutorial.decaying_adadelta(1.0), optax.adadelta(1.0, rho=0.9, eps=1e-6)
    params = grads = np.ones(3, np.float32)
    states = [decaying.init(params), plain.init(params)]
    ratios = []
    for _ in range(5):
        updates = [each.update(grads, state, params) for each, state in zip((decaying, plain), states, strict=True)]
        states = [state for _, state in updates]
        ratios.append(float(updates[0][0][0] / updates[1][0][0]))
    np.testing.assert_allclose(ratios, [1, 1, 0.7, 0.7, 0.49], rtol=1e-6)


def test_a_row_is_the_test_accuracy_in_percent_at_the_rate_that_validation_chooses(tmp_path):
    row = accuracy_row(RECIPE, digits(), 3, True, tmp_path, False)
    best = jm.best(jm.load_results(tmp_path))
    assert best.setting == {"learning_rate": 0.5, "batch_size": 20}
    assert row.ours.mean == 100 * best.test.mean and row.ours.high == 100 * best.test.high
    assert row.ours.kind == "t interval over 3 seeds" and row.theirs == 91.72 and row.note == "learning rate 0.5"
    assert jm.load_results(tmp_path).attrs["num_steps"] == 15 and row.ours.mean > 20


def test_fewer_steps_are_not_compared(tmp_path):
    row = accuracy_row(RECIPE._replace(theirs_interval=(91, 92)), digits(), 3, False, tmp_path, False)
    assert row.theirs is row.theirs_interval is row.inside is None
    assert "2 of 15 steps, not to be compared with their 91.72 %" in row.note
    assert row.ours.kind == "t interval over 2 seeds"


def test_a_recipe_of_which_every_run_diverges_has_no_number():
    row = accuracy_row(RECIPE._replace(learning_rate=1e30), digits(), 2, True, None, False)
    assert math.isnan(row.ours.mean) and row.theirs is None and row.note == "every learning rate diverged"


def test_without_validation_of_its_own_a_recipe_trains_on_those_examples_as_well(tmp_path):
    whole = with_validation(digits())
    np.testing.assert_array_equal(whole.train.inputs[60:], digits().validation.inputs)
    np.testing.assert_array_equal(whole.train.targets[:60], digits().train.targets)
    assert whole.test is digits().test
    for has_validation, num_train in ((True, 60), (False, 120)):
        folder = tmp_path / str(num_train)
        accuracy_row(RECIPE._replace(has_validation=has_validation), digits(), 2, False, folder, False)
        assert jm.load_results(folder).attrs["num_train"] == num_train


def test_deepobs_rates_lie_around_the_published_ones_on_its_own_grid():
    grid = 10 ** np.linspace(-5, 2, 36)
    for name, published in (("SGD", 0.158), ("momentum 0.99", 2.51e-3), ("Adam", 2.51e-4)):
        rates = np.array(published_deepobs.recipe(name).learning_rate)
        assert len(rates) == 5 and abs(rates[2] / published - 1) < 0.005
        assert (abs(rates[:, None] / grid - 1).min(axis=1) < 1e-6).all()
    low, high = published_deepobs.recipe("SGD").theirs_interval
    np.testing.assert_allclose([low, high], [92.27 - 0.1288, 92.27 + 0.1288], atol=1e-4)


@pytest.mark.parametrize(
    ("module", "table", "name", "num_rows"),
    [
        (published_tutorial, published_tutorial.tutorial_table, "mnist", 5),
        (published_deepobs, published_deepobs.deepobs_table, "fashion_mnist", 3),
        (published_kmnist, published_kmnist.kmnist_table, "kmnist", 1),
    ],
    ids=["tutorial", "deepobs", "kmnist"],
)
def test_each_recipe_of_a_table_has_a_row_and_a_folder(module, table, name, num_rows, tmp_path, monkeypatch):
    asked, rows = [], []

    def row(recipe, dataset, num_seeds, full, folder, progress):
        rows.append((recipe.num_steps * recipe.batch_size, folder))
        assert dataset == "loaded" and full and not progress and num_seeds >= 5
        return recipe.name

    monkeypatch.setattr(jm, "load", lambda name: asked.append(name) or "loaded")
    monkeypatch.setattr(module, "accuracy_row", row)
    made = table(True, tmp_path, False)
    assert asked == [name] and len(made.rows) == len({folder for _, folder in rows}) == num_rows
    assert made.notes and all(folder.is_relative_to(tmp_path) for _, folder in rows)
    epochs = {"mnist": [1.67, 16.67, 9.98, 13.5, 14.01], "fashion_mnist": [99.84] * 3, "kmnist": [11.98]}[name]
    assert [round(examples / 60_000, 2) for examples, _ in rows] == epochs

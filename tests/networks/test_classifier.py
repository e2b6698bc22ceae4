import json

import jax
import numpy as np
import optax
import pytest
from conftest import mostly_slow
from models import MODELS

import jaxmnist as jm
from jaxmnist.core.adapters.factory import model_factory
from jaxmnist.networks.classifier import probabilities

MODEL = jm.CNN((2,), (3,), (1,), hidden_size=0, num_classes=4)
NAMES = ("a", "b", "c", "d")


def save(tiny, folder, seeds=(3, 5)):
    params = [jm.init_state(MODEL, optax.sgd(0.1), seed, tiny.test.inputs).params for seed in seeds]
    classifier = jm.Classifier(MODEL, tuple(params), (6, 5, 1), NAMES)
    jm.save_model(folder, classifier, seeds)
    return classifier


def test_a_saved_model_comes_back(tiny, tmp_path):
    saved = save(tiny, tmp_path)
    loaded = jm.load_model(tmp_path)
    assert loaded.model == MODEL and loaded.class_names == NAMES and len(loaded.params) == 2
    images = tiny.test.inputs
    np.testing.assert_array_equal(loaded(images), saved(images))
    np.testing.assert_array_equal(loaded(images[..., 0]), saved(images))
    np.testing.assert_allclose(loaded(images).sum(axis=1), 1, rtol=1e-5)
    logits = MODEL.apply({"params": saved.params[1]}, images.astype(np.float32) / 255)
    np.testing.assert_allclose(loaded.each(images)[1], jax.nn.softmax(logits), rtol=1e-4)
    assert np.abs(loaded.each(images)[0] - loaded.each(images)[1]).max() > 1e-3


def test_an_ensemble_is_the_mean_of_its_members(tiny, tmp_path):
    classifier = save(tiny, tmp_path)
    images = tiny.test.inputs
    np.testing.assert_allclose(classifier(images), classifier.each(images).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 6, 5), np.float32), np.zeros((2, 5, 6), np.uint8), np.zeros((0, 6, 5), np.uint8)]
)
def test_images_of_another_form_are_refused(tiny, tmp_path, images):
    with pytest.raises(ValueError, match=r"uint8 \[N, 6, 5, 1\]"):
        save(tiny, tmp_path)(images)


@pytest.mark.parametrize("num_images", [1, 7, 501, 1001])
def test_probabilities_of_any_number_of_images(num_images):
    images = np.random.default_rng(0).integers(0, 256, (num_images, 6, 5, 1)).astype(np.uint8)
    params = MODEL.init(jax.random.key(0), np.zeros((1, 6, 5, 1), np.float32))["params"]
    expected = jax.nn.softmax(MODEL.apply({"params": params}, images.astype(np.float32) / 255))
    found = probabilities(model_factory(MODEL)(), (params, {}), jax.numpy.asarray(images))
    assert found.shape == (num_images, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_probabilities_take_the_fast_convolution():
    images = jax.ShapeDtypeStruct((7, 6, 5, 1), np.uint8)
    params = jax.eval_shape(MODEL.init, jax.random.key(0), np.zeros((1, 6, 5, 1), np.float32))["params"]
    jaxpr = jax.make_jaxpr(probabilities, static_argnums=0)(model_factory(MODEL)(), (params, {}), images)
    assert "conv_general_dilated" in str(jaxpr)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no trained model"):
        jm.load_model(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "digit.png").write_text("")
    with pytest.raises(ValueError, match=r"digit.png cannot be read"):
        jm.load_model(tmp_path / "digit.png")


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"fields": []}', '{"model": "os.system", "fields": {}}'])
def test_a_broken_description_is_one_sentence(tiny, tmp_path, text):
    save(tiny, tmp_path)
    (tmp_path / "model" / "model.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        jm.load_model(tmp_path)


def test_parameters_of_another_shape_are_refused(tiny, tmp_path):
    save(tiny, tmp_path)
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    description["fields"]["features"] = [7]
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="cannot be read"):
        jm.load_model(tmp_path)


@pytest.mark.parametrize("name", mostly_slow(MODELS, "linen", "nnx", "equinox with state", "haiku", "pair"))
def test_a_model_of_any_library_is_saved_and_read_again(tiny, tmp_path, name):
    model, _ = MODELS[name]
    members = [jm.init_state(model, optax.sgd(0.1), seed, tiny.train.inputs) for seed in (0, 1)]
    params, states = (tuple(getattr(each, field) for each in members) for field in ("params", "model_state"))
    classifier = jm.Classifier(model, params, (6, 5, 1), ("a", "b", "c", "d"), states)
    jm.save_model(tmp_path, classifier, [0, 1])
    read = jm.load_model(tmp_path, model)
    np.testing.assert_array_equal(read.each(tiny.test.inputs), classifier.each(tiny.test.inputs))
    with pytest.raises(ValueError, match=r"names the model .*give model="):
        jm.load_model(tmp_path)

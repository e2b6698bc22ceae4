import functools
import json
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from conftest import mostly_slow
from flax import nnx
from models import MODELS, Narrow

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


class OfTokens(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(4)(nn.Embed(9, 3)(tokens).mean(axis=1))


@pytest.mark.parametrize(
    ("model", "dtype", "wrong"), [(nn.Dense(4), np.float32, np.uint8), (OfTokens(), np.int32, float)]
)
def test_inputs_of_any_shape_and_type_are_classified(tmp_path, model, dtype, wrong):
    inputs = np.random.default_rng(0).integers(0, 9, (7, 3)).astype(dtype)
    variables = model.init(jax.random.key(0), inputs)
    classifier = jm.Classifier(model, (variables["params"],), (3,), NAMES, input_dtype=np.dtype(dtype).name)
    jm.save_model(tmp_path, classifier, [0])
    read = jm.load_model(tmp_path, model)
    for each in (classifier, read):
        np.testing.assert_allclose(each(inputs), jax.nn.softmax(model.apply(variables, inputs)), rtol=1e-5)
        np.testing.assert_array_equal(each(inputs.astype(f"{inputs.dtype.kind}8")), each(inputs))
        with pytest.raises(ValueError, match=rf"inputs are {np.dtype(wrong)} .*expected {np.dtype(dtype)} \[N, 3\]"):
            each(inputs.astype(wrong))
        large = np.full((7, 3), 1e300 if dtype is np.float32 else 2**40)
        with pytest.raises(ValueError, match=f"inputs has numbers from .* beyond what {np.dtype(dtype)} holds"):
            each(large)


@pytest.mark.parametrize("num_images", mostly_slow((1, 7, 501, 1001), 1, 1001))
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


BROKEN = ("{", "[]", "5", '{"fields": []}', '{"model": "os.system", "fields": {}}')


@pytest.mark.parametrize("text", mostly_slow(BROKEN, "{", '{"fields": []}', BROKEN[-1]))
def test_a_broken_description_is_one_sentence(tiny, tmp_path, text):
    save(tiny, tmp_path)
    (tmp_path / "model" / "model.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        jm.load_model(tmp_path)


def test_parameters_of_another_shape_are_refused(tiny, tmp_path):
    save(tiny, tmp_path)
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    del description["crc32"]  # as if an earlier version had written it
    description["fields"]["features"] = [7]
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="cannot be read: params_3 does not have the shapes"):
        jm.load_model(tmp_path)


def test_no_damaged_model_is_taken_for_another(tiny, tmp_path):
    saved = save(tiny, tmp_path, seeds=[3])
    generator = np.random.default_rng(0)
    num_broken = num_noticed = 0
    for path in sorted(path for path in (tmp_path / "model").rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for place in range(len(whole)) if path.name == "model.json" else generator.integers(0, len(whole), 20):
            broken = bytearray(whole)
            broken[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(bytes(broken))
            num_broken += 1
            try:
                found = jm.load_model(tmp_path)
            except ValueError as error:
                num_noticed += 1
                assert str(error).startswith(f"the model in {tmp_path} cannot be read: ") and "\n" not in str(error)
            else:  # the name of the checksum
                assert (found.model, found.input_shape, found.class_names) == (MODEL, (6, 5, 1), NAMES)
                jax.tree.map(np.testing.assert_array_equal, found.params, saved.params)
        path.write_bytes(whole)
    assert num_broken > num_noticed > num_broken - 10


def test_a_model_with_files_of_a_file_manager_and_one_of_an_earlier_version_are_read(tiny, tmp_path):
    saved = save(tiny, tmp_path)
    (tmp_path / "model" / "params_3" / ".DS_Store").write_text("")
    jax.tree.map(np.testing.assert_array_equal, jm.load_model(tmp_path).params, saved.params)
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    assert description.pop("crc32")
    path.write_text(json.dumps(description))
    jax.tree.map(np.testing.assert_array_equal, jm.load_model(tmp_path).params, saved.params)


class MLP(nn.Module):
    """A person's model with the name of one of ours."""

    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(self.activation(nn.Dense(5)(x.reshape(x.shape[0], -1))))


class Net(nnx.Module):
    def __init__(self, width, *, rngs):
        self.hidden, self.last = nnx.Linear(30, width, rngs=rngs), nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


@pytest.mark.parametrize(
    ("model", "other", "words"),
    [
        (MLP(), MLP(nn.tanh), "its MLP has the fields {'activation': relu}, not {'activation': tanh}"),
        (MLP(), jm.MLP(5, 4), "its MLP has the fields {'activation': relu}, not {'hidden_size': 5"),
        (MLP(), None, "it names the model 'MLP', which is not this package's .*: give model="),
        (jm.MLP(5, 4), MLP(), "its MLP has the fields {'hidden_size': 5"),
        (jm.MLP(5, 4), jm.MLP(5, 4, init_scale=2.0), "'init_scale': 1.0}, not .*'init_scale': 2.0}"),
        (functools.partial(Net, 5), functools.partial(Net, 6), "params_0 does not have the shapes"),
    ],
)
def test_a_model_is_read_as_what_it_was_saved_as(tiny, tmp_path, model, other, words):
    params = jm.init_state(model, optax.sgd(0.1), 0, tiny.train.inputs).params
    classifier = jm.Classifier(model, (params,), (6, 5, 1), NAMES)
    jm.save_model(tmp_path, classifier, [0])
    read = jm.load_model(tmp_path, model)
    np.testing.assert_array_equal(read(tiny.test.inputs), classifier(tiny.test.inputs))
    with pytest.raises(ValueError, match=words):
        jm.load_model(tmp_path, other)


def test_fields_that_an_earlier_version_did_not_have_are_those_by_default(tiny, tmp_path):
    params = jm.init_state(jm.MLP(5, 4), optax.sgd(0.1), 0, tiny.train.inputs).params
    jm.save_model(tmp_path, jm.Classifier(jm.MLP(5, 4), (params,), (6, 5, 1), NAMES), [0])
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    del description["fields"]["init_scale"], description["crc32"]
    path.write_text(json.dumps(description))
    assert jm.load_model(tmp_path).model == jm.load_model(tmp_path, jm.MLP(5, 4)).model == jm.MLP(5, 4)


KINDS = {name: model for name, (model, _) in MODELS.items()} | {"bfloat16": Narrow()}


@pytest.mark.parametrize("name", mostly_slow(KINDS, "nnx", "equinox", "equinox with state", "pair", "bfloat16"))
def test_a_model_of_any_library_is_saved_and_read_again(tiny, tmp_path, name):
    model = KINDS[name]
    members = [jm.init_state(model, optax.sgd(0.1), seed, tiny.train.inputs) for seed in (0, 1)]
    params, states = (tuple(getattr(each, field) for each in members) for field in ("params", "model_state"))
    classifier = jm.Classifier(model, params, (6, 5, 1), ("a", "b", "c", "d"), states)
    jm.save_model(tmp_path, classifier, [0, 1])
    read = jm.load_model(tmp_path, model)
    np.testing.assert_array_equal(read.each(tiny.test.inputs), classifier.each(tiny.test.inputs))
    assert [leaf.dtype for leaf in jax.tree.leaves(read.params)] == [leaf.dtype for leaf in jax.tree.leaves(params)]
    with pytest.raises(ValueError, match=r"names the model .*give model="):
        jm.load_model(tmp_path)

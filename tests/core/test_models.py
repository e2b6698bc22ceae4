import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.core.layers import RECTIFIER_GAIN, StandardisedConv, dropout, standardise


@pytest.mark.parametrize("model", [jm.SoftmaxRegression(4), jm.MLP(hidden_size=7, num_classes=4)])
def test_logits_have_a_row_per_image(model):
    images = jnp.ones((3, 6, 5, 2))
    params = model.init(jax.random.key(0), images)
    assert model.apply(params, images).shape == (3, 4)


def test_softmax_regression_begins_at_zero():
    params = jm.SoftmaxRegression(4).init(jax.random.key(0), jnp.ones((1, 6, 5, 1)))
    assert all(not leaf.any() for leaf in jax.tree.leaves(params))


def test_softmax_regression_is_one_affine_map():
    images = jax.random.uniform(jax.random.key(1), (3, 6, 5, 1))
    kernel, bias = jax.random.normal(jax.random.key(2), (4, 30)), jnp.arange(4.0)
    logits = jm.SoftmaxRegression(4).apply({"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}, images)
    np.testing.assert_allclose(logits, np.reshape(images, (3, 30)) @ kernel.T + np.asarray(bias)[None], rtol=1e-5)


def test_mlp_initialisation_has_the_fan_in_scale_of_lecun():
    params = jax.jit(jm.MLP(hidden_size=500).init)(jax.random.key(0), jnp.ones((1, 20, 20, 1)))["params"]
    assert np.std(params["Dense_0"]["kernel"]) == pytest.approx((1 / 400) ** 0.5, rel=0.02)
    assert np.std(params["Dense_1"]["kernel"]) == pytest.approx((1 / 500) ** 0.5, rel=0.05)


def test_mlp_differs_by_key():
    images = jnp.ones((1, 6, 5, 1))
    init = jax.jit(jm.MLP(8, 4).init)
    first, second = (init(jax.random.key(seed), images)["params"] for seed in (0, 1))
    assert (first["Dense_0"]["kernel"] != second["Dense_0"]["kernel"]).any()


def test_a_standardised_convolution_is_flaxs_with_a_standardised_kernel():
    images = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    ours, theirs = StandardisedConv(4, (5, 3)), nn.Conv(4, (5, 3))
    params = ours.init(jax.random.key(1), images)["params"]
    np.testing.assert_array_equal(params["kernel"], theirs.init(jax.random.key(1), images)["params"]["kernel"])
    params |= {"gain": jnp.arange(1.0, 5), "bias": jnp.arange(4.0)}
    kernel = standardise(params["kernel"]) * params["gain"][None, None, None]
    expected = theirs.apply({"params": {"kernel": kernel, "bias": params["bias"]}}, images)
    np.testing.assert_allclose(ours.apply({"params": params}, images), expected, rtol=1e-5, atol=1e-5)


def test_the_convolutions_of_a_cnn_are_called_alike_whatever_their_kind():
    shapes = [
        set(jax.eval_shape(jm.CNN(standardised=kind).init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"])
        for kind in (False, True)
    ]
    assert shapes[0] == shapes[1] == {"Conv_0", "Conv_1", "Dense_0", "Dense_1"}


def test_cnn_has_the_parameters_of_the_original():
    params = jax.eval_shape(jm.CNN().init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 3_274_634


def test_cnn_initialisation_is_the_originals():
    params = jax.jit(jm.CNN().init)(jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    for name, layer in params.items():
        assert (layer["bias"] == np.float32(0.1)).all(), name
        assert abs(layer["kernel"]).max() <= 0.2
    # A normal of standard deviation 0.1 that is cut at two of them has 0.08796.
    assert np.std(params["Conv_1"]["kernel"]) == pytest.approx(0.08796, rel=0.01)


def test_dropout_is_in_training_alone_and_keeps_the_mean():
    model = jm.CNN((2,), (5,), (1,), hidden_size=1000, num_classes=3)
    images = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1))
    params = model.init(jax.random.key(1), images)
    full = model.apply(params, images)
    np.testing.assert_array_equal(full, model.apply(params, images))
    first, second = (model.apply(params, images, rngs={"dropout": jax.random.key(i)}) for i in (2, 3))
    assert (first != second).all() and (first != full).all()
    many = jax.vmap(lambda i: model.apply(params, images, rngs={"dropout": jax.random.key(i)}))(jnp.arange(200))
    np.testing.assert_allclose(many.mean(axis=0), full, atol=4 * float(many.std(axis=0).max()) / 200**0.5)


def test_standardised_kernels_keep_the_variance_of_what_is_rectified():
    kernel = 5 + 3 * jax.random.normal(jax.random.key(0), (3, 3, 16, 64))
    scaled = standardise(kernel)
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.var((0, 1, 2)) * 9 * 16, RECTIFIER_GAIN**2, rtol=1e-4)
    inputs = jnp.maximum(jax.random.normal(jax.random.key(1), (20_000, 9 * 16)), 0) * RECTIFIER_GAIN
    outputs = inputs @ scaled.reshape(-1, 64)
    # The variance over random inputs is that of a rectified normal variable times its gain squared: 1 each.
    assert float(outputs.var(0).mean()) == pytest.approx(RECTIFIER_GAIN**2, rel=0.05)
    np.testing.assert_allclose(standardise(kernel * 7 - 2), scaled, rtol=1e-3, atol=1e-5)


def test_dropout_at_a_traced_rate():
    ones, key = jnp.ones((200, 200)), jax.random.key(0)
    dropped = jax.jit(jax.vmap(dropout, in_axes=(None, None, 0)))(key, ones, jnp.array([0.0, 0.25]))
    assert (dropped[0] == 1).all()
    assert set(np.unique(dropped[1])) == {0, np.float32(1 / 0.75)}
    assert (dropped[1] == 0).mean() == pytest.approx(0.25, abs=0.01)


def initialised(model, image_shape):
    return jax.eval_shape(lambda: jm.init_state(model, optax.sgd(0.1), 0, np.zeros((1, *image_shape), np.uint8)))


def test_a_number_in_the_place_of_layers_is_named():
    with pytest.raises(ValueError, match=r"features is 10; a tuple of whole numbers, .*, is needed"):
        initialised(jm.CNN(10), (8, 8, 1))


def test_kernel_sizes_that_do_not_fit_the_features_are_named():
    with pytest.raises(ValueError, match=r"kernel_sizes \(5, 5\) .* \(4,\)"):
        initialised(jm.CNN(features=(4,)), (8, 8, 1))


def test_pooling_that_leaves_no_pixel_is_named():
    layers = dict(features=(2,) * 4, kernel_sizes=(3,) * 4)
    initialised(jm.CNN(**layers, pool_after=(1, 2)), (8, 7, 1))
    with pytest.raises(ValueError, match=r"pool_after \(1, 2, 3\) leaves no pixel of images of 8 x 7"):
        initialised(jm.CNN(**layers, pool_after=(1, 2, 3)), (8, 7, 1))

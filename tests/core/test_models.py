import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.core.fast.layers import Conv
from jaxmnist.core.fast.pooling import max_pool
from jaxmnist.core.layers import RECTIFIER_GAIN, dropout, standardise


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
    params = jm.MLP(hidden_size=500).init(jax.random.key(0), jnp.ones((1, 20, 20, 1)))["params"]
    assert np.std(params["Dense_0"]["kernel"]) == pytest.approx((1 / 400) ** 0.5, rel=0.02)
    assert np.std(params["Dense_1"]["kernel"]) == pytest.approx((1 / 500) ** 0.5, rel=0.05)


def test_mlp_differs_by_key():
    images = jnp.ones((1, 6, 5, 1))
    first, second = (jm.MLP(8, 4).init(jax.random.key(seed), images)["params"] for seed in (0, 1))
    assert (first["Dense_0"]["kernel"] != second["Dense_0"]["kernel"]).any()


@pytest.mark.parametrize(("shape", "size"), [((2, 7, 6, 3), (5, 5)), ((1, 4, 4, 1), (3, 1))])
def test_conv_is_flax_convolution_in_value_and_gradient(shape, size):
    images = jax.random.normal(jax.random.key(0), shape)
    theirs = nn.Conv(8, size)
    params = theirs.init(jax.random.key(1), images)
    target = jax.random.normal(jax.random.key(2), (*shape[:3], 8))

    def loss(model, params, images):
        return jnp.sum(jnp.square(model.apply(params, images) - target))

    ours = Conv(8, size)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), images)) == jax.tree.map(jnp.shape, params)
    value_and_grads = jax.value_and_grad(loss, argnums=(1, 2))
    got, expected = (value_and_grads(model, params, images) for model in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), got, expected)


def test_convolution_agrees_with_lax():
    images = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 3, 4))
    dims = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dims)
    params = {"params": {"kernel": kernel, "bias": jnp.zeros(4)}}
    np.testing.assert_allclose(Conv(4, (5, 5)).apply(params, images), expected, rtol=1e-4, atol=1e-4)


def test_max_pool_is_flax_pooling():
    images = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    np.testing.assert_array_equal(max_pool(images), nn.max_pool(images, (2, 2), (2, 2)))


def test_pixels_that_share_a_maximum_share_its_gradient_as_in_jax():
    blocks = jax.random.randint(jax.random.key(1), (2, 7, 5, 3), 0, 3).astype(jnp.float32)
    weights = jax.random.normal(jax.random.key(2), (2, 3, 2, 3))

    def by_jax(images):
        return images[:, :6, :4].reshape(2, 3, 2, 2, 2, 3).max(axis=(2, 4))

    ours, theirs = (jax.grad(lambda x, pool=pool: jnp.sum(pool(x) * weights))(blocks) for pool in (max_pool, by_jax))
    np.testing.assert_array_equal(ours, theirs)
    assert (ours[:, 6] == 0).all() and (ours[:, :, 4] == 0).all()


def test_pooling_before_the_bias_is_pooling_after_it():
    images = jax.random.uniform(jax.random.key(1), (2, 6, 6, 3))
    params = Conv(4, (3, 3), bias_init=jax.nn.initializers.normal(1.0)).init(jax.random.key(2), images)
    pooled = Conv(4, (3, 3), pooled=True).apply(params, images)
    np.testing.assert_array_equal(pooled, max_pool(Conv(4, (3, 3)).apply(params, images)))


def test_cnn_has_the_parameters_of_the_original():
    params = jax.eval_shape(jm.CNN().init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 3_274_634


def test_cnn_initialisation_is_the_originals():
    params = jm.CNN().init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    for name, layer in params.items():
        assert (layer["bias"] == np.float32(0.1)).all(), name
        assert abs(layer["kernel"]).max() <= 0.2
    # A normal of standard deviation 0.1 that is cut at two of them has 0.08796.
    assert np.std(params["Conv_1"]["kernel"]) == pytest.approx(0.08796, rel=0.01)


def test_dropout_is_in_training_alone_and_keeps_the_mean():
    model = jm.CNN((2,), (5,), (1,), hidden_size=4000, num_classes=3)
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
    return jm.init_state(model, optax.sgd(0.1), 0, np.zeros((1, *image_shape), np.uint8))


def test_kernel_sizes_that_do_not_fit_the_features_are_named():
    with pytest.raises(ValueError, match=r"kernel_sizes \(5, 5\) .* \(4,\)"):
        initialised(jm.CNN(features=(4,)), (8, 8, 1))


def test_pooling_that_leaves_no_pixel_is_named():
    layers = dict(features=(2,) * 4, kernel_sizes=(3,) * 4)
    initialised(jm.CNN(**layers, pool_after=(1, 2)), (8, 7, 1))
    with pytest.raises(ValueError, match=r"pool_after \(1, 2, 3\) leaves no pixel of images of 8 x 7"):
        initialised(jm.CNN(**layers, pool_after=(1, 2, 3)), (8, 7, 1))

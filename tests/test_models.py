import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmnist as jm


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

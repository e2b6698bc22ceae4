import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxmnist.core import losses

LOGITS = jnp.array([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [5.0, -1.0, 2.0]])
LABELS = jnp.array([1, 0, 2])


@jax.jit
def mean_loss(logits, labels, weights, label_smoothing=None):
    return losses.masked_mean(losses.cross_entropy(logits, labels, label_smoothing), weights)


def test_cross_entropy_is_minus_log_softmax_of_the_label():
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(3), LABELS]
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)
    np.testing.assert_allclose(mean_loss(LOGITS, LABELS, jnp.ones(3)), expected.mean(), rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    assert losses.cross_entropy(jnp.array([[1e6, 0.0]]), jnp.array([1])) == 1e6


def test_gradient_equals_the_closed_form():
    weights = jnp.array([1.0, 1.0, 0.0])
    grads = jax.grad(mean_loss)(LOGITS, LABELS, weights)
    closed = (scipy.special.softmax(LOGITS, axis=1) - np.eye(3)[np.asarray(LABELS)]) * np.asarray(weights)[:, None] / 2
    np.testing.assert_allclose(grads, closed, rtol=1e-5, atol=1e-8)


def test_padding_has_exactly_zero_gradient_and_hides_what_is_not_finite():
    logits = LOGITS.at[1].set(jnp.array([jnp.nan, jnp.inf, 0.0]))
    weights = jnp.array([1.0, 0.0, 1.0])
    loss, grads = jax.value_and_grad(mean_loss)(LOGITS, LABELS, weights)
    assert (grads[1] == 0).all()
    assert mean_loss(logits, LABELS, weights) == loss


def test_accuracy_counts_hits():
    np.testing.assert_array_equal(losses.accuracy(LOGITS, LABELS), [1, 1, 0])


def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_labels():
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    labels, weights = jnp.array([0, 1, 2, 3, 0]), jnp.array([1.0, 1, 1, 1, 0])
    smoothed = 0.7 * jax.nn.one_hot(labels, 4) + 0.3 / 4
    expected = -(smoothed * jax.nn.log_softmax(logits)).sum(axis=1)[:4].mean()
    np.testing.assert_allclose(mean_loss(logits, labels, weights, 0.3), expected, rtol=1e-6)
    none = mean_loss(logits, labels, weights)
    np.testing.assert_allclose(mean_loss(logits, labels, weights, 0.0), none, rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "targets"), [((3, 1), (3,)), ((3,), (3,)), ((3, 2), (3, 2)), ((3, 4, 1), (3, 2, 2))]
)
def test_squared_error_is_the_mean_of_squares_of_each_example(outputs, targets):
    given = jax.random.normal(jax.random.key(0), outputs)
    wanted = jax.random.normal(jax.random.key(1), targets)
    expected = [np.mean((np.ravel(one) - np.ravel(other)) ** 2) for one, other in zip(given, wanted, strict=True)]
    np.testing.assert_allclose(losses.squared_error(given, wanted), expected, rtol=1e-6)


def test_squared_error_compares_no_output_with_several_targets():
    with pytest.raises(TypeError):
        losses.squared_error(jnp.ones((3, 1)), jnp.ones((3, 2)))


def test_a_loss_declares_above_what_it_diverges():
    logits = jnp.zeros((5, 4))
    assert losses.bound_of(losses.cross_entropy, logits) == 100 * np.log(4)
    assert losses.bound_of(functools.partial(losses.cross_entropy, label_smoothing=0.1), logits) == 100 * np.log(4)
    assert losses.bound_of(losses.squared_error, logits) == np.inf

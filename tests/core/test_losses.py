import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxmnist.core import losses

LOGITS = jnp.array([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [5.0, -1.0, 2.0]])
LABELS = jnp.array([1, 0, 2])


def test_cross_entropy_is_minus_log_softmax_of_the_label():
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(3), LABELS]
    np.testing.assert_allclose(losses.cross_entropy_per_example(LOGITS, LABELS), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS, jnp.ones(3)), expected.mean(), rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    assert losses.cross_entropy(jnp.array([[1e6, 0.0]]), jnp.array([1]), jnp.ones(1)) == 1e6


def test_gradient_equals_the_closed_form():
    weights = jnp.array([1.0, 1.0, 0.0])
    grads = jax.grad(losses.cross_entropy)(LOGITS, LABELS, weights)
    closed = (scipy.special.softmax(LOGITS, axis=1) - np.eye(3)[np.asarray(LABELS)]) * np.asarray(weights)[:, None] / 2
    np.testing.assert_allclose(grads, closed, rtol=1e-5, atol=1e-8)


def test_padding_has_exactly_zero_gradient_and_hides_what_is_not_finite():
    logits = LOGITS.at[1].set(jnp.array([jnp.nan, jnp.inf, 0.0]))
    weights = jnp.array([1.0, 0.0, 1.0])
    loss, grads = jax.value_and_grad(losses.cross_entropy)(LOGITS, LABELS, weights)
    assert (grads[1] == 0).all()
    assert losses.cross_entropy(logits, LABELS, weights) == loss


def test_num_correct_counts_unmasked_hits():
    assert losses.num_correct(LOGITS, LABELS, jnp.ones(3)) == 2
    assert losses.num_correct(LOGITS, LABELS, jnp.array([0.0, 1.0, 1.0])) == 1


def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_labels():
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    labels, weights = jnp.array([0, 1, 2, 3, 0]), jnp.array([1.0, 1, 1, 1, 0])
    smoothed = 0.7 * jax.nn.one_hot(labels, 4) + 0.3 / 4
    expected = -(smoothed * jax.nn.log_softmax(logits)).sum(axis=1)[:4].mean()
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, weights, 0.3), expected, rtol=1e-6)
    none = losses.cross_entropy(logits, labels, weights)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, weights, 0.0), none, rtol=1e-6)

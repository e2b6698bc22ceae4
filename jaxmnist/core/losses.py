"""Losses and accuracies of one batch under an example mask.

Shapes: B examples of a batch, K classes.

The classes are reduced over the leading axis, `[K, B]`, because a vectorised loop over 10 classes wastes
most of its lanes while one over the examples does not: on CPU the whole softmax regression step is half
again as fast. The transposition itself costs nothing, as the compiler moves it into the matrix product.
"""

import jax
import jax.numpy as jnp


def cross_entropy_per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the cross-entropy of each example, `-log softmax(logits)[label]`.

    Args:
      logits: `[B, K]` float32, unnormalised log-probabilities.
      labels: `[B]` int32 in `[0, K)`.

    Returns:
      `[B]` float32, nats.
    """
    by_class = logits.T
    is_label = jnp.arange(by_class.shape[0])[:, None] == labels[None, :]
    return jax.nn.logsumexp(by_class, axis=0) - jnp.sum(by_class, axis=0, where=is_label)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, label_smoothing: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Returns the weighted mean cross-entropy of one batch.

    Args:
      logits: `[B, K]` float32, unnormalised log-probabilities.
      labels: `[B]` int32 in `[0, K)`.
      weights: `[B]` float32; 0 marks padding, whose logits have exactly zero gradient.
      label_smoothing: `[]` float in [0, 1], the share of each label that is spread evenly over the classes (Szegedy et
        al. 2016, arXiv:1512.00567, section 7); may be traced. None is 0 without the work.

    Returns:
      `[]` float32, nats per example.
    """
    per_example = cross_entropy_per_example(logits, labels)
    if label_smoothing is not None:
        uniform_loss = jax.nn.logsumexp(logits.T, axis=0) - jnp.mean(logits.T, axis=0)
        smoothing = jnp.asarray(label_smoothing)
        per_example = (1 - smoothing) * per_example + smoothing * uniform_loss
    return masked_sum(per_example, weights) / jnp.sum(weights)


def masked_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted sum of `values`, both `[B]` float32; a weight of 0 also hides nan and infinity."""
    # `0 * nan` is `nan`, so a plain product would let padding spoil the batch.
    return jnp.sum(values * weights, where=weights > 0)


def num_correct(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns how many examples of weight above 0 have their label as the largest logit: `[]` int32.

    Args:
      logits: `[B, K]` float32.
      labels: `[B]` int32 in `[0, K)`.
      weights: `[B]` float32; 0 marks padding.
    """
    return jnp.sum((jnp.argmax(logits, axis=-1) == labels) & (weights > 0), dtype=jnp.int32)

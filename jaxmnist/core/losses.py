"""Losses and metrics of each example, and their sums under an example mask.

A loss and a metric are functions `(outputs [B, ...], targets [B, ...]) -> [B]` float32.

Shapes: B examples of a batch, K classes.

Cross-entropy reduces the classes over the leading axis, `[K, B]`, because a vectorised loop over 10 classes wastes
most of its lanes while one over the examples does not: on CPU the whole softmax regression step is half
again as fast. The transposition itself costs nothing, as the compiler moves it into the matrix product.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp

Loss = Callable[..., jax.Array]
L = TypeVar("L", bound=Loss)


def diverges_above(bound: Callable[[jax.Array], float]) -> Callable[[L], L]:
    """Returns a decorator that declares above which batch loss a run counts as diverged.

    A loss without it diverges when it is not finite.

    Args:
      bound: returns the bound, given the outputs `[B, ...]`, of which shape and dtype are known.
    """

    def declare(loss: L) -> L:
        loss.bound = bound  # type: ignore[attr-defined]
        return loss

    return declare


def bound_of(loss: Loss, outputs: jax.Array) -> float:
    """Returns the batch loss above which a run counts as diverged, `inf` if the loss declares none."""
    bound = getattr(unwrapped(loss), "bound", None)
    return math.inf if bound is None else bound(outputs)


@diverges_above(lambda outputs: 100 * math.log(outputs.shape[-1]))
def cross_entropy(
    outputs: jax.Array, targets: jax.Array, label_smoothing: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Returns the cross-entropy of each example, `-log softmax(outputs)[target]`.

    It has diverged above 100 times the loss of a random guess. A softmax regression on MNIST at learning rate 1e6 stays
    finite with losses of 1e5; at rate 10 it learns, and its batch losses stay below the bound, except for some of those
    of 8 examples in the first steps.

    Args:
      outputs: `[B, K]` float32, logits: unnormalised log-probabilities.
      targets: `[B]` int32, labels in `[0, K)`.
      label_smoothing: `[]` float in [0, 1], the share of each label that is spread evenly over the classes (Szegedy et
        al. 2016, arXiv:1512.00567, section 7); may be traced. None is 0 without the work.

    Returns:
      `[B]` float32, nats.
    """
    by_class = outputs.T
    is_label = jnp.arange(by_class.shape[0])[:, None] == targets[None, :]
    per_example = jax.nn.logsumexp(by_class, axis=0) - jnp.sum(by_class, axis=0, where=is_label)
    if label_smoothing is None:
        return per_example
    uniform_loss = jax.nn.logsumexp(by_class, axis=0) - jnp.mean(by_class, axis=0)
    smoothing = jnp.asarray(label_smoothing)
    return (1 - smoothing) * per_example + smoothing * uniform_loss


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean over each example's numbers of the squared difference, `[B]` float32.

    Args:
      outputs: `[B, ...]` float32, as many numbers for each example as targets: `[B, 1]` is compared with `[B]`.
      targets: `[B, ...]` numbers.
    """
    # Broadcasting would compare one output with several targets.
    difference = outputs.reshape(targets.shape) - targets
    return jnp.mean(difference.reshape(targets.shape[0], -1) ** 2, axis=1)


def accuracy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns 1 for each example whose target is the largest output, and 0 for the others: `[B]` float32.

    Of several outputs that are the largest, the first counts, as for `argmax`; with nan among them, none does.

    Args:
      outputs: `[B, K]` float32.
      targets: `[B]` int32 in `[0, K)`.
    """
    # Comparisons are vectorised on CPU, which argmax is not.
    by_class, targets = outputs.T, targets[None, :]
    classes = jnp.arange(by_class.shape[0])[:, None]
    of_target = jnp.sum(by_class, axis=0, where=classes == targets, keepdims=True)
    is_behind = jnp.where(classes < targets, by_class < of_target, by_class <= of_target)
    return jnp.all(is_behind, axis=0).astype(jnp.float32)


def measures(loss: Loss, metrics: Mapping[str, Loss] | None = None) -> tuple[tuple[str, Loss], ...]:
    """Returns what is measured on a split, by name: the metrics, and the loss as `loss`.

    Args:
      loss: what is trained on; arguments of it that have a default keep it here, so that runs that are trained with
        different ones (`label_smoothing`) are measured alike.
      metrics: name to function; default the accuracy if the loss is the cross-entropy, and none if it is another.
    """
    if metrics is None:
        metrics = {"accuracy": accuracy} if unwrapped(loss) is cross_entropy else {}
    return (*metrics.items(), ("loss", loss))


def unwrapped(loss: Loss) -> Loss:
    """Returns the function below any `functools.partial`."""
    inner = getattr(loss, "func", None)
    return loss if inner is None else unwrapped(inner)


def masked_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted sum of `values`, both `[B]` float32; a weight of 0 also hides nan and infinity."""
    # `0 * nan` is `nan`, so a plain product would let padding spoil the batch.
    return jnp.sum(values * weights, where=weights > 0)


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted mean of `values`, both `[B]` float32, as `masked_sum` sums them."""
    return masked_sum(values, weights) / jnp.sum(weights)


# Results name their loss.
LOSSES: dict[str, Loss] = {loss.__name__: loss for loss in (cross_entropy, squared_error)}
# Those whose value of an example is known not to depend on the others of its batch.
INDEPENDENT = (*LOSSES.values(), accuracy)

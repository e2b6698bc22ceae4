"""Training and evaluation of one run, as pure functions; nothing here is jitted or knows about sweeps.

Shapes: N images of a split, B examples of a (padded) batch, H x W x C an image, K classes, T steps, S batches.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist.checks import Optional, Whole, checked_by
from jaxmnist.core import losses, optimizers
from jaxmnist.core.arguments import (
    AUGMENTATION,
    BATCH,
    MODULE,
    NUM_STEPS,
    ORDER,
    PARAMS,
    SHARE,
    TRANSFORMATION,
    check_evaluation,
    check_fit,
    check_step,
)
from jaxmnist.core.model import apply
from jaxmnist.core.state import NEVER, STATE, State
from jaxmnist.data.dataset import SPLIT, Batch, Split

EVALUATION_BATCH_SIZE = 250
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


class Metrics(NamedTuple):
    """Quality on one whole split.

    Attributes:
      accuracy: `[]` float32, fraction of the images classified correctly; nan if the loss is not finite, since the
        largest of several nan is no prediction.
      loss: `[]` float32, mean cross-entropy in nats per example.
    """

    accuracy: jax.Array
    loss: jax.Array


def to_unit_range(images: jax.Array) -> jax.Array:
    """Returns uint8 images as float32 in `[0, 1]`; the one place where pixels are scaled."""
    return images.astype(jnp.float32) / 255


def predict(model: nn.Module, params: optax.Params, images: jax.Array) -> jax.Array:
    """Returns the logits `[B, K]` float32 of uint8 images `[B, H, W, C]`, without dropout."""
    return apply(model, params, to_unit_range(images))


def diverged(loss: jax.Array, num_classes: int) -> jax.Array:
    """Returns whether a batch loss means divergence: it is not finite, or above `100 * log(num_classes)`.

    The bound is 100 times the loss of a random guess. A softmax regression on MNIST at learning rate 1e6 stays finite
    with losses of 1e5; at rate 10 it learns, and its batch losses stay below the bound, except for some of those of 8
    examples in the first steps.

    Args:
      loss: `[]` float32, nats per example.
      num_classes: K.
    """
    # Written so that nan, for which every comparison is false, counts as diverged.
    return ~(loss <= 100 * math.log(num_classes))


@checked_by(
    check_step, model=MODULE, optimizer=TRANSFORMATION, state=STATE, batch=BATCH, augment=AUGMENTATION,
    label_smoothing=SHARE,
)  # fmt: skip
def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: State,
    batch: Batch,
    augment: Augmentation | None = None,
    label_smoothing: jax.typing.ArrayLike | None = None,
) -> tuple[State, jax.Array]:
    """Takes one optimizer step on one batch.

    Args:
      model: a linen module from images to logits `[B, K]`.
      optimizer: an optax gradient transformation.
      state: the state before the step.
      batch: images `[B, H, W, C]` uint8, labels `[B]` int32 and weights `[B]` float32, of which 0 marks padding.
      augment: a function of a key and images `[B, H, W, C]` float32 in `[0, 1]` that returns changed images, such as
        `jm.Affine()`.
      label_smoothing: as in `losses.cross_entropy`.

    Returns:
      The state after the step, and the batch's mean cross-entropy before it, `[]` float32.
    """
    dropout_key, augmentation_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    inputs = to_unit_range(batch.images)
    if augment is not None:
        inputs = augment(augmentation_key, inputs)

    def loss_and_logits(params):
        logits = apply(model, params, inputs, dropout=dropout_key)
        return losses.cross_entropy(logits, batch.labels, batch.weights, label_smoothing), logits

    (loss, logits), grads = jax.value_and_grad(loss_and_logits, has_aux=True)(state.params)
    params, opt_state = optimizers.update(optimizer, grads, state.opt_state, state.params)
    step = state.step + 1
    is_first = diverged(loss, logits.shape[-1]) & (state.diverged_step == NEVER)
    return State(state.key, step, params, opt_state, jnp.where(is_first, step, state.diverged_step)), loss


@checked_by(
    check_fit, model=MODULE, optimizer=TRANSFORMATION, state=STATE, split=SPLIT, order=ORDER,
    batch_size=Whole(1, traced=True), num_steps=NUM_STEPS, padded_batch_size=Optional(Whole(1)), augment=AUGMENTATION,
    label_smoothing=SHARE,
)  # fmt: skip
def fit(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: State,
    split: Split,
    order: jax.Array,
    batch_size: jax.typing.ArrayLike,
    *,
    num_steps: int,
    padded_batch_size: int | None = None,
    augment: Augmentation | None = None,
    label_smoothing: jax.typing.ArrayLike | None = None,
) -> tuple[State, jax.Array]:
    """Takes `num_steps` training steps: a `lax.scan` over batches drawn from `split` on the device.

    Step i of this call trains on the examples `order[i * batch_size : (i + 1) * batch_size]`. To continue a run, give
    it the order from where the state stands: `example_order(...)[state.step * batch_size :]`.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      state: the state to start from.
      split: the training split, images `[N, H, W, C]` uint8 and labels `[N]` int32.
      order: int32 indices into the split, at least `num_steps * batch_size` of them, from `jm.example_order`.
      batch_size: `[]` int; may be traced if `padded_batch_size` is given.
      num_steps: T, static.
      padded_batch_size: B, static, at least `batch_size`; each batch is padded to it and masked. Default `batch_size`.
      augment: as in `train_step`.
      label_smoothing: as in `losses.cross_entropy`.

    Returns:
      The state after the last step, and the batch losses before each step, `[T]` float32.
    """
    # Arrays of numpy cannot be indexed by traced numbers.
    split, order = jax.tree.map(jnp.asarray, split), jnp.asarray(order, jnp.int32)
    rows = jnp.arange(batch_size if padded_batch_size is None else padded_batch_size, dtype=jnp.int32)
    weights = (rows < batch_size).astype(jnp.float32)

    def step(state, i):
        # Past the end the last example is repeated: padding must be finite, and here it is a real image.
        examples = order.at[i * batch_size + rows].get(mode="clip")
        batch = Batch(split.images[examples], split.labels[examples], weights)
        return train_step(model, optimizer, state, batch, augment, label_smoothing)

    return jax.lax.scan(step, state, jnp.arange(num_steps, dtype=jnp.int32))


@checked_by(check_evaluation, model=MODULE, params=PARAMS, split=SPLIT, batch_size=Whole(1))
def evaluate(
    model: nn.Module, params: optax.Params, split: Split, *, batch_size: int = EVALUATION_BATCH_SIZE
) -> Metrics:
    """Returns accuracy and loss on every image of a split, computed in batches of a fixed size.

    Args:
      model: a linen module from images to logits.
      params: its parameters.
      split: images `[N, H, W, C]` uint8 and labels `[N]` int32.
      batch_size: images at a time; decides memory and speed alone.
    """
    num_images = len(split.labels)
    batch_size = min(batch_size, num_images)
    starts = jnp.arange(0, num_images, batch_size, dtype=jnp.int32)
    return metrics(*batch_sums(model, params, split, starts, batch_size), num_images)


def batch_sums(
    model: nn.Module, params: optax.Params, split: Split, starts: jax.Array, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the number of correct images and the sum of losses, each `[S]`, of the batches that begin at `starts`.

    Args:
      model: a linen module from images to logits.
      params: its parameters.
      split: images `[N, H, W, C]` uint8 and labels `[N]` int32.
      starts: `[S]` int32; the part of a batch beyond the last image is not counted.
      batch_size: images of each batch.
    """
    split = jax.tree.map(jnp.asarray, split)
    num_images = split.labels.shape[0]

    def sums(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        weights = (rows < num_images).astype(jnp.float32)
        labels = split.labels.at[rows].get(mode="clip")
        logits = predict(model, params, split.images.at[rows].get(mode="clip"))
        loss_sum = losses.masked_sum(losses.cross_entropy_per_example(logits, labels), weights)
        return losses.num_correct(logits, labels, weights), loss_sum

    return jax.lax.map(sums, starts)


def metrics(correct: jax.Array, loss_sums: jax.Array, num_images: int) -> Metrics:
    """Returns accuracy and loss from the sums over batches, `[S]` each, of all images."""
    loss = jnp.sum(loss_sums) / num_images
    accuracy = jnp.sum(correct, dtype=jnp.int32).astype(jnp.float32) / num_images
    return Metrics(jnp.where(jnp.isfinite(loss), accuracy, jnp.nan), loss)

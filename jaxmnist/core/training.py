"""Training and evaluation of one run, as pure functions; nothing here is jitted or knows about sweeps.

Shapes: N images of a split, B examples of a (padded) batch, H x W x C an image, K classes, T steps.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import checks
from jaxmnist.core import losses, training_checks
from jaxmnist.core.model import apply, named
from jaxmnist.core.state import NEVER, State
from jaxmnist.data.dataset import Split, check_labels, check_split

EVALUATION_BATCH_SIZE = 250
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


class Metrics(NamedTuple):
    """Quality on one whole split.

    Attributes:
      accuracy: `[]` float32, fraction of the images classified correctly; nan where the loss is not finite,
        since the largest of several nan is no prediction.
      loss: `[]` float32, mean cross-entropy in nats per example.
    """

    accuracy: jax.Array
    loss: jax.Array


def to_unit_range(images: jax.Array) -> jax.Array:
    """Returns uint8 images as float32 in `[0, 1]`; the one place where pixels are scaled."""
    return images.astype(jnp.float32) / 255


def predict(model: nn.Module, params: optax.Params, images: jax.Array) -> jax.Array:
    """Returns the logits `[B, K]` float32 of uint8 images `[B, H, W, C]`, without dropout."""
    return _logits(model, params, to_unit_range(images))


def _logits(model: nn.Module, params: optax.Params, inputs: jax.Array, **keys) -> jax.Array:
    """Returns the logits `[B, K]` of float32 images, or raises ValueError where model, parameters and images differ."""
    try:
        logits = cast(jax.Array, apply(model, params, inputs, **keys))
    except Exception as error:  # flax raises many kinds
        raise ValueError(
            f"model {named(model)} does not take these params for images of shape {inputs.shape[1:]}: "
            f"{checks.reason(error)}"
        ) from error
    if getattr(logits, "ndim", None) != 2 or logits.shape[0] != inputs.shape[0]:
        raise ValueError(f"model {named(model)} gives {checks.shown(logits)}; logits [B, K] are needed")
    return logits


def diverged(loss: jax.Array, num_classes: int) -> jax.Array:
    """Returns whether a batch loss means divergence: it is not finite, or above `100 * log(num_classes)`.

    The bound is 100 times the loss of a guess at random. A softmax regression on MNIST at learning rate 1e6 stays
    finite with losses of 1e5; at rate 10 it learns, and its batch losses stay below the bound but for those of 8
    examples, some of which are above it in the first steps.

    Args:
      loss: `[]` float32, nats per example.
      num_classes: K.
    """
    # Written so that nan, for which every comparison is false, counts as diverged.
    return ~(loss <= 100 * math.log(num_classes))


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    state: State,
    images: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    augment: Augmentation | None = None,
    label_smoothing: jax.typing.ArrayLike | None = None,
) -> tuple[State, jax.Array]:
    """Takes one optimizer step on one batch.

    Args:
      model: a linen module from images to logits `[B, K]`.
      optimizer: an optax gradient transformation.
      state: the state before the step.
      images: `[B, H, W, C]` uint8.
      labels: `[B]` int32.
      weights: `[B]` float32; 0 marks padding.
      augment: a function of a key and images `[B, H, W, C]` float32 in `[0, 1]` that changes the images, such as
        `jaxmnist.augmentation.Affine()`; none by default.
      label_smoothing: as `losses.cross_entropy`.

    Returns:
      The state after the step, and the batch's mean cross-entropy before it, `[]` float32.

    Raises:
      ValueError: an argument is none of these, or they do not fit together.
    """
    _check_step(model, optimizer, state, augment, label_smoothing)
    training_checks.check_images("images", images)
    check_labels("labels", labels, images.shape[0])

    def is_mask(values):
        return bool(np.isfinite(values).all() and (values >= 0).all() and (values > 0).any())

    allowed = f"a float array [{images.shape[0]}] of finite weights from 0 on, not all of them 0,"
    checks.array("weights", weights, allowed, "f", images.shape[0], is_allowed=is_mask)
    dropout_key, augmentation_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    inputs = to_unit_range(images)
    if augment is not None:
        inputs = augment(augmentation_key, inputs)

    def loss_and_logits(params):
        logits = _logits(model, params, inputs, dropout=dropout_key)
        check_labels("labels", labels, images.shape[0], logits.shape[-1])
        return losses.cross_entropy(logits, labels, weights, label_smoothing), logits

    (loss, logits), grads = jax.value_and_grad(loss_and_logits, has_aux=True)(state.params)
    try:
        # Adam's bias correction would else be of 64 bits where JAX_ENABLE_X64 is set, and runs differ by rounding.
        with jax.enable_x64(False):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"state.opt_state is not one of this optimizer and params: {checks.reason(error)}") from error
    step = state.step + 1
    first_divergence = diverged(loss, logits.shape[-1]) & (state.diverged_step == NEVER)
    return (
        State(
            key=state.key,
            step=step,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            diverged_step=jnp.where(first_divergence, step, state.diverged_step),
        ),
        loss,
    )


def _check_step(model, optimizer, state, augment, label_smoothing) -> None:
    """Raises ValueError where what all steps share is not as `train_step` takes it."""
    training_checks.check_step(model, optimizer, augment, label_smoothing)
    if not isinstance(state, State):
        checks.refuse("state", state, "a State, as init_state returns it,")


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

    Step i of this call trains on the examples `order[i * batch_size : (i + 1) * batch_size]`. Give it the order
    from where the state stands: `example_order(...)[state.step * batch_size :]` continues a run.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      state: the state to start from.
      split: the training split, images `[N, H, W, C]` uint8 and labels `[N]` int32.
      order: int32 indices into the split, at least `num_steps * batch_size` of them, from
        `jaxmnist.data.example_order`.
      batch_size: `[]` int; may be traced where `padded_batch_size` is given.
      num_steps: T, static.
      padded_batch_size: B, static, at least `batch_size`; each batch is padded to it and masked. Default
        `batch_size`.
      augment: as `train_step`.
      label_smoothing: as `losses.cross_entropy`.

    Returns:
      The state after the last step, and the batch losses before each step, `[T]` float32.

    Raises:
      ValueError: an argument is none of these, or they do not fit together.
    """
    _check_step(model, optimizer, state, augment, label_smoothing)
    check_split("split", split)
    padded_batch_size = training_checks.check_order(split, order, batch_size, num_steps, padded_batch_size)
    # Arrays of numpy cannot be indexed by traced numbers.
    split, order = jax.tree.map(jnp.asarray, split), jnp.asarray(order, jnp.int32)
    rows = jnp.arange(padded_batch_size, dtype=jnp.int32)
    weights = (rows < batch_size).astype(jnp.float32)

    def step(state, i):
        # Past the end the last example is repeated: padding must be finite, and here it is a real image.
        examples = order.at[i * batch_size + rows].get(mode="clip")
        batch = split.images[examples], split.labels[examples], weights
        return train_step(model, optimizer, state, *batch, augment, label_smoothing)

    return jax.lax.scan(step, state, jnp.arange(num_steps, dtype=jnp.int32))


def evaluate(
    model: nn.Module, params: optax.Params, split: Split, *, batch_size: int = EVALUATION_BATCH_SIZE
) -> Metrics:
    """Returns accuracy and loss on every image of a split, computed in batches of a fixed size.

    Args:
      model: a linen module from images to logits.
      params: its parameters.
      split: images `[N, H, W, C]` uint8 and labels `[N]` int32.
      batch_size: images at a time; decides memory and speed alone.

    Raises:
      ValueError: an argument is none of these, or the parameters are not of this model and such images.
    """
    training_checks.check_built(model)
    check_split("split", split)
    training_checks.check_params(params)
    checks.whole("batch_size", batch_size, 1)
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
      starts: `[S]` int32; what of a batch lies beyond the last image is not counted.
      batch_size: images of each batch.
    """
    split = jax.tree.map(jnp.asarray, split)
    num_images = split.labels.shape[0]

    def sums(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        weights = (rows < num_images).astype(jnp.float32)
        images = split.images.at[rows].get(mode="clip")
        labels = split.labels.at[rows].get(mode="clip")
        logits = predict(model, params, images)
        check_labels("split.labels", split.labels, num_images, logits.shape[-1])
        loss_sum = losses.masked_sum(losses.cross_entropy_per_example(logits, labels), weights)
        return losses.num_correct(logits, labels, weights), loss_sum

    return jax.lax.map(sums, starts)


def metrics(correct: jax.Array, loss_sums: jax.Array, num_images: int) -> Metrics:
    """Returns accuracy and loss from the sums over batches, `[S]` each, of all images."""
    loss = jnp.sum(loss_sums) / num_images
    accuracy = jnp.sum(correct, dtype=jnp.int32).astype(jnp.float32) / num_images
    return Metrics(jnp.where(jnp.isfinite(loss), accuracy, jnp.nan), loss)


def probabilities(model: nn.Module, params: optax.Params, images: jax.Array) -> jax.Array:
    """Returns the class probabilities `[N, K]` float32 of images `[N, H, W, C]` uint8, in batches of a fixed size."""
    num_images = images.shape[0]
    batch_size = min(EVALUATION_BATCH_SIZE, num_images)

    # Not `lax.map` over images with its `batch_size`: that is a `vmap`, under which a convolution is slower.
    def of_batch(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        return jax.nn.softmax(predict(model, params, images.at[rows].get(mode="clip")))

    batches = jax.lax.map(of_batch, jnp.arange(0, num_images, batch_size, dtype=jnp.int32))
    return batches.reshape(-1, batches.shape[-1])[:num_images]

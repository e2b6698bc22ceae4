"""Training and evaluation of one run, as pure functions; nothing here is jitted or knows about sweeps.

Shapes: N examples of a split, B examples of a (padded) batch, K classes, T steps, S batches.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmnist.checks import FUNCTION, Optional, Whole, checked_by
from jaxmnist.core import losses, optimizers
from jaxmnist.core.arguments import (
    ARRAYS,
    AUGMENTATION,
    BATCH,
    METRICS,
    MODEL,
    NUM_STEPS,
    ORDER,
    PARAMS,
    TRANSFORMATION,
    check_evaluation,
    check_fit,
    check_step,
)
from jaxmnist.core.inputs import precision, to_unit_range
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import NO_STATE, Model, ModelLike
from jaxmnist.core.state import NEVER, STATE, State
from jaxmnist.data.dataset import SPLIT, Batch, Split

EVALUATION_BATCH_SIZE = 250
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


@functools.cache
def metrics_type(names: tuple[str, ...]) -> type[tuple]:
    """Returns a named tuple of `[]` float32 numbers, the quality on one whole split.

    Each is a mean over the split's examples; all but the loss are nan if the loss is not finite, since the largest of
    several nan is no prediction.
    """
    return collections.namedtuple("Metrics", names)


@checked_by(
    check_step, model=MODEL, optimizer=TRANSFORMATION, state=STATE, batch=BATCH, loss=FUNCTION, augment=AUGMENTATION
)
def train_step(
    model: ModelLike,
    optimizer: optax.GradientTransformation,
    state: State,
    batch: Batch,
    loss: Loss = losses.cross_entropy,
    augment: Augmentation | None = None,
) -> tuple[State, jax.Array]:
    """Takes one optimizer step on one batch.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      optimizer: an optax gradient transformation.
      state: the state before the step.
      batch: inputs `[B, ...]`, targets `[B, ...]` and weights `[B]` float32, of which 0 marks padding.
      loss: `(outputs, targets) -> [B]`, the loss of each example.
      augment: a function of a key and inputs `[B, ...]` that returns changed inputs, such as `jm.Affine()`.

    Returns:
      The state after the step, and the mean loss of the batch before it, `[]` float32.
    """
    model_key, augmentation_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    inputs = to_unit_range(batch.inputs, precision(state.params))
    if augment is not None:
        inputs = augment(augmentation_key, inputs)

    def mean_loss(params):
        outputs, after = model.apply(params, state.model_state, inputs, training=True, key=model_key)
        return losses.masked_mean(loss(outputs, batch.targets), batch.weights), (outputs, after)

    (value, (outputs, model_state)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    before, loss_at = (state.opt_state, state.params), lambda params: mean_loss(params)[0]
    params, opt_state = optimizers.update(optimizer, *before, value, grads, loss_at)
    step = state.step + 1
    # Written so that nan, for which every comparison is false, counts as diverged.
    has_diverged = ~((value <= losses.bound_of(loss, outputs)) & jnp.isfinite(value))
    is_first = has_diverged & (state.diverged_step == NEVER)
    diverged_step = jnp.where(is_first, step, state.diverged_step)
    return State(state.key, step, params, model_state, opt_state, diverged_step), value


@checked_by(
    check_fit, model=MODEL, optimizer=TRANSFORMATION, state=STATE, split=SPLIT, order=ORDER,
    batch_size=Whole(1, traced=True), num_steps=NUM_STEPS, padded_batch_size=Optional(Whole(1)), loss=FUNCTION,
    augment=AUGMENTATION,
)  # fmt: skip
def fit(
    model: ModelLike,
    optimizer: optax.GradientTransformation,
    state: State,
    split: Split,
    order: jax.Array,
    batch_size: jax.typing.ArrayLike,
    *,
    num_steps: int,
    padded_batch_size: int | None = None,
    loss: Loss = losses.cross_entropy,
    augment: Augmentation | None = None,
) -> tuple[State, jax.Array]:
    """Takes `num_steps` training steps: a `lax.scan` over batches drawn from `split` on the device.

    Step i of this call trains on the examples `order[i * batch_size : (i + 1) * batch_size]`. To continue a run, give
    it the order from where the state stands: `example_order(...)[state.step * batch_size :]`.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      optimizer: an optax gradient transformation.
      state: the state to start from.
      split: the training split, inputs `[N, ...]` and targets `[N, ...]`.
      order: int32 indices into the split, at least `num_steps * batch_size` of them, from `jm.example_order`.
      batch_size: `[]` int; may be traced if `padded_batch_size` is given.
      num_steps: T, static.
      padded_batch_size: B, static, at least `batch_size`; each batch is padded to it and masked. Default `batch_size`.
      loss: as in `train_step`.
      augment: as in `train_step`.

    Returns:
      The state after the last step, and the batch losses before each step, `[T]` float32.
    """
    # Arrays of numpy cannot be indexed by traced numbers.
    split, order = jax.tree.map(jnp.asarray, split), jnp.asarray(order, jnp.int32)
    rows = jnp.arange(batch_size if padded_batch_size is None else padded_batch_size, dtype=jnp.int32)
    weights = (rows < batch_size).astype(jnp.float32)

    def step(state, i):
        # Past the end the last example is repeated: padding must be finite, and here it is a real example.
        examples = order.at[i * batch_size + rows].get(mode="clip")
        batch = Batch(split.inputs[examples], split.targets[examples], weights)
        return train_step(model, optimizer, state, batch, loss, augment)

    return jax.lax.scan(step, state, jnp.arange(num_steps, dtype=jnp.int32))


@checked_by(
    check_evaluation,
    model=MODEL,
    params=PARAMS,
    split=SPLIT,
    model_state=ARRAYS,
    loss=FUNCTION,
    metrics=METRICS,
    batch_size=Whole(1),
)
def evaluate(
    model: ModelLike,
    params: optax.Params,
    split: Split,
    *,
    model_state: Any = NO_STATE,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    batch_size: int = EVALUATION_BATCH_SIZE,
) -> Any:
    """Returns the metrics and the loss on every example of a split, computed in batches of a fixed size.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      params: its parameters.
      split: inputs `[N, ...]` and targets `[N, ...]`.
      model_state: what else the model remembers, from `State.model_state`.
      loss: `(outputs, targets) -> [B]`, the loss of each example.
      metrics: name to a function of the same form; default the accuracy if the loss is the cross-entropy.
      batch_size: examples at a time; decides memory and speed alone.

    Returns:
      A named tuple of the metrics and `loss`, `[]` float32 each; all but the loss are nan if it is not finite.
    """
    num_examples = len(split.targets)
    batch_size = min(batch_size, num_examples)
    starts = jnp.arange(0, num_examples, batch_size, dtype=jnp.int32)
    measured = losses.measures(loss, metrics)
    sums = batch_sums(model, (params, model_state), split, starts, batch_size, measured)
    return means(sums, num_examples)


def batch_sums(
    model: Model,
    variables: tuple[optax.Params, Any],
    split: Split,
    starts: jax.Array,
    batch_size: int,
    measured: tuple[tuple[str, Loss], ...],
) -> dict[str, jax.Array]:
    """Returns the sums of what is measured over the batches that begin at `starts`, name to `[S]` float32.

    Args:
      model: the model.
      variables: its parameters and state.
      split: inputs `[N, ...]` and targets `[N, ...]`.
      starts: `[S]` int32; the part of a batch beyond the last example is not counted.
      batch_size: examples of each batch.
      measured: name to `(outputs, targets) -> [B]`.
    """
    split = jax.tree.map(jnp.asarray, split)
    num_examples = split.targets.shape[0]

    def sums(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        weights = (rows < num_examples).astype(jnp.float32)
        targets = split.targets.at[rows].get(mode="clip")
        outputs = predict(model, *variables, split.inputs.at[rows].get(mode="clip"))
        return {name: losses.masked_sum(measure(outputs, targets), weights) for name, measure in measured}

    return jax.lax.map(sums, starts)


def predict(model: Model, params: optax.Params, model_state: Any, inputs: jax.Array) -> jax.Array:
    """Returns the outputs `[B, ...]` of inputs `[B, ...]` of a split, in evaluation."""
    return model.apply(params, model_state, to_unit_range(inputs, precision(params)), training=False, key=None)[0]


def means(sums: Mapping[str, jax.Array], num_examples: int) -> Any:
    """Returns the metrics, given their sums over batches, `[S]` each, of all examples."""
    values = {name: jnp.sum(each) / num_examples for name, each in sums.items()}
    is_finite = jnp.isfinite(values["loss"])
    values = {name: value if name == "loss" else jnp.where(is_finite, value, jnp.nan) for name, value in values.items()}
    return metrics_type(tuple(values))(**values)

"""The host's loop over one long run: segments of `fit`, looks at the accuracy, checkpoints, and going on from them.

Shapes: N images of a split, H x W x C an image.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist import training
from jaxmnist.checkpoint import Checkpoints
from jaxmnist.data import Dataset, Split, example_order

STEPS_PER_SEGMENT = 10
SECONDS_PER_CHECKPOINT = 10.0

_fit = jax.jit(
    training.fit, static_argnums=(0, 1, 5), static_argnames=("num_steps", "augment"), donate_argnames="state"
)
_evaluate = jax.jit(training.evaluate, static_argnums=0)


def train_run(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    seed: int,
    *,
    batch_size: int,
    num_steps: int,
    evaluation_steps: int,
    folder: Path,
    augment: training.Augmentation | None = None,
    report: Callable[[int, list[dict[str, float]], float], None] = lambda step, rows, loss: None,
) -> tuple[optax.Params, list[dict[str, float]]]:
    """Trains one run, saving its state as it goes; a run whose folder holds a state goes on from there.

    A run that was interrupted, at whatever moment, ends with the same parameters, bit for bit, as one that was not.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      dataset: what to train on, and whose validation split is looked at.
      seed: of initial parameters, order of examples, dropout and augmentation.
      batch_size: examples per step.
      num_steps: training steps.
      evaluation_steps: steps between looks at the accuracy; the first is before training, the last after it.
      folder: where the states are kept; this run's alone.
      augment: as `training.fit`.
      report: is called after each segment with the step, all rows so far and the last batch loss (nan at the start).

    Returns:
      The final parameters, and one row for each look: `step`, `seconds` since the start (compilation included, and
      the time before an interruption), `training_accuracy` and `training_loss` on the next batch without dropout,
      `validation_accuracy`, `validation_loss`.
    """
    split, validation = jax.device_put(dataset.train), jax.device_put(dataset.validation)
    # One more batch than there are steps: the look after the last step needs a next one.
    order = example_order(len(dataset.train.labels), seed, (num_steps + 1) * batch_size)
    fit = functools.partial(_fit, model, optimizer, augment=augment)
    rows: list[dict[str, float]] = []
    begin = time.monotonic()

    def look(state, step, seconds):
        batch = order[step * batch_size : (step + 1) * batch_size]
        row = {"step": step, "seconds": seconds}
        next_batch = Split(*(field[batch] for field in dataset.train))
        for name, images in (("training", next_batch), ("validation", validation)):
            metrics = _evaluate(model, state.params, images)
            row |= {f"{name}_accuracy": float(metrics.accuracy), f"{name}_loss": float(metrics.loss)}
        rows.append(row)

    with Checkpoints(folder) as checkpoints:
        state = training.init_state(model, optimizer, seed, dataset.train.images)
        saved = checkpoints.restore(state)
        if saved is not None:
            _, state, rows[:] = saved
        else:
            look(state, 0, time.monotonic() - begin)
        report(int(state.step), rows, math.nan)
        begin = time.monotonic() - rows[-1]["seconds"]
        last_save = time.monotonic()
        for start, stop in itertools.pairwise(boundaries(int(state.step), num_steps, evaluation_steps)):
            window = jnp.asarray(order[start * batch_size : stop * batch_size])
            state, losses = fit(state, split, window, batch_size, num_steps=stop - start)
            jax.block_until_ready(state.step)
            if stop % evaluation_steps == 0 or stop == num_steps:
                look(state, stop, time.monotonic() - begin)
            report(stop, rows, float(losses[-1]))
            if stop == num_steps or time.monotonic() - last_save > SECONDS_PER_CHECKPOINT:
                checkpoints.save(stop, state, rows)
                last_save = time.monotonic()
    return state.params, rows


def boundaries(first: int, num_steps: int, evaluation_steps: int) -> list[int]:
    """Returns `first` and the later steps at which the host takes over, the last one `num_steps`.

    They depend on the numbers alone, never on where an interruption fell: `first` is one of them.
    """
    steps = {*range(0, num_steps, STEPS_PER_SEGMENT), *range(0, num_steps, evaluation_steps), num_steps}
    return sorted(step for step in steps if step >= first)

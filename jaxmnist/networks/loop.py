"""The host's loop over one long run: segments of `fit`, looks at the accuracy, checkpoints, and going on from them.

Shapes: N images of a split, H x W x C an image.
"""

import functools
import heapq
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist.core import training
from jaxmnist.core.state import State, init_state
from jaxmnist.data.dataset import Dataset, Split
from jaxmnist.data.order import example_order
from jaxmnist.host.checkpoints import Checkpoints
from jaxmnist.host.interrupts import patient
from jaxmnist.networks import spreading
from jaxmnist.sweeps.fingerprint import checksums, digest, refuse_another, trace_run

STEPS_PER_SEGMENT = 10
SECONDS_PER_CHECKPOINT = 10.0


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
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[State, list[dict[str, float]]]:
    """Trains one run, saving its state as it goes; a run whose folder holds a state goes on from there.

    A run that was interrupted, at whatever moment, ends with the same parameters, bit for bit, as one that was not.
    Where the newest state in the folder cannot be read, it goes on from the one before, or else starts again. The first
    Ctrl-C lets the segment end and saves it; a second one stops at once.

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
      warn: is called with a sentence where a state in the folder cannot be read.

    Raises:
      ValueError: the folder holds the state of another run.

    Returns:
      The final state, on one device, and one row for each look: `step`, `seconds` since the start (compilation
      included, and the time before an interruption), `training_accuracy` and `training_loss` on the next batch without
      dropout, `validation_accuracy`, `validation_loss`.
    """
    mesh = spreading.mesh_for(batch_size)
    split, validation = spreading.put(mesh, (dataset.train, dataset.validation))
    fit = functools.partial(spreading.fit, mesh, model, optimizer, augment=augment)
    rows: list[dict[str, float]] = []
    description = _described(model, optimizer, dataset, augment) | {"seed": int(seed), "batch_size": int(batch_size)}
    begin = time.monotonic()

    def order(start, stop):
        length = (stop - start) * batch_size
        return example_order(len(dataset.train.labels), seed, length, start=start * batch_size)

    def check_notes(notes):
        known = notes if isinstance(notes, dict) else {}  # an earlier version recorded the rows alone
        refuse_another(f"the training in {folder}", known.get("run", {}), description)

    def look(state, step, seconds):
        row = {"step": step, "seconds": seconds}
        next_batch = Split(*(field[order(step, step + 1)] for field in dataset.train))
        for name, images in (("training", next_batch), ("validation", validation)):
            metrics = spreading.evaluate(mesh, model, state.params, images)
            jax.block_until_ready(metrics.loss)  # where Ctrl-C is heard, as in float() it is not
            row |= {f"{name}_accuracy": float(metrics.accuracy), f"{name}_loss": float(metrics.loss)}
        rows.append(row)

    with patient() as is_stopped, Checkpoints(folder) as checkpoints:
        state = spreading.put(mesh, init_state(model, optimizer, seed, dataset.train.images))
        saved = checkpoints.restore(state, warn, check_notes)
        if saved is not None:
            _, state, notes = saved
            rows[:] = notes["rows"]
        else:
            look(state, 0, time.monotonic() - begin)
        report(int(state.step), rows, math.nan)
        begin = time.monotonic() - rows[-1]["seconds"]
        last_save = time.monotonic()
        for start, stop in itertools.pairwise(boundaries(int(state.step), num_steps, evaluation_steps)):
            state, losses = fit(state, split, jnp.asarray(order(start, stop)), batch_size, num_steps=stop - start)
            jax.block_until_ready(state.step)
            if stop % evaluation_steps == 0 or stop == num_steps:
                look(state, stop, time.monotonic() - begin)
            report(stop, rows, float(losses[-1]))
            stops = is_stopped()
            if stops or stop == num_steps or time.monotonic() - last_save > SECONDS_PER_CHECKPOINT:
                checkpoints.save(stop, state, {"run": description, "rows": rows})
                last_save = time.monotonic()
            if stops:
                raise KeyboardInterrupt(f"saved at step {stop}: the same call goes on from there")
    return jax.device_put(state, mesh.devices[0]), rows


def _described(model, optimizer, dataset: Dataset, augment) -> dict:
    """Returns what is trained and on what, in numbers that are the same in every process."""
    traced = trace_run(lambda values: (model, optimizer, {}), (), dataset.train.images.shape[1:], augment)
    return checksums(dataset) | {"computation_sha256": digest(traced)}


def boundaries(first: int, num_steps: int, evaluation_steps: int) -> Iterator[int]:
    """Yields `first` and the later steps at which the host takes over, the last one `num_steps`.

    They depend on the numbers alone, never on where an interruption fell: `first` is one of them.
    """
    multiples = (range(-(-first // every) * every, num_steps, every) for every in (STEPS_PER_SEGMENT, evaluation_steps))
    for step, _ in itertools.groupby(heapq.merge(*multiples)):
        yield step
    yield num_steps

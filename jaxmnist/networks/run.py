"""One long run: segments of `fit`, evaluations, checkpoints, and resuming from them.

Shapes: N examples of a split.
"""

import functools
import heapq
import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist.checks import FLAG, FUNCTION, PATH, SEED, Whole, checked_by
from jaxmnist.core import losses, optimizers, training
from jaxmnist.core.arguments import AUGMENTATION, METRICS, MODEL, TRANSFORMATION, check_ranges
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.state import State, init_state
from jaxmnist.data.dataset import DATASET, Dataset, Split
from jaxmnist.data.order import example_order
from jaxmnist.host.checkpoints import Checkpoints
from jaxmnist.host.interrupts import defer_interrupt
from jaxmnist.host.lock import hold
from jaxmnist.host.loop import run_segments
from jaxmnist.networks import spreading
from jaxmnist.sweeps.configure import Configured
from jaxmnist.sweeps.fingerprint import checksums, digest, raise_if_different, trace_run

STEPS_PER_SEGMENT = 10


@checked_by(
    lambda given: check_ranges(given.dataset),
    model=MODEL, optimizer=TRANSFORMATION, dataset=DATASET, seed=SEED, batch_size=Whole(1), num_steps=Whole(1),
    evaluation_steps=Whole(1), folder=PATH, wait=FLAG, loss=FUNCTION, metrics=METRICS,
    augment=AUGMENTATION, evaluation_params=FUNCTION, report=FUNCTION, warn=FUNCTION,
)  # fmt: skip
def train_run(
    model: ModelLike,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    seed: int,
    *,
    batch_size: int,
    num_steps: int,
    evaluation_steps: int,
    folder: str | os.PathLike,
    wait: bool = False,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: training.Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    report: Callable[[int, list[dict[str, float]], float], None] = lambda step, rows, loss: None,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[State, list[dict[str, float]]]:
    """Trains one run and saves its state along the way; a run whose folder holds a state resumes from there.

    A run that was interrupted, at whatever moment, ends with the same parameters, bit for bit, as one that was not. If
    the newest state in the folder cannot be read, it resumes from the one before, or else starts again. The first
    Ctrl-C lets the segment end and saves it; a second one stops at once.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      optimizer: an optax gradient transformation.
      dataset: what to train on, and whose validation split is evaluated.
      seed: of initial parameters, order of examples, dropout and augmentation.
      batch_size: examples per step.
      num_steps: training steps.
      evaluation_steps: steps between evaluations; the first is before training, the last after it.
      folder: where the states are kept; this run's alone.
      wait: whether to wait if another process or thread is using the folder, instead of raising an error.
      loss: as in `training.fit`.
      metrics: as in `training.evaluate`.
      augment: as in `training.fit`.
      evaluation_params: a function `(opt_state, params) -> params` that returns what to evaluate the model with; by
        default, averages or slow parameters where an optimizer of optax keeps them, and else those that are trained.
      report: is called after each segment with the step, all rows so far and the last batch loss (nan at the start).
      warn: is called with a sentence if a state in the folder cannot be read.

    Returns:
      The final state, on one device, and one row for each evaluation: `step`, `seconds` since the start (compilation
      included, and the time before an interruption), `training_accuracy` and `training_loss` on the next batch without
      dropout, `validation_accuracy`, `validation_loss`, or those of other metrics. `State.params` are those that are
      trained; `evaluation_params(state.opt_state, state.params)` are those that were evaluated.

    Raises:
      ValueError: the folder is in use or holds the state of another run.
    """
    mesh, folder = spreading.mesh_for(batch_size), Path(folder)
    validation = spreading.put(mesh, dataset.validation)
    order = functools.partial(_order, len(dataset.train.targets), seed, batch_size)
    rows: list[dict[str, float]] = []
    measured = losses.measures(loss, metrics)
    configured = Configured(model, optimizer, loss, augment, measured, evaluation_params)
    description = _described(configured, dataset) | {"seed": int(seed), "batch_size": int(batch_size)}

    def check_notes(notes):
        known = notes if isinstance(notes, dict) else {}  # an earlier version recorded the rows alone
        raise_if_different(f"the training in {folder}", known.get("run", {}), description)

    def evaluate(step, reached):
        jax.block_until_ready(reached.state.step)
        is_known = rows and rows[-1]["step"] >= step
        if is_known or not (step % evaluation_steps == 0 or step == num_steps):
            return
        row = {"step": step, "seconds": time.monotonic() - begin}
        next_batch = Split(*(field[order(step, step + 1)] for field in dataset.train))
        for name, split in (("training", next_batch), ("validation", validation)):
            found = spreading.evaluate(mesh, model, configured.evaluated(reached.state), split, measured)
            jax.block_until_ready(found.loss)  # where Ctrl-C is heard, as in float() it is not
            row |= {f"{name}_{metric}": float(value) for metric, value in found._asdict().items()}
        rows.append(row)

    with hold(folder, wait), defer_interrupt() as is_interrupted, Checkpoints(folder) as checkpoints:
        begin = time.monotonic()
        state = spreading.put(mesh, init_state(model, optimizer, seed, dataset.train.inputs))
        saved = checkpoints.restore(state, warn, check_notes)
        if saved is not None:
            _, state, notes = saved
            rows[:], begin = notes["rows"], time.monotonic() - notes["rows"][-1]["seconds"]
        fit = functools.partial(spreading.fit, mesh, configured)
        reached = run_segments(
            _segments(fit, state, spreading.put(mesh, dataset.train), order, (num_steps, evaluation_steps)),
            evaluate=evaluate,
            report=lambda step, reached: report(step, rows, float(reached.loss)),
            save=lambda step, reached: checkpoints.save(step, reached.state, {"run": description, "rows": rows}),
            is_interrupted=is_interrupted,
            is_last=lambda step: step == num_steps,
        )
    return jax.device_put(reached.state, mesh.devices[0]), rows


class _Reached(NamedTuple):
    """The state at the end of a segment, and the last batch loss before it."""

    state: State
    loss: float | jax.Array


def _segments(fit, state: State, split: Split, order, steps: tuple[int, int]) -> Iterator[tuple[int, _Reached]]:
    """Yields the steps at which the host takes over, and what has been reached there."""
    first = int(state.step)
    yield first, _Reached(state, math.nan)
    for start, stop in itertools.pairwise(boundaries(first, *steps)):
        rows = jnp.asarray(order(start, stop))
        state, losses = fit(state, split, rows, len(rows) // (stop - start), num_steps=stop - start)
        yield stop, _Reached(state, losses[-1])


def _order(num_examples: int, seed: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """Returns the examples of the steps from `start` to `stop`."""
    return example_order(num_examples, seed, (stop - start) * batch_size, start=start * batch_size)


def _described(configured: Configured, dataset: Dataset) -> dict:
    """Returns what is trained and on what, in numbers that are the same in every process."""
    traced = trace_run(lambda values: configured, (), dataset.train)
    return checksums(dataset) | {"computation_sha256": digest(traced)}


def boundaries(first: int, num_steps: int, evaluation_steps: int) -> Iterator[int]:
    """Yields `first` and the later steps at which the host takes over, the last one `num_steps`.

    They depend on the numbers alone, never on where an interruption fell: `first` is one of them.
    """
    multiples = (range(-(-first // every) * every, num_steps, every) for every in (STEPS_PER_SEGMENT, evaluation_steps))
    for step, _ in itertools.groupby(heapq.merge(*multiples)):
        yield step
    yield num_steps

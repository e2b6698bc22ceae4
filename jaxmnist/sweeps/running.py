"""One program of a sweep, driven in segments of steps.

Shapes: R runs, G groups of a program, P runs of a group, N images, L steps of a segment, E recorded steps.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmnist.core import training
from jaxmnist.core.state import NEVER, State
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset, Split
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.folder import Outcome, SweepFolder
from jaxmnist.sweeps.job import Job

# Of a program's time, as far as the progress bar is concerned; the rest is evaluation.
SECONDS_PER_CHECKPOINT = 10.0
TRAINING_SHARE = 0.95


class Data(NamedTuple):
    """The splits of a data set, on the devices."""

    train: Split
    validation: Split
    test: Split


def put(mesh: Mesh, dataset: Dataset) -> Data:
    """Returns a data set with a copy on each device."""
    return Data(*(programs.on_every_device(mesh, getattr(dataset, split)) for split in SPLIT_NAMES))


def run_program(
    job: Job,
    program: planning.Program,
    data: Data,
    mesh: Mesh,
    report: Callable[[int], None] = lambda step: None,
    kept: SweepFolder | None = None,
    index: int = 0,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains one program and returns its results, `[G, P]` each, and curves, `[G, P, E]`.

    Args:
      job: the sweep.
      program: some of its runs.
      data: on the devices.
      mesh: the devices.
      report: is called with the step after each segment.
      kept: where to save states along the way, and to look for those of an interrupted training.
      index: the program's number there.
      is_stopped: whether to save the states after this segment and to raise KeyboardInterrupt.
    """
    num_groups = len(program.seed)
    program = planning.filled(program, mesh.size)
    recorded_steps = planning.recorded_steps(job.num_steps, job.num_evaluations)
    recipe = programs.Recipe(job.model, job.optimizer, program.static, mesh)
    numbers = programs.inputs(mesh, job.arrays, program)
    initial = programs.init(recipe, numbers, data.train.images)
    shape = (*program.rows.shape, len(recorded_steps))
    curves = {name: np.full(shape, np.nan, np.float32) for name in _curve_names(job)}
    first = 0
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if kept is not None and kept.has_states(index):
            checkpoints = stack.enter_context(kept.checkpoints(index))
            saved = checkpoints.restore({"states": initial, "curves": curves})
            if saved is not None:
                first, tree, _ = saved
                initial, curves = tree["states"], {name: np.array(curve) for name, curve in tree["curves"].items()}
        last_save = time.monotonic()
        boundaries = planning.segments(job.num_steps, job.num_evaluations, programs.step_flops(program, initial))
        later = [step for step in boundaries if step > first]
        for step, states in train(recipe, numbers, program, data.train, initial, [first, *later]):
            jax.block_until_ready(states.step)
            if step in recorded_steps:
                for split in job.record:
                    metrics = _evaluate(recipe, numbers, states, getattr(data, split))
                    for metric, values in metrics._asdict().items():
                        curves[f"recorded_{split}_{metric}"][..., recorded_steps.index(step)] = values
            report(step)
            stops = is_stopped()
            due = time.monotonic() - last_save > SECONDS_PER_CHECKPOINT and step < job.num_steps
            if kept is not None and first < step and (due or stops):
                checkpoints = checkpoints or stack.enter_context(kept.checkpoints(index))
                checkpoints.save(step, {"states": states, "curves": curves})
                last_save = time.monotonic()
            if stops:
                raise KeyboardInterrupt(f"saved at step {step}: the same call goes on from there")
    outcome: Outcome = dict(curves)
    for split in ("validation", "test"):
        metrics = _evaluate(recipe, numbers, states, getattr(data, split))
        outcome |= {f"{split}_{metric}": np.asarray(values) for metric, values in metrics._asdict().items()}
    outcome["diverged_step"] = _diverged_steps(states, outcome["validation_loss"], job.num_steps)
    return {name: values[:num_groups] for name, values in outcome.items()}


def outcome_shapes(job: Job, program: planning.Program) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of what `run_program` returns."""
    finals = [f"{split}_{metric}" for split in ("validation", "test") for metric in training.Metrics._fields]
    shapes = dict.fromkeys([*finals, "diverged_step"], program.rows.shape)
    along = (*program.rows.shape, job.num_evaluations + 1)
    return shapes | dict.fromkeys(_curve_names(job), along)


def _curve_names(job: Job) -> list[str]:
    return [f"recorded_{split}_{metric}" for split in job.record for metric in training.Metrics._fields]


def _evaluate(recipe: programs.Recipe, numbers: programs.Inputs, states: State, split: Split):
    """Returns the metrics of all runs on a split, waiting for them where Ctrl-C is heard, as numpy does not."""
    metrics = programs.evaluate(recipe, numbers, states.params, split)
    jax.block_until_ready(metrics.loss)
    return metrics


def _diverged_steps(states: State, losses: np.ndarray, num_steps: int) -> np.ndarray:
    """Returns the first step that diverged, nan for none; the last one where only what comes after it is not finite."""
    first = np.asarray(states.diverged_step)
    return np.where(first != NEVER, first, np.where(np.isfinite(losses), np.nan, num_steps))


def train(
    recipe: programs.Recipe,
    numbers: programs.Inputs,
    program: planning.Program,
    split: Split,
    states: State,
    boundaries: Sequence[int],
) -> Iterator[tuple[int, State]]:
    """Yields the states of a program's runs, `[G, P, ...]`, at each step of `boundaries`.

    States last until the next are asked for: their memory is used again. The caller waits for them.

    Args:
      recipe: what the program is built from.
      numbers: the program's numbers, on the devices.
      program: its groups divisible by the number of devices.
      split: the training split, on the devices.
      states: those at the first of the boundaries.
      boundaries: ascending steps, as `planning.segments` returns them.
    """
    orders = programs.Orders(program, len(split.labels))

    def put_window(segment):
        return segment, programs.per_group(recipe.mesh, orders.window(*segment))

    upcoming = map(put_window, itertools.pairwise(boundaries))
    yield boundaries[0], states
    following = next(upcoming, None)
    while following is not None:
        (start, stop), window = following
        states, _ = programs.advance(
            recipe, numbers, states, window, split, num_steps=stop - start,
            padded_batch_sizes=program.padded_batch_sizes, at_once=program.at_once,
        )  # fmt: skip
        # Made while the devices are busy.
        following = next(upcoming, None)
        yield stop, states

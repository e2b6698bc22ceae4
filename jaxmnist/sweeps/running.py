"""One program of a sweep, driven in segments of steps.

Shapes: R runs, G groups of a program, P runs of a group, N images, L steps of the longest segment, E recorded steps.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmnist.core.state import NEVER, State
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset, Split
from jaxmnist.host.checkpoints import Checkpoints
from jaxmnist.host.loop import run_segments
from jaxmnist.sweeps import planning, programs, survivors
from jaxmnist.sweeps.carried import Carried
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.job import Job
from jaxmnist.sweeps.sizes import step_flops

# The share of a program's time that the progress bar gives to training; the rest is evaluation.
TRAINING_SHARE = 0.95


class Data(NamedTuple):
    """The splits of a data set, on the devices."""

    train: Split
    validation: Split
    test: Split


def put(mesh: Mesh, dataset: Dataset) -> Data:
    """Returns a data set with a copy on each device."""
    return Data(*(programs.on_every_device(mesh, getattr(dataset, split)) for split in SPLIT_NAMES))


class Reached(NamedTuple):
    """What the runs of a program have reached at the end of a segment.

    Attributes:
      states: `[G, P, ...]`.
      losses: `[G, P, L]` float32, the batch losses before each step of the segment, which mean nothing beyond its end.
    """

    states: State
    losses: Any


class Watch(NamedTuple):
    """What accompanies the training of a program.

    Attributes:
      report: called with the step after each segment.
      checkpoints: where states are saved along the way and restored from; None saves nothing.
      kept: where the last states of an earlier, shorter training are, if there was one.
      curves: those of that training, name to `[G, P, E]`.
      keep_states: whether to keep the last states of this training, in the same place.
      origin: the states that the training goes on from; None begins it.
      reached: takes the last states as well; None takes none.
      is_interrupted: whether to save the states after this segment and to stop.
    """

    report: Callable[[int], None] = lambda step: None
    checkpoints: Checkpoints | None = None
    kept: Checkpoints | None = None
    curves: Mapping[str, np.ndarray] = MappingProxyType({})
    keep_states: bool = False
    origin: Carried | None = None
    reached: Carried | None = None
    is_interrupted: Callable[[], bool] = lambda: False


def run_program(
    job: Job,
    program: planning.Program,
    data: Data,
    mesh: Mesh,
    watch: Watch = Watch(),  # noqa: B008 (it is a constant)
) -> Outcome:
    """Returns the results of one program, `[G, P]` each, and its curves, `[G, P, E]`, after training it.

    Args:
      job: the sweep.
      program: some of the sweep's runs.
      data: the splits, on the devices.
      mesh: the devices.
      watch: what accompanies the training.
    """
    num_groups = len(program.seed)
    program = planning.filled(program, mesh.size)
    recorded_steps = planning.recorded_steps(job.num_steps, job.num_evaluations)
    spec = programs.ProgramSpec(job.setup, program.static, mesh)
    inputs = programs.make_inputs(spec, job.arrays, program)
    first = 0 if watch.origin is None else watch.origin.step
    if watch.origin is None:
        states = programs.init(spec, inputs, data.train.inputs)
    else:
        states = programs.per_group(mesh, watch.origin.of(program))
    shape = (*program.rows.shape, len(recorded_steps))
    curves = {name: np.full(shape, np.nan, job.setup.dtype) for name in _curve_names(job)}
    begin, states, curves = _restored(watch, first, states, curves)

    def evaluate(step, reached):
        states = reached.states
        jax.block_until_ready(states.step)
        for split in job.record if step in recorded_steps else ():
            metrics = _evaluate(spec, inputs, states, getattr(data, split))
            for metric, values in metrics._asdict().items():
                curves[f"recorded_{split}_{metric}"][..., recorded_steps.index(step)] = values

    def save(step, reached):
        # After the last segment the results themselves are saved, unless Ctrl-C was pressed.
        if watch.checkpoints is not None and (step < job.num_steps or watch.is_interrupted()):
            watch.checkpoints.save(step, {"states": reached.states, "curves": curves})

    lengths = planning.segments(job.num_steps - first, job.num_evaluations, step_flops(program, states))
    boundaries = [begin, *(first + step for step in lengths if first + step > begin)]
    segments = train(spec, inputs, program, data.train, states, boundaries)
    states, _ = run_segments(
        segments,
        evaluate=evaluate,
        report=lambda step, reached: watch.report(step),
        save=save,
        is_interrupted=watch.is_interrupted,
    )
    if watch.reached is not None:
        watch.reached.keep(program, states)
    if watch.kept is not None and watch.keep_states:
        watch.kept.save(job.num_steps, {"states": states})
    outcome: Outcome = dict(curves)
    for split in ("validation", "test"):
        metrics = _evaluate(spec, inputs, states, getattr(data, split))
        outcome |= {f"{split}_{metric}": np.asarray(values) for metric, values in metrics._asdict().items()}
    outcome["diverged_step"] = _diverged_steps(states, outcome["validation_loss"], job.num_steps)
    return {name: values[:num_groups] for name, values in outcome.items()}


def _restored(watch: Watch, first: int, states: State, curves: Outcome) -> tuple[int, State, Outcome]:
    """Returns step, states and curves of the newest states that were saved; the given ones if none were."""
    saved = watch.checkpoints.restore({"states": states, "curves": curves}) if watch.checkpoints is not None else None
    if saved is not None:
        step, tree, _ = saved
        return step, tree["states"], {name: np.array(curve) for name, curve in tree["curves"].items()}
    earlier = watch.kept.restore({"states": states}) if watch.kept is not None else None
    if earlier is None:
        return first, states, curves
    step, tree, _ = earlier
    for name, curve in watch.curves.items():
        curves[name][: len(curve)] = curve
    return step, tree["states"], curves


def outcome_shapes(job: Job, program: planning.Program) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of what `run_program` returns."""
    finals = [f"{split}_{metric}" for split in ("validation", "test") for metric, _ in job.setup.measured]
    shapes = dict.fromkeys([*finals, "diverged_step"], program.rows.shape)
    along = (*program.rows.shape, job.num_evaluations + 1)
    return shapes | dict.fromkeys(_curve_names(job), along)


def _curve_names(job: Job) -> list[str]:
    return [f"recorded_{split}_{metric}" for split in job.record for metric, _ in job.setup.measured]


def _evaluate(spec: programs.ProgramSpec, inputs: programs.ProgramInputs, states: State, split: Split):
    """Returns the metrics of all runs on a split, after a wait that Ctrl-C can end, unlike a wait in numpy."""
    metrics = programs.evaluate(spec, inputs, states, split)
    jax.block_until_ready(metrics.loss)
    return metrics


def _diverged_steps(states: State, losses: np.ndarray, num_steps: int) -> np.ndarray:
    """Returns the first step that diverged, nan for none; `num_steps` if only the final evaluation is not finite."""
    first = np.asarray(states.diverged_step)
    return np.where(first != NEVER, first, np.where(np.isfinite(losses), np.nan, num_steps))


def train(
    spec: programs.ProgramSpec,
    inputs: programs.ProgramInputs,
    program: planning.Program,
    split: Split,
    states: State,
    boundaries: Sequence[int],
) -> Iterator[tuple[int, Reached]]:
    """Yields what a program's runs have reached at each step of `boundaries`.

    States are valid until the next are asked for, which reuse their memory. The caller waits for them.

    Args:
      spec: what the program is built from.
      inputs: the program's numbers, on the devices.
      program: the program; its groups are divisible by the number of devices.
      split: the training split, on the devices.
      states: those at the first of the boundaries.
      boundaries: ascending steps, as `planning.segments` returns them.
    """
    num_train = len(split.targets)
    max_steps = max((stop - start for start, stop in itertools.pairwise(boundaries)), default=0)

    def put_window(ends):
        start, stop = ends
        segment, num_steps = programs.make_segment(program, stop - start, max_steps)
        window = programs.order_window(program, num_train, start, stop, segment.max_steps)
        return stop, programs.per_group(spec.mesh, window), num_steps, segment

    def advance(inputs, states, arguments, segment):
        places = survivors.places(program, np.asarray(inputs.ended), spec.mesh.size)
        if places is None:
            return programs.advance(spec, inputs, states, *arguments, segment=segment)
        moved, states = programs.move(spec.mesh, (inputs._replace(batch_size=None), states), places)
        moved = moved._replace(batch_size=inputs.batch_size)
        reached = programs.advance(spec, moved, states, *arguments, segment=segment)
        return programs.move(spec.mesh, reached, survivors.inverse(places))

    upcoming = map(put_window, itertools.pairwise(boundaries))
    yield boundaries[0], Reached(states, np.empty((*states.step.shape, 0), np.float32))
    following = next(upcoming, None)
    while following is not None:
        stop, window, num_steps, segment = following
        states, losses, ended = advance(inputs, states, (window, split, num_steps), segment)
        inputs = inputs._replace(ended=ended)
        # Made while the devices are busy.
        following = next(upcoming, None)
        yield stop, Reached(states, losses)

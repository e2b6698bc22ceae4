"""A sweep: `jit(vmap(vmap(fit)))` over groups of runs that share their batches, driven in segments of steps.

Shapes: R runs, G groups of a program, P runs of a group, N images, L steps of a segment, E recorded steps.
"""

import functools
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import planning, programs, training
from jaxmnist.data import Dataset, Split
from jaxmnist.programs import OptimizerFactory
from jaxmnist.progress import progress_bar

if TYPE_CHECKING:
    import xarray as xr

MIN_SEGMENTS = 20


def sweep(
    model: nn.Module,
    optimizer: OptimizerFactory,
    runs: planning.Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    num_evaluations: int = 1,
    record: Sequence[str] = ("validation",),
    progress: bool = True,
) -> "xr.Dataset":
    """Trains all runs at once and returns their results by hyperparameter.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax factory such as `optax.sgd`, or any function that returns a gradient transformation. It is
        called inside the compiled program, with a run's values of every name in `runs` but `batch_size`, `seed` and
        the names of fields of the model (`dropout_rate` of a `CNN`), which are set there; all as traced float32.
      runs: name to `[R]` values, from `jaxmnist.grid`; with `batch_size` and `seed`.
      dataset: what to train and evaluate on, from `jaxmnist.load`.
      num_steps: training steps of every run (the budget is equal steps).
      num_evaluations: how often along training to evaluate, evenly. Above 1, the result has the curves
        `recorded_*` with a dim `step` that begins at 0.
      record: the splits that the curves are recorded on, of `"validation"` and `"test"`.
      progress: whether to show a bar on standard error.

    Returns:
      A data set with one dim per hyperparameter, sorted, where the runs are a full grid, and one dim `run` where
      not; the variables are `validation_accuracy`, `validation_loss`, `test_accuracy`, `test_loss` (accuracies
      as fractions, losses in nats) and `diverged_step` (nan where a run did not diverge).

    Raises:
      ValueError: bad runs, numbers of steps or evaluations, or hyperparameters that the optimizer does not take.
    """
    from jaxmnist import results

    arrays = check(model, optimizer, runs, dataset, num_steps, num_evaluations)
    planned = planning.plan(arrays)
    boundaries, recorded_steps = segments(num_steps, num_evaluations)
    num_runs = len(arrays["seed"])
    work = [program.rows.shape[1] * float(program.batch_size.sum()) for program in planned]
    split = jax.device_put(dataset.train)
    evaluated = {"validation": jax.device_put(dataset.validation), "test": jax.device_put(dataset.test)}
    values: dict[str, np.ndarray] = {}
    with progress_bar("sweep", num_steps * sum(work), progress) as show:

        def report(index, step):
            runs_done = sum(program.rows.size for program in planned[: index + (step == num_steps)])
            text = f"{runs_done}/{num_runs} runs, program {index + 1}/{len(planned)}, step {step}/{num_steps}"
            show(num_steps * sum(work[:index]) + step * work[index], text)

        for index, program in enumerate(planned):
            outcome = _run_program(
                model, optimizer, arrays, program, split, evaluated, boundaries, recorded_steps, record,
                functools.partial(report, index),
            )  # fmt: skip
            for name, of_program in outcome.items():
                array = values.setdefault(name, np.empty((num_runs, *of_program.shape[2:]), of_program.dtype))
                array[program.rows] = of_program
    return results.label(arrays, values, recorded_steps, describe(model, optimizer, dataset, num_steps))


def describe(model: nn.Module, optimizer: OptimizerFactory, dataset: Dataset, num_steps: int) -> dict:
    """Returns what a result says of itself beside its numbers."""
    versions = {package.__name__: package.__version__ for package in (jax, optax, np)}
    return {
        "dataset": dataset.name,
        "num_train": len(dataset.train.labels),
        "num_validation": len(dataset.validation.labels),
        "num_test": len(dataset.test.labels),
        "num_classes": len(dataset.class_names),
        "model": f"{type(model).__name__}({', '.join(f'{k}={v}' for k, v in _fields(model).items())})",
        "optimizer": getattr(optimizer, "__name__", str(optimizer)),
        "budget": f"equal steps: {num_steps}",
        "num_steps": num_steps,
        "backend": jax.default_backend(),
        "versions": " ".join(f"{name}=={version}" for name, version in versions.items()),
    }


def _fields(model):
    return {name: value for name, value in vars(model).items() if isinstance(value, int | float | str)}


def check(
    model: nn.Module,
    optimizer: OptimizerFactory,
    runs: planning.Runs,
    dataset: Dataset,
    num_steps: int,
    num_evaluations: int,
) -> dict[str, np.ndarray]:
    """Returns the runs as arrays, once everything that can be known before training has been checked.

    Raises:
      ValueError: as `sweep`.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; at least 1 training step is needed")
    if not 1 <= num_evaluations <= num_steps:
        raise ValueError(f"num_evaluations is {num_evaluations}; it lies between 1 and num_steps, {num_steps}")
    arrays = planning.check_runs(runs, len(dataset.train.labels))
    names = planning.hyperparameter_names(arrays)
    of_optimizer = [name for name in names if name not in programs.model_fields(model)]
    try:
        inspect.signature(optimizer).bind(**dict.fromkeys(of_optimizer))
    except TypeError as error:
        called = getattr(optimizer, "__name__", optimizer)
        raise ValueError(f"optimizer {called} does not take the hyperparameters {of_optimizer}: {error}") from None
    image = jax.ShapeDtypeStruct((1, *dataset.train.images.shape[1:]), jnp.float32)
    for name in names:
        _check_traceable(model, optimizer, arrays, name, image)
    logits, _ = jax.eval_shape(lambda key, x: model.init_with_output(key, x), jax.random.key(0), image)
    if logits.shape != (1, len(dataset.class_names)):
        raise ValueError(
            f"{type(model).__name__} gives logits of shape {logits.shape} for an image of {dataset.name}, which has "
            f"{len(dataset.class_names)} classes: set num_classes={len(dataset.class_names)}"
        )
    return arrays


def _check_traceable(model, optimizer: OptimizerFactory, arrays: planning.Runs, name: str, image) -> None:
    """Raises where a name's value is needed while the program is built, so that it cannot be mapped over."""
    others = {other: float(arrays[other][0]) for other in planning.hyperparameter_names(arrays) if other != name}

    def step(value, pixels):
        configured, transformation = programs.configure(model, optimizer, {**others, name: value})
        params = configured.init(jax.random.key(0), pixels)
        configured.apply(params, pixels, rngs={"dropout": jax.random.key(0)})
        return transformation.update(params, transformation.init(params), params)

    owner = type(model) if name in programs.model_fields(model) else optimizer
    called = getattr(owner, "__name__", str(owner))
    try:
        jax.eval_shape(step, jnp.zeros(()), image)
    except (jax.errors.ConcretizationTypeError, TypeError):
        raise ValueError(
            f"{name} cannot be an axis: {called} needs its value while the program is built; fix it, as in "
            f"{called}({name}=...) or functools.partial({called}, {name}=...)"
        ) from None


def segments(num_steps: int, num_evaluations: int) -> tuple[list[int], list[int]]:
    """Returns after which steps the host takes over, from 0 to `num_steps`, and which of these are recorded.

    Segments give the progress bar its place. They are of one length where a division near `MIN_SEGMENTS` allows it,
    since each length is compiled once.
    """
    least = min(num_steps, num_evaluations * -(-MIN_SEGMENTS // num_evaluations))
    counts = range(least, min(num_steps, 2 * least) + 1)
    even = [count for count in counts if num_steps % count == 0 and count % num_evaluations == 0]
    count = (even or [least])[0]
    recorded = [round(i * num_steps / num_evaluations) for i in range(num_evaluations + 1)]
    boundaries = {round(i * num_steps / count) for i in range(count + 1)}
    return sorted(boundaries | set(recorded)), recorded if num_evaluations > 1 else [0, num_steps]


def train(
    model: nn.Module,
    optimizer: OptimizerFactory,
    arrays: planning.Runs,
    program: planning.Program,
    split: Split,
    boundaries: Sequence[int],
) -> Iterator[tuple[int, training.State]]:
    """Yields the states of a program's runs, `[G, P, ...]`, at each step of `boundaries`, the first of which is 0.

    States last until the next are asked for: their memory is used again. The caller waits for them.

    Args:
      model: as `sweep`.
      optimizer: as `sweep`.
      arrays: the checked runs.
      program: some of them, from `jaxmnist.plan`.
      split: the training split, on the device.
      boundaries: ascending steps, as `segments` returns them.
    """
    hyperparameters = _hyperparameters(arrays, program)
    batch_sizes = jnp.asarray(program.batch_size, jnp.int32)
    orders = programs.Orders(program, len(split.labels), boundaries[-1])
    states = programs.init(model, optimizer, hyperparameters, jnp.asarray(program.seed, jnp.int32), split.images)
    yield 0, states
    for start, stop in itertools.pairwise(boundaries):
        states, _ = programs.advance(
            model, optimizer, hyperparameters, states, split, orders.window(start, stop), batch_sizes,
            num_steps=stop - start, padded_batch_size=program.padded_batch_size,
            groups_at_once=programs.groups_at_once(model, program, split.images.shape[1:]),
        )  # fmt: skip
        yield stop, states


def _hyperparameters(arrays: planning.Runs, program: planning.Program) -> dict[str, jax.Array]:
    return {
        name: jnp.asarray(arrays[name][program.rows], jnp.float32) for name in planning.hyperparameter_names(arrays)
    }


def _run_program(
    model, optimizer, arrays, program, split, evaluated, boundaries, recorded_steps, record, report
) -> dict[str, np.ndarray]:
    """Trains one program and returns its results, `[G, P]` each, and curves, `[G, P, E]`."""
    hyperparameters = _hyperparameters(arrays, program)
    evaluate = functools.partial(programs.evaluate, model, optimizer, hyperparameters)
    recording = record if len(recorded_steps) > 2 else ()
    curves: dict[str, list] = {}
    for step, states in train(model, optimizer, arrays, program, split, boundaries):
        jax.block_until_ready(states.step)
        report(step)
        for name in recording if step in recorded_steps else ():
            metrics = evaluate(states.params, evaluated[name])
            curves.setdefault(f"recorded_{name}_accuracy", []).append(np.asarray(metrics.accuracy))
            curves.setdefault(f"recorded_{name}_loss", []).append(np.asarray(metrics.loss))
    outcome = {name: np.stack(curve, axis=-1) for name, curve in curves.items()}
    for name, images in evaluated.items():
        metrics = evaluate(states.params, images)
        outcome[f"{name}_accuracy"], outcome[f"{name}_loss"] = np.asarray(metrics.accuracy), np.asarray(metrics.loss)
    first = np.asarray(states.diverged_step)
    outcome["diverged_step"] = np.where(first == training.NEVER, np.nan, first)
    return outcome

"""Everything about a sweep that can be known before it trains."""

import functools
import importlib.metadata
import inspect
import json
import platform
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist import arguments, programs
from jaxmnist.arguments import MAX_STEPS
from jaxmnist.data import SPLIT_NAMES, Dataset, check_dataset
from jaxmnist.files import FORMAT
from jaxmnist.planning import Static
from jaxmnist.runs import Runs, check_runs, hyperparameter_names

RESERVED_NAMES = frozenset({"step", "run", "row", "finished"})


class Checked(NamedTuple):
    """Runs that can be trained.

    Attributes:
      arrays: name to `[R]` values.
      static: the names that programs are built with, one program for each of their values: strings, booleans, and
        numbers that decide a shape or a branch. All others are traced.
    """

    arrays: dict[str, np.ndarray]
    static: tuple[str, ...]


class Job(NamedTuple):
    """What every program of a sweep needs to know beside its runs and the data.

    Attributes:
      model: a linen module from images to logits.
      optimizer: an optax factory.
      arrays: the checked runs.
      num_steps: training steps.
      num_evaluations: how often along training to evaluate.
      record: the splits on which that is recorded.
    """

    model: nn.Module
    optimizer: programs.OptimizerFactory
    arrays: dict[str, np.ndarray]
    num_steps: int
    num_evaluations: int
    record: tuple[str, ...]


def check(
    model: nn.Module,
    optimizer: programs.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    num_steps: int,
    num_evaluations: int = 1,
    record: Sequence[str] = (),
) -> Checked:
    """Returns the runs, once everything that can be known before training has been checked.

    Raises:
      ValueError: as `sweep`.
    """
    check_model(model)
    arguments.function("optimizer", optimizer)
    check_dataset(dataset)
    arguments.whole("num_steps", num_steps, 1, MAX_STEPS, "2**31 - 1")
    arguments.whole("num_evaluations", num_evaluations, 1, num_steps, f"num_steps, {num_steps},")
    arguments.choices("record", record, SPLIT_NAMES, least=0)
    arrays = check_runs(runs, len(dataset.train.labels))
    reserved = RESERVED_NAMES & set(arrays)
    if reserved:
        raise ValueError(f"{min(reserved)} cannot be a hyperparameter: results use that name for something else")
    names = hyperparameter_names(arrays)
    of_optimizer = [name for name in names if name not in programs.model_fields(model) | programs.LOSS_NAMES]
    try:
        inspect.signature(optimizer).bind(**dict.fromkeys(of_optimizer))
    except TypeError as error:
        raise ValueError(
            f"optimizer {_called(optimizer)} does not take the hyperparameters {of_optimizer}: {error}"
        ) from None
    smoothing = arrays.get("label_smoothing", np.zeros(1))
    if smoothing.dtype.kind not in "iuf" or not ((smoothing >= 0) & (smoothing <= 1)).all():
        raise ValueError(f"label_smoothing has the values {np.unique(smoothing).tolist()}; it lies in [0, 1]")
    static = _static_names(model, optimizer, arrays, dataset)
    for values in static_values(arrays, static):
        _check_static(model, optimizer, arrays, values, dataset)
    return Checked(arrays, static)


def check_model(model: nn.Module) -> None:
    """Raises ValueError where a model is no linen module."""
    if not isinstance(model, nn.Module):
        arguments.refuse("model", model, "a flax linen module")


def static_values(arrays: Runs, static: tuple[str, ...]) -> list[Static]:
    """Returns the combinations of static values that occur, in the order of the runs."""
    columns = [np.asarray(arrays[name]).tolist() for name in static]
    combinations = dict.fromkeys(zip(*columns, strict=True)) if static else {(): None}
    return [tuple(zip(static, values, strict=True)) for values in combinations]


def _static_names(model, optimizer, arrays, dataset) -> tuple[str, ...]:
    """Returns the names whose values are needed while a program is built, found out by trying."""
    names = hyperparameter_names(arrays)
    fixed = {name: arrays[name][0].item() for name in names}
    static = [name for name in names if arrays[name].dtype.kind in "bU"]
    numeric = [name for name in names if name not in static]

    def is_traceable(traced):
        try:
            _shape_of_logits(model, optimizer, tuple(fixed.items()), tuple(traced), dataset.train.images.shape[1:])
        except Exception:  # flax and optax raise many kinds where a traced value meets Python's `if` or a shape
            return False
        return True

    if not is_traceable(numeric):
        static += [name for name in numeric if not is_traceable([name])]
    return tuple(name for name in names if name in static)


def _check_static(model, optimizer, arrays, values: Static, dataset) -> None:
    """Raises where runs with these static values cannot be built."""
    names = hyperparameter_names(arrays)
    fixed = {name: arrays[name][0].item() for name in names} | dict(values)
    traced = [name for name in names if name not in dict(values)]
    try:
        image_shape = dataset.train.images.shape[1:]
        shape = _shape_of_logits(model, optimizer, tuple(fixed.items()), tuple(traced), image_shape)
    except Exception as error:  # whatever it is, it is about these values
        shown = ", ".join(f"{name}={value!r}" for name, value in fixed.items())
        raise ValueError(
            f"model {type(model).__name__} and optimizer {_called(optimizer)} cannot be built with {shown}: "
            f"{arguments.reason(error)}"
        ) from None
    num_classes = len(dataset.class_names)
    if shape != (1, num_classes):
        raise ValueError(
            f"model {type(model).__name__} gives logits of shape {shape} for an image of {dataset.name}, which has "
            f"{num_classes} classes: set num_classes={num_classes}"
        )


@functools.lru_cache(maxsize=64)
def _shape_of_logits(model, optimizer, fixed: Static, traced: tuple[str, ...], image_shape) -> tuple[int, ...]:
    """Returns the shape of one image's logits, after building one training step with these names traced."""

    def step(values, pixels):
        configured = programs.configure(model, optimizer, dict(fixed) | values)
        params = configured.model.init(jax.random.key(0), pixels)
        logits = configured.model.apply(params, pixels, rngs={"dropout": jax.random.key(0)})
        return logits, configured.optimizer.update(params, configured.optimizer.init(params), params)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    values = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in traced}
    return jax.eval_shape(step, values, image)[0].shape


def _called(optimizer) -> str:
    """Returns what an optimizer factory is called, the same in every process."""
    if isinstance(optimizer, functools.partial):
        given = [*map(str, optimizer.args), *(f"{name}={value}" for name, value in optimizer.keywords.items())]
        return f"{_called(optimizer.func)}({', '.join(given)})"
    return getattr(optimizer, "__name__", type(optimizer).__name__)


def describe(job: Job, dataset: Dataset) -> dict:
    """Returns what a result says of itself beside its numbers: numbers and strings."""
    model, arrays = job.model, job.arrays
    fields = {name: getattr(model, name) for name in sorted(programs.model_fields(model))}
    labels = b"".join(np.asarray(getattr(dataset, split).labels, np.int32).tobytes() for split in SPLIT_NAMES)
    axes = ", ".join(f"{name} ({len(np.unique(values))} values)" for name, values in arrays.items())
    values_crc32 = zlib.crc32(b"".join(name.encode() + values.tobytes() for name, values in arrays.items()))
    return {
        "format": FORMAT,
        "dataset": dataset.name,
        "num_train": len(dataset.train.labels),
        "num_validation": len(dataset.validation.labels),
        "num_test": len(dataset.test.labels),
        "num_classes": len(dataset.class_names),
        "labels_crc32": zlib.crc32(labels),
        "model": f"{type(model).__name__}({', '.join(f'{name}={value}' for name, value in fields.items())})",
        "model_fields": json.dumps(fields, default=str),
        "optimizer": _called(job.optimizer),
        "budget": f"equal steps: {job.num_steps}",
        "num_steps": job.num_steps,
        "num_evaluations": job.num_evaluations,
        "record": " ".join(job.record),
        "divergence": "first step whose batch loss is not finite or above 100 log(classes)",
        "num_runs": len(arrays["seed"]),
        "runs": f"{axes}; checksum {values_crc32}",
        "backend": jax.default_backend(),
        "num_devices": len(jax.local_devices()),
        "versions": " ".join(f"{name}=={version}" for name, version in _versions().items()),
    }


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("jaxmnist", "jax", "flax", "optax", "numpy", "xarray", "tensorflow-datasets")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}

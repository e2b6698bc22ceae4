"""Everything about a sweep that can be known before it trains."""

import functools
import hashlib
import importlib.metadata
import inspect
import json
import platform
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.extend import core

from jaxmnist import checks
from jaxmnist.checks import Choices, Whole, checked_by
from jaxmnist.core import optimizers
from jaxmnist.core.model import UnsupportedModel, model_fields, named
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset
from jaxmnist.host.files import FORMAT
from jaxmnist.sweeps import fingerprint
from jaxmnist.sweeps.arguments import TRAINED, check_evaluations
from jaxmnist.sweeps.configure import LOSS_NAMES, configure
from jaxmnist.sweeps.planning import Static
from jaxmnist.sweeps.runs import Runs, check_runs, hyperparameter_names

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
    """What is trained, on which data, and what is recorded: the one value that a sweep's functions pass on.

    Attributes:
      model: a linen module from images to logits.
      optimizer: an optax factory.
      arrays: the checked runs.
      static: names that programs are built with.
      dataset: the splits to train and evaluate on.
      num_steps: training steps.
      num_evaluations: how often along training to evaluate.
      record: the splits to evaluate on along training.
    """

    model: nn.Module
    optimizer: optimizers.OptimizerFactory
    arrays: dict[str, np.ndarray]
    static: tuple[str, ...]
    dataset: Dataset
    num_steps: int
    num_evaluations: int = 1
    record: tuple[str, ...] = ()


@checked_by(check_evaluations, **TRAINED, num_evaluations=Whole(1), record=Choices(SPLIT_NAMES, least=0))
def check(
    model: nn.Module,
    optimizer: optimizers.OptimizerFactory,
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
    job = make_job(model, optimizer, runs, dataset, num_steps, num_evaluations, record)
    return Checked(job.arrays, job.static)


def make_job(
    model: nn.Module,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    num_steps: int,
    num_evaluations: int = 1,
    record: Sequence[str] = (),
) -> Job:
    """Returns the job of a sweep, once everything that can be known before training has been checked.

    Raises:
      ValueError: as `sweep`.
    """
    arrays = check_runs(runs, len(dataset.train.labels))
    reserved = RESERVED_NAMES & set(arrays)
    if reserved:
        raise ValueError(f"{min(reserved)} cannot be a hyperparameter: results use that name for something else")
    names = hyperparameter_names(arrays)
    optimizer_names = [name for name in names if name not in {*model_fields(model), *LOSS_NAMES}]
    try:
        inspect.signature(optimizer).bind(**dict.fromkeys(optimizer_names))
    except TypeError as error:
        raise ValueError(
            f"optimizer {_called(optimizer)} does not take the hyperparameters {optimizer_names}: {error}"
        ) from None
    smoothing = arrays.get("label_smoothing", np.zeros(1))
    if smoothing.dtype.kind not in "iuf" or not ((smoothing >= 0) & (smoothing <= 1)).all():
        raise ValueError(f"label_smoothing has the values {np.unique(smoothing).tolist()}; it lies in [0, 1]")
    static = _static_names(model, optimizer, arrays, dataset)
    for values in static_values(arrays, static):
        _check_static(model, optimizer, arrays, values, dataset)
    return Job(model, optimizer, arrays, static, dataset, num_steps, num_evaluations, tuple(record))


def static_values(arrays: Runs, static: tuple[str, ...]) -> list[Static]:
    """Returns the combinations of static values that occur, in the order of the runs."""
    columns = [np.asarray(arrays[name]).tolist() for name in static]
    combinations = dict.fromkeys(zip(*columns, strict=True)) if static else {(): None}
    return [tuple(zip(static, values, strict=True)) for values in combinations]


def _static_names(model, optimizer, arrays, dataset) -> tuple[str, ...]:
    """Returns the names whose values are needed while a program is built, found by trying.

    Each combination of the values that are known to decide a program is tried, since another branch may need another
    value: what is static does not depend on the order of the values.
    """
    names = hyperparameter_names(arrays)
    static = [name for name in names if arrays[name].dtype.kind in "bU"]
    while True:
        combinations = static_values(arrays, tuple(static))
        found = {name for values in combinations for name in _untraceable(model, optimizer, arrays, values, dataset)}
        if not found:
            return tuple(name for name in names if name in static)
        static += found


def _untraceable(model, optimizer, arrays, values: Static, dataset) -> list[str]:
    """Returns the names that cannot be traced beside these static values."""
    image_shape = dataset.train.images.shape[1:]
    fixed, numeric = _split_values(arrays, values)

    def is_traceable(names):
        try:
            _trace(model, optimizer, fixed, tuple(names), image_shape)
        except Exception:  # flax and optax raise many kinds if a traced value meets Python's `if` or a shape
            return False
        return True

    return [] if is_traceable(numeric) else [name for name in numeric if not is_traceable([name])]


def _split_values(arrays, values: Static) -> tuple[Static, tuple[str, ...]]:
    """Returns a value of each hyperparameter, including these, and the names of the others."""
    names = hyperparameter_names(arrays)
    fixed = {name: arrays[name][0].item() for name in names} | dict(values)
    return tuple(fixed.items()), tuple(name for name in names if name not in dict(values))


def _check_static(model, optimizer, arrays, values: Static, dataset) -> None:
    """Raises ValueError if runs with these static values cannot be built, or would be trained wrongly."""
    fixed, traced = _split_values(arrays, values)
    try:
        shape = _trace(model, optimizer, fixed, traced, dataset.train.images.shape[1:]).out_avals[0].shape
    except UnsupportedModel:
        raise
    except Exception as error:  # any error here is caused by these values
        shown = ", ".join(f"{name}={value!r}" for name, value in fixed)
        raise ValueError(
            f"model {named(model)} and optimizer {_called(optimizer)} cannot be built with {shown}: "
            f"{checks.reason(error.__cause__ or error)}"
        ) from None
    num_classes = len(dataset.class_names)
    if shape != (1, num_classes):
        raise ValueError(
            f"model {named(model)} gives logits of shape {shape} for an image of {dataset.name}, which has "
            f"{num_classes} classes: set num_classes={num_classes}"
        )


@functools.lru_cache(maxsize=64)
def _trace(model, optimizer, fixed: Static, traced: tuple[str, ...], image_shape) -> core.ClosedJaxpr:
    """Returns the program of one run, with a value of each hyperparameter, some of which are traced."""
    return fingerprint.trace_run(
        lambda values: configure(model, optimizer, {**dict(fixed), **values}), traced, image_shape
    )


def _called(optimizer) -> str:
    """Returns what an optimizer factory is called, the same in every process."""
    if isinstance(optimizer, functools.partial):
        given = [*map(str, optimizer.args), *(f"{name}={value}" for name, value in optimizer.keywords.items())]
        return f"{_called(optimizer.func)}({', '.join(given)})"
    return getattr(optimizer, "__name__", type(optimizer).__name__)


def describe(job: Job) -> dict:
    """Returns how a result describes itself, as numbers and strings."""
    model, arrays, dataset = job.model, job.arrays, job.dataset
    fields = {name: getattr(model, name) for name in sorted(model_fields(model))}
    axes = ", ".join(f"{name} ({len(np.unique(values))} values)" for name, values in arrays.items())
    values_crc32 = zlib.crc32(b"".join(name.encode() + values.tobytes() for name, values in arrays.items()))
    return {
        "format": FORMAT,
        "dataset": dataset.name,
        "num_train": len(dataset.train.labels),
        "num_validation": len(dataset.validation.labels),
        "num_test": len(dataset.test.labels),
        "num_classes": len(dataset.class_names),
        **fingerprint.checksums(dataset),
        "model": f"{type(model).__name__}({', '.join(f'{name}={value}' for name, value in fields.items())})",
        "model_fields": json.dumps(fields, default=str),
        "optimizer": _called(job.optimizer),
        "computation_sha256": _computation(job),
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


def _computation(job: Job) -> str:
    """Returns the SHA-256 of all traced programs: it differs if sweeps of the same names compute something else."""
    sha = hashlib.sha256()
    for values in static_values(job.arrays, job.static):
        traced = _trace(
            job.model, job.optimizer, *_split_values(job.arrays, values), job.dataset.train.images.shape[1:]
        )
        sha.update(fingerprint.digest(traced).encode())
    return sha.hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("jaxmnist", "jax", "flax", "optax", "numpy", "xarray", "tensorflow-datasets")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}

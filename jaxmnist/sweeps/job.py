"""Everything about a sweep that can be known before it trains."""

import functools
import importlib.metadata
import inspect
import json
import platform
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxmnist.checks import Choices, Whole, checked_by, is_number
from jaxmnist.core import losses, optimizers
from jaxmnist.core.adapters.flags import argument_names, parameters
from jaxmnist.core.arguments import check_ranges
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset
from jaxmnist.host.files import FORMAT
from jaxmnist.sweeps import fingerprint
from jaxmnist.sweeps.arguments import TRAINED, check_evaluations
from jaxmnist.sweeps.configure import (
    Setup,
    augment_arguments,
    called,
    loss_arguments,
    make_setup,
    owners,
    precision,
)
from jaxmnist.sweeps.objects import without_objects
from jaxmnist.sweeps.runs import Runs, check_runs, hyperparameter_names
from jaxmnist.sweeps.trials import (
    check_static,
    rows_interact_in,
    shapes,
    split_values,
    static_names,
    static_values,
    trace,
)
from jaxmnist.values import captured, described

RESERVED_NAMES = frozenset({"step", "run", "row", "round", "finished"})


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
      setup: model, optimizer, loss, metrics and augmentation.
      arrays: the checked runs.
      static: names that programs are built with.
      dataset: the splits to train and evaluate on.
      num_steps: training steps.
      num_evaluations: how often along training to evaluate.
      record: the splits to evaluate on along training.
      rows_interact: whether the examples of a batch influence each other, so that batches must not be padded.
    """

    setup: Setup
    arrays: dict[str, np.ndarray]
    static: tuple[str, ...]
    dataset: Dataset
    num_steps: int
    num_evaluations: int = 1
    record: tuple[str, ...] = ()
    rows_interact: bool = False

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one example's inputs, `[1, ...]`."""
        return shapes(self.dataset.train).inputs


@checked_by(check_evaluations, **TRAINED, num_evaluations=Whole(1), record=Choices(SPLIT_NAMES, least=0))
def check(
    model: ModelLike,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    num_steps: int,
    num_evaluations: int = 1,
    record: Sequence[str] = (),
    *,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    dtype: DTypeLike = "float32",
) -> Checked:
    """Returns the runs, once everything that can be known before training has been checked.

    Raises:
      ValueError: as `sweep`.
    """
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    with precision(setup):
        job = make_job(setup, runs, dataset, num_steps, num_evaluations, record)
    return Checked(job.arrays, job.static)


def make_job(
    setup: Setup,
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
    arrays, objects = without_objects(check_runs(runs, len(dataset.train.targets)))
    on_axes = [value for _, pairs in objects for _, value in pairs]
    setup = setup._replace(objects=objects, captured=(setup.captured, captured(on_axes)))
    check_ranges(dataset)
    reserved = RESERVED_NAMES & set(arrays)
    if reserved:
        raise ValueError(f"{min(reserved)} cannot be a hyperparameter: results use that name for something else")
    _check_names(setup, hyperparameter_names(arrays))
    column = arrays.get("label_smoothing", np.zeros(1))
    # None stands for no smoothing.
    smoothing = dict(dict(objects).get("label_smoothing", ())).values() or np.unique(column).tolist()
    if not all(value is None or (is_number(value) and 0 <= value <= 1) for value in smoothing):
        raise ValueError(f"label_smoothing has the values {[*smoothing]}; it lies in [0, 1]")
    static = static_names(setup, arrays, dataset)
    combinations = static_values(arrays, static)
    for values in combinations:
        check_static(setup, arrays, values, dataset)
    interact = any([rows_interact_in(setup, arrays, values, dataset) for values in combinations])
    return Job(setup, arrays, static, dataset, num_steps, num_evaluations, tuple(record), interact)


def _check_names(setup: Setup, names: list[str]) -> None:
    """Raises ValueError if a hyperparameter belongs to two parts, or the optimizer does not take what is left to it."""
    for name in names:
        found = owners(setup, name)
        if len(found) > 1:
            raise ValueError(f"{name} is a hyperparameter of both {' and '.join(found)}; rename one of them")
    setup.model.check_values(names)
    left = [name for name in names if owners(setup, name) == ["optimizer"]]
    takes, optimizer = parameters(setup.optimizer), f"optimizer {called(setup.optimizer)}"
    takes_any = any(each.kind == inspect.Parameter.VAR_KEYWORD for each in takes.values())
    unknown = [name for name in left if not takes_any and name not in argument_names(setup.optimizer)]
    if unknown:
        accepted = {
            optimizer: argument_names(setup.optimizer),
            f"model {setup.model.name}": setup.model.arguments,
            f"loss {called(setup.loss)}": loss_arguments(setup.loss),
            **({} if setup.augment is None else {"augment": augment_arguments(setup.augment)}),
        }
        words = "; ".join(f"{part} takes {', '.join(each) or 'none'}" for part, each in accepted.items())
        raise ValueError(f"nothing takes the hyperparameter {' or '.join(unknown)}: {words}")
    required = [name for name in argument_names(setup.optimizer) if takes[name].default is inspect.Parameter.empty]
    missing = [name for name in required if name not in left]
    if missing:
        raise ValueError(f"{optimizer} needs a value of {missing[0]}, such as an axis of the runs")


def describe(job: Job) -> dict:
    """Returns how a result describes itself, as numbers and strings."""
    setup, arrays, dataset = job.setup, job.arrays, job.dataset
    return {
        "format": FORMAT,
        "dataset": dataset.name,
        "num_train": len(dataset.train.targets),
        "num_validation": len(dataset.validation.targets),
        "num_test": len(dataset.test.targets),
        "num_classes": len(dataset.class_names),
        **fingerprint.checksums(dataset),
        "model": str(setup.model),
        "model_fields": json.dumps(setup.model.defaults, default=described),
        "optimizer": called(setup.optimizer),
        "loss": called(setup.loss),
        "metrics": " ".join(name for name, _ in setup.measured),
        "dtype": setup.dtype,
        "augment": "" if setup.augment is None else described(setup.augment),
        "budget": f"equal steps: {job.num_steps}",
        "num_steps": job.num_steps,
        "num_evaluations": job.num_evaluations,
        "record": " ".join(job.record),
        "divergence": "first step whose batch loss is not finite, or above the bound that the loss declares "
        "(cross-entropy: 100 log(classes))",
        "objects": " ".join(name for name, _ in setup.objects),
        **of_runs(arrays, digests(job)),
        "backend": jax.default_backend(),
        "num_devices": len(jax.local_devices()),
        "versions": " ".join(f"{name}=={version}" for name, version in _versions().items()),
    }


def digests(job: Job) -> dict[str, str]:
    """Returns the digest of what is computed with each combination of static values, which are written as JSON."""
    return {
        json.dumps(dict(values)): fingerprint.digest(
            trace(job.setup, *split_values(job.arrays, values), shapes(job.dataset.train))
        )
        for values in static_values(job.arrays, job.static)
    }


def of_runs(arrays: Runs, computations: Mapping[str, str]) -> dict:
    """Returns what a description says of runs: how many there are, a checksum of them, and what they compute.

    Args:
      arrays: name to `[R]` values.
      computations: as `digests` returns them.
    """
    axes = ", ".join(f"{name} ({len(np.unique(values))} values)" for name, values in arrays.items())
    crc32 = zlib.crc32(b"".join(name.encode() + values.tobytes() for name, values in arrays.items()))
    return {
        "num_runs": len(arrays["seed"]),
        "runs": f"{axes}; checksum {crc32}",
        "computation_sha256": fingerprint.combined(computations.values()),
        "computations": json.dumps(computations),
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Returns the versions of what computes; a checkout that is on the path but not installed has an unknown one."""
    found = {"python": platform.python_version()}
    for name in ("jaxmnist", "jax", "flax", "optax", "numpy", "xarray", "tensorflow-datasets"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found

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
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.typing import DTypeLike

from jaxmnist import checks
from jaxmnist.checks import Choices, Whole, checked_by
from jaxmnist.core import losses, optimizers
from jaxmnist.core.adapters.factory import ModelFactory
from jaxmnist.core.influence import examples_interact, rows_interact
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike, UnsupportedModel
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset, Split, check_labels
from jaxmnist.host.files import FORMAT
from jaxmnist.sweeps import fingerprint
from jaxmnist.sweeps.arguments import TRAINED, check_evaluations
from jaxmnist.sweeps.configure import Configured, Setup, configure, make_setup, owners, parts, precision
from jaxmnist.sweeps.planning import Static
from jaxmnist.sweeps.runs import Runs, check_runs, hyperparameter_names, without_objects
from jaxmnist.values import described

# Examples that are tried for an influence on each other.
NUM_TRIED = 5
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
    setup = setup._replace(objects=objects)
    reserved = RESERVED_NAMES & set(arrays)
    if reserved:
        raise ValueError(f"{min(reserved)} cannot be a hyperparameter: results use that name for something else")
    _check_names(setup, hyperparameter_names(arrays))
    smoothing = arrays.get("label_smoothing", np.zeros(1))
    if smoothing.dtype.kind not in "iuf" or not ((smoothing >= 0) & (smoothing <= 1)).all():
        raise ValueError(f"label_smoothing has the values {np.unique(smoothing).tolist()}; it lies in [0, 1]")
    static = _static_names(setup, arrays, dataset)
    combinations = static_values(arrays, static)
    for values in combinations:
        _check_static(setup, arrays, values, dataset)
    example = shapes(dataset.train).inputs
    fixed = (dict(_split_values(arrays, values)[0]) for values in combinations)
    interact = [_rows_interact(setup.model, tuple(parts(setup, each)["model"].items()), example) for each in fixed]
    return Job(setup, arrays, static, dataset, num_steps, num_evaluations, tuple(record), any(interact))


def _check_names(setup: Setup, names: list[str]) -> None:
    """Raises ValueError if a hyperparameter belongs to two parts, or the optimizer does not take what is left to it."""
    for name in names:
        found = owners(setup, name)
        if len(found) > 1:
            raise ValueError(f"{name} is a hyperparameter of both {' and '.join(found)}; rename one of them")
    left = [name for name in names if owners(setup, name) == ["optimizer"]]
    try:
        inspect.signature(setup.optimizer).bind(**dict.fromkeys(left))
    except TypeError as error:
        raise ValueError(
            f"optimizer {_called(setup.optimizer)} does not take the hyperparameters {left}: {error}"
        ) from None


def static_values(arrays: Runs, static: tuple[str, ...]) -> list[Static]:
    """Returns the combinations of static values that occur, in the order of the runs."""
    columns = [np.asarray(arrays[name]).tolist() for name in static]
    combinations = dict.fromkeys(zip(*columns, strict=True)) if static else {(): None}
    return [tuple(zip(static, values, strict=True)) for values in combinations]


def _static_names(setup: Setup, arrays: Runs, dataset: Dataset) -> tuple[str, ...]:
    """Returns the names whose values are needed while a program is built, found by trying.

    Each combination of the values that are known to decide a program is tried, since another branch may need another
    value: what is static does not depend on the order of the values.
    """
    names = hyperparameter_names(arrays)
    static = [name for name in names if arrays[name].dtype.kind in "bU"]
    while True:
        combinations = static_values(arrays, tuple(static))
        found = {name for values in combinations for name in _untraceable(setup, arrays, values, dataset)}
        if not found:
            return tuple(name for name in names if name in static)
        static += found


def _untraceable(setup: Setup, arrays: Runs, values: Static, dataset: Dataset) -> list[str]:
    """Returns the names that cannot be traced beside these static values."""
    fixed, numeric = _split_values(arrays, values)

    def is_traceable(names):
        try:
            _trace(setup, fixed, tuple(names), shapes(dataset.train))
        except Exception:  # flax and optax raise many kinds if a traced value meets Python's `if` or a shape
            return False
        return True

    return [] if is_traceable(numeric) else [name for name in numeric if not is_traceable([name])]


def _split_values(arrays: Runs, values: Static) -> tuple[Static, tuple[str, ...]]:
    """Returns a value of each hyperparameter, including these, and the names of the others."""
    names = hyperparameter_names(arrays)
    fixed = {name: arrays[name][0].item() for name in names} | dict(values)
    return tuple(fixed.items()), tuple(name for name in names if name not in dict(values))


def _check_static(setup: Setup, arrays: Runs, values: Static, dataset: Dataset) -> None:
    """Raises ValueError if runs with these static values cannot be built, or would be trained wrongly."""
    fixed, traced = _split_values(arrays, values)
    try:
        outputs, *measured = _trace(setup, fixed, traced, shapes(dataset.train)).out_avals[: 1 + len(setup.measured)]
    except UnsupportedModel:
        raise
    except Exception as error:  # any error here is caused by these values
        given = ", ".join(f"{name}={value!r}" for name, value in fixed)
        raise ValueError(
            f"model {setup.model.name} and optimizer {_called(setup.optimizer)} cannot be built with {given}: "
            f"{checks.reason(error.__cause__ or error)}"
        ) from None
    for (name, _), found in zip(setup.measured, measured, strict=True):
        if found.shape != (1,):
            raise ValueError(f"{name} returns the shape {found.shape} for one example; one number for each is needed")
    _check_independence(configure(setup, dict(fixed)), outputs, dataset.train)
    num_classes = len(dataset.class_names)
    uses_labels = losses.unwrapped(setup.loss) is losses.cross_entropy
    if uses_labels and num_classes and outputs.shape != (1, num_classes):
        raise ValueError(
            f"model {setup.model.name} gives logits of shape {outputs.shape} for an example of {dataset.name}, which "
            f"has {num_classes} classes: set num_classes={num_classes}"
        )
    if uses_labels and not num_classes:
        for split in SPLIT_NAMES:
            targets = getattr(dataset, split).targets
            check_labels(f"dataset.{split}.targets", targets, len(targets), outputs.shape[-1])


def _check_independence(run: Configured, outputs, train: Split) -> None:
    """Raises ValueError if loss, metrics or augmentation give an example what depends on the others of its batch.

    Their numbers would depend on padding. Most often, `[B, 1]` outputs were broadcast against `[B]` targets.
    """
    rows = np.arange(NUM_TRIED) % len(train.targets)
    inputs, targets = (_distinct(np.asarray(array)[rows]) for array in train)
    drawn = np.random.default_rng(0).normal(size=(NUM_TRIED, *outputs.shape[1:])).astype(outputs.dtype)
    for measure, name in {measure: name for name, measure in (*run.measured, ("loss", run.loss))}.items():
        if losses.unwrapped(measure) not in losses.INDEPENDENT and examples_interact(measure, (drawn, targets)):
            raise ValueError(
                f"{name} gives an example a value that depends on the others of its batch; are outputs of shape "
                f"{['B', *outputs.shape[1:]]} compared with targets of shape {['B', *targets.shape[1:]]}?"
            )
    seen = np.asarray(to_unit_range(jnp.asarray(inputs)))
    if run.augment is not None and examples_interact(run.augment, (seen,), (random_key(0),)):
        raise ValueError("augment changes an example by what depends on the others of its batch")


def _distinct(examples: np.ndarray) -> np.ndarray:
    """Returns examples that differ, of which some may have been given twice; whole numbers as they are."""
    if examples.dtype.kind != "f":
        return examples
    return examples + np.arange(NUM_TRIED, dtype=examples.dtype).reshape(-1, *[1] * (examples.ndim - 1))


@functools.lru_cache(maxsize=64)
def _trace(setup: Setup, fixed: Static, traced: tuple[str, ...], train: Split) -> core.ClosedJaxpr:
    """Returns the program of one run, with a value of each hyperparameter, some of which are traced."""
    return fingerprint.trace_run(lambda values: configure(setup, {**dict(fixed), **values}), traced, train, setup.dtype)


def shapes(split: Split) -> Split:
    """Returns shapes and dtypes of one example, `[1, ...]`, in place of arrays; hashable."""
    return Split(
        *(jax.ShapeDtypeStruct((1, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype)) for array in split)
    )


@functools.lru_cache(maxsize=64)
def _rows_interact(factory: ModelFactory, values: Static, example: jax.ShapeDtypeStruct) -> bool:
    """Returns whether the examples of a training batch influence each other in the model with these values.

    Raises:
      UnsupportedModel: they do in evaluation, where the result would depend on the size of batches.
    """
    found = rows_interact(factory(**dict(values)), example)
    if found.in_evaluation:
        raise UnsupportedModel(
            f"model {factory.name} gives an example outputs that depend on the others of its batch in evaluation too, "
            "so that its accuracy would depend on the size of batches"
        )
    return found.in_training


def _called(optimizer) -> str:
    """Returns what an optimizer factory is called, the same in every process."""
    if isinstance(optimizer, functools.partial):
        given = [*map(str, optimizer.args), *(f"{name}={value}" for name, value in optimizer.keywords.items())]
        return f"{_called(optimizer.func)}({', '.join(given)})"
    return getattr(optimizer, "__name__", type(optimizer).__name__)


def describe(job: Job) -> dict:
    """Returns how a result describes itself, as numbers and strings."""
    setup, arrays, dataset = job.setup, job.arrays, job.dataset
    computations = digests(job)
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
        "optimizer": _called(setup.optimizer),
        "loss": _called(setup.loss),
        "metrics": " ".join(name for name, _ in setup.measured),
        "dtype": setup.dtype,
        "augment": "" if setup.augment is None else described(setup.augment),
        "computation_sha256": fingerprint.combined(computations.values()),
        "computations": json.dumps(computations),
        "budget": f"equal steps: {job.num_steps}",
        "num_steps": job.num_steps,
        "num_evaluations": job.num_evaluations,
        "record": " ".join(job.record),
        "divergence": "first step whose batch loss is not finite, or above the bound that the loss declares "
        "(cross-entropy: 100 log(classes))",
        "num_runs": len(arrays["seed"]),
        "runs": runs_in_words(arrays),
        "backend": jax.default_backend(),
        "num_devices": len(jax.local_devices()),
        "versions": " ".join(f"{name}=={version}" for name, version in _versions().items()),
    }


def digests(job: Job) -> dict[str, str]:
    """Returns the digest of what is computed with each combination of static values, which are written as JSON."""
    return {
        json.dumps(dict(values)): fingerprint.digest(
            _trace(job.setup, *_split_values(job.arrays, values), shapes(job.dataset.train))
        )
        for values in static_values(job.arrays, job.static)
    }


def runs_in_words(arrays: Runs) -> str:
    """Returns the names of hyperparameters, how many values each has, and a checksum of all runs in their order."""
    axes = ", ".join(f"{name} ({len(np.unique(values))} values)" for name, values in arrays.items())
    crc32 = zlib.crc32(b"".join(name.encode() + values.tobytes() for name, values in arrays.items()))
    return f"{axes}; checksum {crc32}"


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

"""What is found out about the runs of a sweep by trying them, before anything is trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxmnist import checks
from jaxmnist.core import losses
from jaxmnist.core.adapters.factory import ModelFactory
from jaxmnist.core.influence import examples_interact, rows_interact
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.model import UnsupportedModel
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset, Split, check_labels
from jaxmnist.sweeps import fingerprint
from jaxmnist.sweeps.configure import Configured, Setup, called, configure, parts
from jaxmnist.sweeps.planning import Static
from jaxmnist.sweeps.runs import Runs, hyperparameter_names

# Examples that are tried for an influence on each other.
NUM_TRIED = 5


def static_values(arrays: Runs, static: tuple[str, ...]) -> list[Static]:
    """Returns the combinations of static values that occur, in the order of the runs."""
    columns = [np.asarray(arrays[name]).tolist() for name in static]
    combinations = dict.fromkeys(zip(*columns, strict=True)) if static else {(): None}
    return [tuple(zip(static, values, strict=True)) for values in combinations]


def static_names(setup: Setup, arrays: Runs, dataset: Dataset) -> tuple[str, ...]:
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
    fixed, numeric = split_values(arrays, values)

    def is_traceable(names):
        try:
            trace(setup, fixed, tuple(names), shapes(dataset.train))
        except Exception:  # flax and optax raise many kinds if a traced value meets Python's `if` or a shape
            return False
        return True

    return [] if is_traceable(numeric) else [name for name in numeric if not is_traceable([name])]


def split_values(arrays: Runs, values: Static) -> tuple[Static, tuple[str, ...]]:
    """Returns a value of each hyperparameter, including these, and the names of the others."""
    names = hyperparameter_names(arrays)
    fixed = {name: arrays[name][0].item() for name in names} | dict(values)
    return tuple(fixed.items()), tuple(name for name in names if name not in dict(values))


def check_static(setup: Setup, arrays: Runs, values: Static, dataset: Dataset) -> None:
    """Raises ValueError if runs with these static values cannot be built, or would be trained wrongly."""
    fixed, traced = split_values(arrays, values)
    try:
        outputs, *measured = trace(setup, fixed, traced, shapes(dataset.train)).out_avals[: 1 + len(setup.measured)]
    except UnsupportedModel:
        raise
    except Exception as error:  # any error here is caused by these values
        given = ", ".join(f"{name}={value!r}" for name, value in fixed)
        raise ValueError(
            f"model {setup.model.name} and optimizer {called(setup.optimizer)} cannot be built with {given}: "
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
def trace(setup: Setup, fixed: Static, traced: tuple[str, ...], train: Split) -> core.ClosedJaxpr:
    """Returns the program of one run, with a value of each hyperparameter, some of which are traced."""
    return fingerprint.trace_run(lambda values: configure(setup, {**dict(fixed), **values}), traced, train, setup.dtype)


def shapes(split: Split) -> Split:
    """Returns shapes and dtypes of one example, `[1, ...]`, in place of arrays; hashable."""
    return Split(
        *(jax.ShapeDtypeStruct((1, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype)) for array in split)
    )


def rows_interact_in(setup: Setup, arrays: Runs, values: Static, dataset: Dataset) -> bool:
    """Returns whether the examples of a training batch influence each other in the model with these static values.

    Raises:
      UnsupportedModel: they do in evaluation, where the result would depend on the size of batches.
    """
    fixed, _ = split_values(arrays, values)
    return _rows_interact(setup.model, tuple(parts(setup, dict(fixed))["model"].items()), shapes(dataset.train).inputs)


@functools.lru_cache(maxsize=64)
def _rows_interact(factory: ModelFactory, values: Static, example: jax.ShapeDtypeStruct) -> bool:
    # Made without the fast operations, which take longer to compile.
    found = rows_interact(factory.make(**dict(values)), example)
    if found.in_evaluation:
        raise UnsupportedModel(
            f"model {factory.name} gives an example outputs that depend on the others of its batch in evaluation too, "
            "so that its accuracy would depend on the size of batches"
        )
    return found.in_training

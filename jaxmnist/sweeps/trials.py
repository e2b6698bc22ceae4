"""What is found out about the runs of a sweep by trying them, before anything is trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxmnist import checks
from jaxmnist.core import losses
from jaxmnist.core.adapters.factory import ModelFactory
from jaxmnist.core.arguments import UnfitFunction, check_measures
from jaxmnist.core.influence import examples_interact, gives_numbers, rows_interact
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.model import Model, UnsupportedModel
from jaxmnist.core.training import predict
from jaxmnist.data.dataset import SPLIT_NAMES, Dataset, Split, check_labels
from jaxmnist.sweeps import fingerprint
from jaxmnist.sweeps.configure import Configured, Setup, called, configure, parts
from jaxmnist.sweeps.planning import Static
from jaxmnist.sweeps.runs import Runs, hyperparameter_names
from jaxmnist.sweeps.sizes import sizes

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
    except (UnsupportedModel, UnfitFunction):
        raise
    except Exception as error:  # any error here is caused by these values
        _check_measures(setup, fixed, dataset.train)
        inputs = dataset.train.inputs
        given = ", ".join(f"{name}={value!r}" for name, value in fixed)
        raise ValueError(
            f"model {setup.model.name} and optimizer {called(setup.optimizer)} cannot be built with {given} for inputs "
            f"{inputs.dtype}{list(inputs.shape[1:])}: {checks.reason(error.__cause__ or error)}"
            f"{_advice(setup, fixed, traced, dataset.train)}"
        ) from None
    for (name, _), found in zip(setup.measured, measured, strict=True):
        if found.shape != (1,):
            raise ValueError(f"{name} returns the shape {found.shape} for one example; one number for each is needed")
        if name == "loss" and not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(f"loss returns {found.dtype} numbers, which have no gradient; floats are needed")
    if not sizes(setup, fixed, shapes(dataset.train).inputs).num_params:
        raise ValueError(f"model {setup.model.name} has no parameters that could be trained")
    run = configure(setup, dict(fixed))
    _check_independence(run, outputs, dataset.train)
    _check_whole_numbers(setup.model.name, run.model, dataset)
    if losses.unwrapped(setup.loss) is losses.cross_entropy:
        _check_classes(setup.model.name, outputs.shape, dataset)


def _check_measures(setup: Setup, fixed: Static, train: Split) -> None:
    """Raises ValueError if it is the loss or a metric that cannot be built, and not the model."""
    inputs = shapes(train).inputs
    try:
        run = configure(setup, dict(fixed))
        variables = jax.eval_shape(run.model.init, random_key(0), jax.eval_shape(to_unit_range, inputs))
        jax.eval_shape(functools.partial(predict, run.model), *variables, inputs)
    except Exception:  # it is the model
        return
    check_measures(run.model, variables, train, dict(run.measured), "dataset.train")


def _advice(setup: Setup, fixed: Static, traced: tuple[str, ...], train: Split) -> str:
    """Returns what to do if a model takes whole numbers and was given scaled ones."""
    if train.inputs.dtype != np.uint8:
        return ""
    inputs, targets = shapes(train)
    try:
        trace(setup, fixed, traced, Split(inputs.update(dtype=jnp.int32), targets))
    except Exception:  # it cannot be built with those either
        return ""
    return " (uint8 is scaled to [0, 1]; give whole numbers as int32)"


def _check_whole_numbers(name: str, model: Model, dataset: Dataset) -> None:
    """Raises ValueError if a model gives no numbers for the least and the largest of whole numbers, such as tokens."""
    if dataset.train.inputs.dtype.kind not in "iu" or dataset.train.inputs.dtype == np.uint8:
        return
    extremes = []
    for split in SPLIT_NAMES:
        inputs = np.asarray(getattr(dataset, split).inputs)
        values = inputs.reshape(len(inputs), -1)
        extremes.append(inputs[[values.max(axis=1).argmax(), values.min(axis=1).argmin()]])
    found = np.concatenate(extremes)
    if not gives_numbers(model, found):
        raise ValueError(
            f"model {name} gives nan or infinity for inputs that are whole numbers from {found.min()} to "
            f"{found.max()}: an embedding needs a row for each of them"
        )


def _check_classes(model_name: str, shape: tuple[int, ...], dataset: Dataset) -> None:
    """Raises ValueError unless a model has one output for each class of the labels, which begin at 0."""
    num_classes = len(dataset.class_names)
    if num_classes and shape != (1, num_classes):
        first = min(int(np.min(getattr(dataset, split).targets)) for split in SPLIT_NAMES)
        advice = f"subtract {first} from them, or " if first else ""
        raise ValueError(
            f"model {model_name} gives logits of shape {list(shape[1:])} for an example of {dataset.name}, whose "
            f"labels from {first} to {num_classes - 1} belong to {num_classes} classes: {advice}set "
            f"num_classes={num_classes}, or whatever decides its outputs"
        )
    if not num_classes:
        for split in SPLIT_NAMES:
            targets = getattr(dataset, split).targets
            check_labels(f"dataset.{split}.targets", targets, len(targets), shape[-1])


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
    model = factory.as_written(**dict(values))  # whose operations take less time to compile than fast ones
    try:
        found = rows_interact(model, example)
    except Exception as error:  # whatever the model raises for more than one example
        is_number = len(example.shape) == 1
        advice = " (an example is one number; inputs[:, None] are vectors of one number each)" if is_number else ""
        raise UnsupportedModel(
            f"model {factory.name} takes one example, and not a batch of several: {checks.reason(error)}{advice}"
        ) from None
    if found.in_evaluation:
        raise UnsupportedModel(
            f"model {factory.name} gives an example outputs that depend on the others of its batch in evaluation too, "
            "so that its accuracy would depend on the size of batches"
        )
    return found.in_training

"""What the functions of one run may be given, as data; of traced arrays, shapes and dtypes alone."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from jaxmnist import checks
from jaxmnist.checks import Array, Optional, Where, Whole
from jaxmnist.core import losses
from jaxmnist.core.adapters.factory import WORDS, argument_of_instance, default_model, is_model, model_factory
from jaxmnist.core.inputs import precision, random_key, to_unit_range
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import Model
from jaxmnist.data.dataset import MAX_EXAMPLES, SPLIT_NAMES, Batch, Dataset, check_arrays, check_labels
from jaxmnist.limits import MAX_STEPS
from jaxmnist.values import is_floating


def _is_float(value: Any) -> bool:
    try:
        return value is not None and np.dtype(value) in (np.float32, np.float64) and value is not float
    except (TypeError, ValueError):
        return False


class IsModelLike(checks.Kind):
    """Whatever a `Model` can be made of."""

    words = WORDS

    def accepts(self, value: Any) -> bool:
        return is_model(value)

    def check(self, name: str, value: Any) -> None:
        argument = argument_of_instance(value)
        if argument:
            raise ValueError(
                f"{name} is an instance of {type(value).__name__}, whose parameters are drawn already; its class, or a "
                f"function with an argument {argument} that returns one, is needed"
            )
        super().check(name, value)


class IsModel(IsModelLike):
    """Whatever a `Model` can be made of; functions of one run are given that."""

    def convert(self, value: Any) -> Model:
        return value if isinstance(value, Model) else default_model(model_factory(value))


MODEL = IsModel()
# Its hyperparameters are set before it becomes a `Model`.
UNCONFIGURED = IsModelLike()
TRANSFORMATION = Where(
    "a gradient transformation, such as optax.sgd(0.1),",
    lambda value: hasattr(value, "init") and hasattr(value, "update"),
)
PARAMS = Where(
    "a tree of float arrays",
    lambda value: bool(jax.tree.leaves(value)) and all(map(is_floating, jax.tree.leaves(value))),
)
AUGMENTATION = Optional(
    Where(
        "a function of a key and inputs, such as jm.Affine(),",
        lambda value: callable(value) and not isinstance(value, type),
    )
)
DTYPE = Where("float32 or float64", _is_float)
ARRAYS = Where(
    "a tree of arrays of numbers",
    lambda value: all(
        isinstance(leaf, jax.Array) or getattr(getattr(leaf, "dtype", None), "kind", "U") not in "UO"
        for leaf in jax.tree.leaves(value)
    ),
)
METRICS = Optional(
    Where(
        "a mapping of names, other than 'loss', to functions",
        lambda value: (
            checks.is_mapping(value)
            and all(name.isidentifier() and name != "loss" and callable(metric) for name, metric in value.items())
        ),
    )
)
NUM_STEPS = Whole(0, MAX_STEPS, "2**31 - 1")
ORDER = Array("a flat array of whole numbers", "iu", (None,))


class UnfitFunction(ValueError):  # noqa: N818 (it names what a person gave, as `UnsupportedModel` does)
    """A function of a person's that fails, or returns something else than is needed."""


class IsBatch(checks.Kind):
    """A batch whose inputs, targets and weights belong together."""

    words = "a Batch of inputs, targets and weights"

    def check(self, name: str, value: Batch) -> None:
        if not isinstance(value, Batch):
            checks.raise_invalid(name, value, self.words)
        check_arrays(name, value)
        size = value.inputs.shape[0]
        words = f"a float array [{size}] of finite weights from 0 on, not all of them 0,"
        Array(words, "f", (size,), is_allowed=_are_weights).check(f"{name}.weights", value.weights)


def _are_weights(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values > 0).any())


BATCH = IsBatch()


def check_step(given: SimpleNamespace) -> None:
    """Raises ValueError if the parameters are not the model's, or loss or augmentation do not fit the examples."""
    check_measures(given.model, (given.state.params, given.state.model_state), given.batch, {"loss": given.loss})
    check_augmentation(given.augment, given.batch.inputs, precision(given.state.params))


def check_range(name: str, array: Any, dtype: Any = None) -> None:
    """Raises ValueError if an array holds numbers beyond those of the type in which they are computed with.

    Args:
      name: that of the array in a sentence.
      array: of finite numbers.
      dtype: the type; default that in which jax holds such arrays, of 64 bits only where these are enabled.
    """
    held = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype) if dtype is None else dtype)
    if checks.is_traced(array) or held == array.dtype or held.kind not in "iuf":
        return
    limits, values = np.finfo(held) if held.kind == "f" else np.iinfo(held), np.asarray(array)
    low, high = values.min(), values.max()
    if low < limits.min or high > limits.max:
        raise ValueError(
            f"{name} has numbers from {low} to {high}, beyond what {held} holds; scale them"
            f"{', or compute in 64 bits' if dtype is None else ''}"
        )


def check_ranges(dataset: Dataset) -> None:
    """Raises ValueError if a split of the data set holds numbers beyond the type in which they are computed with."""
    for name in SPLIT_NAMES:
        for field, array in getattr(dataset, name)._asdict().items():
            check_range(f"dataset.{name}.{field}", array)


def check_augmentation(augment: Any, inputs: Any, dtype: Any) -> None:
    """Raises UnfitFunction unless an augmentation returns inputs of the shape and dtype that it was given.

    Args:
      augment: `(key, inputs) -> inputs`, or None.
      inputs: `[B, ...]`, of which shape and dtype matter.
      dtype: of all that is computed, float32 or float64.
    """
    if augment is None:
        return
    example = jax.ShapeDtypeStruct((2, *inputs.shape[1:]), jax.dtypes.canonicalize_dtype(inputs.dtype))
    seen = jax.eval_shape(lambda inputs: to_unit_range(inputs, dtype), example)
    words = f"inputs {seen.dtype}{list(seen.shape)}"
    try:
        changed = jax.eval_shape(lambda inputs: augment(random_key(0), inputs), seen)
    except Exception as error:  # whatever a person's own function raises
        raise UnfitFunction(f"augment cannot change {words}: {checks.reason(error)}") from error
    if (getattr(changed, "shape", None), getattr(changed, "dtype", None)) != (seen.shape, seen.dtype):
        raise UnfitFunction(f"augment returns {checks.shown(changed)} for {words}; the same shape and dtype are needed")


def check_evaluation(given: SimpleNamespace) -> None:
    """Raises ValueError if the parameters are not the model's, or its outputs cannot be compared with targets."""
    measured = dict(losses.measures(given.loss, given.metrics))
    check_measures(given.model, (given.params, given.model_state), given.split, measured, "split")


def check_measures(model: Model, variables, examples, measured: Mapping[str, Loss], name: str = "batch") -> None:
    """Raises ValueError unless each loss and metric gives one number for each example.

    Labels beyond the model's classes, to which cross-entropy would give a finite loss, are refused too.

    Args:
      model: the model.
      variables: its parameters and state, of which shapes and dtypes matter.
      examples: a Split or a Batch.
      measured: name to function.
      name: that of the examples in a sentence.
    """

    for field in ("inputs", "targets"):
        check_range(f"{name}.{field}", getattr(examples, field))

    def example(array):
        return jax.ShapeDtypeStruct((2, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype))

    def outputs_of(variables, inputs):
        return model.apply(*variables, to_unit_range(inputs), training=False, key=None)[0]

    outputs = jax.eval_shape(outputs_of, variables, example(examples.inputs))
    for measure_name, measure in measured.items():
        if losses.unwrapped(measure) in (losses.cross_entropy, losses.accuracy):
            if len(outputs.shape) != 2:
                raise ValueError(f"the model returns {checks.shown(outputs)}; logits [B, K] are needed")
            check_labels(f"{name}.targets", examples.targets, examples.inputs.shape[0], outputs.shape[-1])
        try:
            shape = jax.eval_shape(measure, outputs, example(examples.targets)).shape
        except Exception as error:  # whatever a person's own function raises
            raise ValueError(
                f"{measure_name} cannot compare outputs {outputs.dtype}{list(outputs.shape)} with targets "
                f"{examples.targets.dtype}{[2, *examples.targets.shape[1:]]}: {checks.reason(error)}"
            ) from error
        if shape != (2,):
            raise ValueError(f"{measure_name} returns the shape {shape} for 2 examples; one number each is needed")


def check_fit(given: SimpleNamespace) -> None:
    """Raises ValueError if the arguments of `fit` do not fit together."""
    variables = given.state.params, given.state.model_state
    check_measures(given.model, variables, given.split, {"loss": given.loss}, "split")
    check_augmentation(given.augment, given.split.inputs, precision(given.state.params))
    num_examples = given.split.targets.shape[0]
    padded = given.padded_batch_size
    if checks.is_traced(given.batch_size):
        needed, least = 0, 1
        if padded is None:
            raise ValueError("padded_batch_size is None; a whole number is needed where batch_size is traced")
    else:
        least = int(checks.as_scalar(given.batch_size))
        if least > num_examples:
            Whole(1, num_examples, f"the {num_examples} training examples").check("batch_size", least)
        needed = given.num_steps * least
        padded = least if padded is None else padded
        if padded < least:
            raise ValueError(f"padded_batch_size is {padded}; it is at least batch_size, {least}")
    if given.num_steps * padded > MAX_EXAMPLES:
        raise ValueError(
            f"num_steps is {given.num_steps} of padded_batch_size {padded}; one call takes at most 2**31 - 1 examples: "
            "call it again from the state it returns"
        )
    words = f"an int32 array of at least num_steps * batch_size indices in [0, {num_examples})"
    if given.order.shape[0] < needed:
        checks.raise_invalid("order", given.order, words)
    Array(words, "iu", (None,), is_allowed=lambda rows: rows.min() >= 0 and rows.max() < num_examples).check(
        "order", given.order
    )

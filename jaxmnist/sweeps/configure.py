"""From the hyperparameters of a run to what it is trained with."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.typing import DTypeLike

from jaxmnist.core.adapters.factory import ModelFactory, model_factory
from jaxmnist.core.adapters.flags import argument_names
from jaxmnist.core.losses import Loss, cross_entropy, measures
from jaxmnist.core.model import Model, ModelLike
from jaxmnist.core.optimizers import EvaluationParams, OptimizerFactory, evaluation_params
from jaxmnist.core.state import State
from jaxmnist.core.training import Augmentation
from jaxmnist.values import captured


class Setup(NamedTuple):
    """What all runs of a sweep are trained with, before their hyperparameters are known; hashable.

    Attributes:
      model: returns a model, given some of the hyperparameters.
      optimizer: an optax factory.
      loss: `(outputs, targets, **keywords) -> [B]`.
      measured: what is measured on whole splits, name to `(outputs, targets) -> [B]`, the loss among it.
      augment: changes inputs in training; None for nothing.
      evaluation_params: `(opt_state, params) -> params`, those to evaluate the model with.
      dtype: of all that is computed, `"float32"` or `"float64"`.
      objects: for each axis of values that are neither numbers nor strings, its name and these values, each with the
        string that stands for it in arrays and results.
      captured: changes with what these functions read from around them.
    """

    model: ModelFactory
    optimizer: OptimizerFactory
    loss: Loss
    measured: tuple[tuple[str, Loss], ...]
    augment: Augmentation | None
    evaluation_params: EvaluationParams = evaluation_params
    dtype: str = "float32"
    objects: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    captured: Hashable = None

    def __reduce__(self):
        # What the functions read is compared within a process alone, and need not be able to leave it.
        return Setup, tuple(self[:-1])


class Configured(NamedTuple):
    """What one run is trained with."""

    model: Model
    optimizer: optax.GradientTransformation
    loss: Loss
    augment: Augmentation | None
    measured: tuple[tuple[str, Loss], ...]
    evaluation_params: EvaluationParams = evaluation_params

    def evaluated(self, state: State) -> tuple[optax.Params, Any]:
        """Returns the parameters and the state with which the model is evaluated."""
        return self.evaluation_params(state.opt_state, state.params), state.model_state


def make_setup(
    model: ModelLike,
    optimizer: OptimizerFactory,
    loss: Loss = cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: EvaluationParams = evaluation_params,
    dtype: DTypeLike = "float32",
) -> Setup:
    """Returns a setup of what a person gave."""
    measured = measures(loss, metrics)
    functions = (optimizer, loss, *(measure for _, measure in measured), augment, evaluation_params)
    return Setup(
        model_factory(model), optimizer, loss, measured, augment, evaluation_params, np.dtype(dtype).name,
        captured=tuple(map(captured, functions)),
    )  # fmt: skip


def precision(setup: Setup) -> contextlib.AbstractContextManager:
    """Returns a context within which jax computes in the setup's dtype; float32 needs none."""
    return jax.enable_x64(True) if setup.dtype == "float64" else contextlib.nullcontext()


def loss_arguments(loss: Loss) -> tuple[str, ...]:
    """Returns the names of a loss's hyperparameters: its arguments after outputs and targets."""
    return argument_names(loss)[2:]


def required_arguments(loss: Loss) -> list[str]:
    """Returns the names of those of a loss's hyperparameters that have no default."""
    parameters = inspect.signature(loss).parameters
    return [name for name in loss_arguments(loss) if parameters[name].default is inspect.Parameter.empty]


def augment_arguments(augment: Augmentation | None) -> tuple[str, ...]:
    """Returns the names of an augmentation's hyperparameters: its fields, or its arguments after key and inputs."""
    if augment is None:
        return ()
    if dataclasses.is_dataclass(augment):
        return tuple(field.name for field in dataclasses.fields(augment))
    return argument_names(augment)[2:]


def owners(setup: Setup, name: str) -> list[str]:
    """Returns which of model, loss and augmentation have a hyperparameter of that name; else the optimizer has it."""
    arguments = {
        "model": setup.model.arguments,
        "loss": loss_arguments(setup.loss),
        "augmentation": augment_arguments(setup.augment),
    }
    return [part for part, names in arguments.items() if name in names] or ["optimizer"]


def parts(setup: Setup, values: Mapping) -> dict[str, dict]:
    """Returns the hyperparameters of model, loss, augmentation and optimizer: each goes to the one of `owners`.

    Args:
      setup: what all runs are trained with.
      values: name to value, in which strings stand for objects.
    """
    found: dict[str, dict] = {"model": {}, "loss": {}, "augmentation": {}, "optimizer": {}}
    objects = {name: dict(pairs) for name, pairs in setup.objects}
    for name, value in values.items():
        found[owners(setup, name)[0]][name] = objects[name][value] if name in objects else value
    return found


def configure(setup: Setup, values: Mapping) -> Configured:
    """Returns what one run is trained with, given the value of each hyperparameter by name."""
    given, augment = parts(setup, values), setup.augment
    if given["augmentation"]:
        change: Any = dataclasses.replace if dataclasses.is_dataclass(augment) else functools.partial
        augment = change(augment, **given["augmentation"])
    # A loss is measured with the defaults of its arguments, if they have any, so that runs can be compared.
    needed = {name: given["loss"][name] for name in required_arguments(setup.loss) if name in given["loss"]}
    measured = setup.measured
    if needed:
        measured = (*measured[:-1], ("loss", functools.partial(setup.loss, **needed)))
    return Configured(
        model=setup.model(**given["model"]),
        optimizer=setup.optimizer(**given["optimizer"]),
        loss=functools.partial(setup.loss, **given["loss"]) if given["loss"] else setup.loss,
        augment=augment,
        measured=measured,
        evaluation_params=setup.evaluation_params,
    )


def called(optimizer) -> str:
    """Returns what an optimizer factory is called, the same in every process."""
    if isinstance(optimizer, functools.partial):
        given = [*map(str, optimizer.args), *(f"{name}={value}" for name, value in optimizer.keywords.items())]
        return f"{called(optimizer.func)}({', '.join(given)})"
    return getattr(optimizer, "__name__", type(optimizer).__name__)

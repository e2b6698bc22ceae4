"""What one run is trained with: a model, an optimizer and loss keywords, from its hyperparameters."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import optax

from jaxmnist.core.model import model_fields
from jaxmnist.core.optimizers import OptimizerFactory

LOSS_NAMES = frozenset({"label_smoothing"})


class Configured(NamedTuple):
    """What one run is trained with."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss_keywords: dict


def configure(model: nn.Module, optimizer: OptimizerFactory, values: Mapping) -> Configured:
    """Returns what one run is trained with.

    Args:
      model: the linen module whose fields are changed.
      optimizer: the optax factory that is called.
      values: by name; those named like a field of the model become its fields, those of the loss (`label_smoothing`)
        go there, and the others to the optimizer.
    """
    fields = model_fields(model)
    model_values: dict = {name: value for name, value in values.items() if name in fields}
    loss_values = {name: value for name, value in values.items() if name in LOSS_NAMES}
    optimizer_values = {name: value for name, value in values.items() if name not in {*fields, *LOSS_NAMES}}
    return Configured(
        model.clone(**model_values) if model_values else model, optimizer(**optimizer_values), loss_values
    )

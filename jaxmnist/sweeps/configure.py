"""From the hyperparameters of a run to what it is trained with: a model, an optimizer and loss keywords."""

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
      model: the linen module whose fields are set.
      optimizer: the optax factory to call.
      values: name to value; names of fields of the model set these fields, names in `LOSS_NAMES` go to the loss, and
        all others to the optimizer.
    """
    fields = model_fields(model)
    model_values: dict = {name: value for name, value in values.items() if name in fields}
    loss_values = {name: value for name, value in values.items() if name in LOSS_NAMES}
    optimizer_values = {name: value for name, value in values.items() if name not in {*fields, *LOSS_NAMES}}
    return Configured(
        model.clone(**model_values) if model_values else model, optimizer(**optimizer_values), loss_values
    )

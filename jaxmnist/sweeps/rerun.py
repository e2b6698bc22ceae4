"""Any run of a sweep again, by itself."""

import json
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
import xarray as xr

from jaxmnist import checks
from jaxmnist.analysis import arguments, results
from jaxmnist.checks import FUNCTION, Optional, checked_by
from jaxmnist.core import optimizers, training
from jaxmnist.core.arguments import MODULE
from jaxmnist.core.models import MODELS
from jaxmnist.core.optimizers import OPTIMIZERS
from jaxmnist.core.state import init_state
from jaxmnist.data import loading
from jaxmnist.data.dataset import DATASET, Dataset
from jaxmnist.data.order import example_order
from jaxmnist.sweeps.configure import configure
from jaxmnist.sweeps.job import make_job
from jaxmnist.values import with_tuples


class Run(NamedTuple):
    """One run that was trained by itself.

    Attributes:
      params: the model's parameters.
      losses: `[T]` float32, the batch losses before each step.
      validation: accuracy and loss.
      test: accuracy and loss.
    """

    params: optax.Params
    losses: jax.Array
    validation: training.Metrics
    test: training.Metrics


@checked_by(
    result=arguments.IsResult((), (*arguments.WORDS, "num_steps")), dataset=Optional(DATASET), model=Optional(MODULE),
    optimizer=Optional(FUNCTION),
)  # fmt: skip
def rerun(
    result: xr.Dataset,
    *,
    dataset: Dataset | None = None,
    model: nn.Module | None = None,
    optimizer: optimizers.OptimizerFactory | None = None,
    **values: Any,
) -> Run:
    """Trains one run of a sweep again, by itself; its numbers equal the sweep's to float32 rounding.

    Args:
      result: of `sweep`, `halve`, `merge`, or from a file.
      dataset: that of the sweep; default what `load` returns for its name.
      model: that of the sweep; default rebuilt from the result if it is a model of this package.
      optimizer: that of the sweep; default the one of that name in `optax`.
      **values: which run: a value for each hyperparameter that has several in the sweep, the seed among them.

    Raises:
      ValueError: no run, or more than one, has these values; or what the sweep used cannot be rebuilt from its name.
    """
    setting, num_steps = _find(result, values)
    attrs = result.attrs
    if model is None:
        name = attrs["model"].split("(")[0]
        if name not in MODELS:
            raise ValueError(f"the model of this result, {name}, is not one of {', '.join(MODELS)}: give it as model=")
        try:
            fields = json.loads(attrs["model_fields"])
            model = MODELS[name](**with_tuples(fields))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"the model_fields of this result cannot be read: {error}; give model=") from None
    if optimizer is None:
        if attrs["optimizer"] not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise ValueError(f"the optimizer of this result, {attrs['optimizer']}, is not one of {known}: give it")
        optimizer = OPTIMIZERS[attrs["optimizer"]]
    if dataset is None:
        loading.NAME.check("dataset", attrs["dataset"])
        dataset = loading.load(attrs["dataset"])
    make_job(model, optimizer, {name: np.array([value]) for name, value in setting.items()}, dataset, num_steps)
    seed, batch_size = setting.pop("seed"), setting.pop("batch_size")
    configured = configure(model, optimizer, setting)
    split = jax.device_put(dataset.train)
    order = example_order(len(dataset.train.labels), seed, num_steps * batch_size)

    @jax.jit
    def train(split, order):
        state = init_state(configured.model, configured.optimizer, seed, split.images)
        return training.fit(
            configured.model, configured.optimizer, state, split, order, batch_size,
            num_steps=num_steps, **configured.loss_keywords,
        )  # fmt: skip

    state, losses = train(split, order)
    evaluate = jax.jit(training.evaluate, static_argnums=0)
    validation, test = (
        evaluate(configured.model, state.params, jax.device_put(split)) for split in (dataset.validation, dataset.test)
    )
    return Run(state.params, losses, validation, test)


def _find(result: xr.Dataset, values: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns all hyperparameters of the one run with these values, and how many steps it trained for."""
    rows = results.table(result)
    names = list(results.hyperparameters(result))
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"{unknown[0]} is not a hyperparameter of this result, which has {', '.join(names)}")
    chosen = np.ones(len(rows), bool)
    for name, value in values.items():
        column = rows[name].to_numpy()
        if column.dtype.kind in "iuf" and not checks.is_number(value):
            checks.raise_invalid(name, value, "a number")
        same = np.isclose(column.astype(float), value, rtol=1e-6) if column.dtype.kind in "iuf" else column == value
        if not same.any():
            shown = checks.shown(value)
            raise ValueError(f"{name} {shown} is not in this result; it has {np.unique(column).tolist()}")
        chosen &= same
    found = rows[chosen].drop_duplicates(names)
    if len(found) != 1:
        open_names = [name for name in names if name not in values and rows[name].nunique() > 1]
        raise ValueError(f"{len(found)} runs have these values; give also {', '.join(open_names) or 'other ones'}")
    setting = {name: found[name].tolist()[0] for name in names}
    pruned = found["pruned_step"].dropna().tolist() if "pruned_step" in found else []
    return setting, int(pruned[0]) if pruned else int(result.attrs["num_steps"])

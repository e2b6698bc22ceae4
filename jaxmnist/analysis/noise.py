"""The gradient noise scale along training: an estimate, from gradients alone, of the largest useful batch size.

Shapes: N training examples, M batches of B examples.
"""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxmnist.checks import FUNCTION, SEED, Kind, Where, Whole, checked_by, is_ascending, raise_invalid
from jaxmnist.core import losses, training
from jaxmnist.core.arguments import ARRAYS, MODEL, PARAMS, TRANSFORMATION, check_measures, check_ranges
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import NO_STATE, ModelLike
from jaxmnist.core.state import init_state
from jaxmnist.data.dataset import DATASET, SPLIT, Dataset, Split
from jaxmnist.data.order import example_order
from jaxmnist.limits import MAX_STEPS

SMALL_BATCH_SIZE = 100


class Noise(NamedTuple):
    """The two parts of the simple noise scale, `trace / squared_norm` (McCandlish et al. 2018, equation 2.9).

    Attributes:
      trace: `[]` float32, the trace of the covariance of one example's gradient.
      squared_norm: `[]` float32, the squared norm of the true gradient.
    """

    trace: jax.Array
    squared_norm: jax.Array


class IsBatches(Kind):
    """Several batches of one size: inputs `[M, B, ...]` and targets `[M, B, ...]`, M from 2 on."""

    words = "a Split of batches [M, B, ...], M from 2 on,"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Split) or getattr(value.targets, "ndim", 0) < 2 or value.targets.shape[0] < 2:
            raise_invalid(name, value, self.words)
        SPLIT.check(name, _joined(value))


def _joined(batches: Split) -> Split:
    """Returns the examples of all batches as one split."""
    return Split(*(array.reshape(-1, *array.shape[2:]) for array in batches))


def _check_estimate(given: SimpleNamespace) -> None:
    check_measures(
        given.model, (given.params, given.model_state), _joined(given.batches), {"loss": given.loss}, "batches"
    )


@checked_by(_check_estimate, model=MODEL, params=PARAMS, batches=IsBatches(), model_state=ARRAYS, loss=FUNCTION)
def estimate_noise(
    model: ModelLike,
    params: optax.Params,
    batches: Split,
    *,
    model_state: Any = NO_STATE,
    loss: Loss = losses.cross_entropy,
) -> Noise:
    """Returns unbiased estimates of both parts, from the gradients of M batches and of all of them together.

    They are equations A.2 and A.3 of McCandlish et al. 2018 (arXiv:1812.06162), B and M * B being the two batch sizes.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      params: its parameters.
      batches: inputs `[M, B, ...]` and targets `[M, B, ...]`, of distinct examples; M at least 2.
      model_state: what else the model remembers, from `State.model_state`.
      loss: `(outputs, targets) -> [B]`.

    Raises:
      ValueError: an argument is not as described above, or the parameters are not of this model and such images.
    """
    num_batches, batch_size = batches.targets.shape[:2]

    def mean_loss(params, batch):
        outputs = training.predict(model, params, model_state, batch.inputs)
        return losses.masked_mean(loss(outputs, batch.targets), jnp.ones(batch_size, jnp.float32))

    def add(total, batch):
        grads = jax.grad(mean_loss)(params, batch)
        return jax.tree.map(jnp.add, total, grads), optax.tree.norm(grads, squared=True)

    total, squared_norms = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batches)
    large, small = num_batches * batch_size, batch_size
    large_squared_norm = optax.tree.norm(total, squared=True) / num_batches**2
    small_squared_norm = jnp.mean(squared_norms)
    return Noise(
        trace=(small_squared_norm - large_squared_norm) / (1 / small - 1 / large),
        squared_norm=(large * large_squared_norm - small * small_squared_norm) / (large - small),
    )


ASCENDING_STEPS = Where(
    "a sequence of ascending whole numbers from 0 to 2**31 - 1",
    lambda value: is_ascending(value) and value[0] >= 0 and value[-1] <= MAX_STEPS,
)


def _check_walk(given: SimpleNamespace) -> None:
    num_train = len(given.dataset.train.targets)
    if num_train < 2:
        raise ValueError(f"dataset {given.dataset.name} has {num_train} training example; noise of gradients needs 2")
    Whole(1, num_train, f"the {num_train} training examples").check("batch_size", given.batch_size)
    check_ranges(given.dataset)
    variables = jax.eval_shape(given.model.init, random_key(0), to_unit_range(given.dataset.train.inputs[:1]))
    check_measures(given.model, variables, given.dataset.train, {"loss": given.loss}, "dataset.train")


@checked_by(
    _check_walk, model=MODEL, optimizer=TRANSFORMATION, dataset=DATASET, batch_size=Whole(1), seed=SEED,
    steps=ASCENDING_STEPS, loss=FUNCTION,
)  # fmt: skip
def noise_scale_along_training(
    model: ModelLike,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    steps: Sequence[int],
    loss: Loss = losses.cross_entropy,
) -> pd.DataFrame:
    """Returns the simple noise scale of one run at some of its steps, from all of its training examples.

    Gradients are those of the model in evaluation: nothing is dropped out, and batch statistics are the running ones,
    since the statistic is defined for losses that are means over examples.

    Args:
      model: a linen module, or anything else of which a `Model` can be made.
      optimizer: an optax gradient transformation.
      dataset: what to train on.
      batch_size: of the run.
      seed: of the run.
      steps: ascending, from 0 on.
      loss: `(outputs, targets) -> [B]`.

    Returns:
      One row per step: `step`, `trace`, `squared_norm` and `noise_scale` in examples; nan if the estimate of the
      squared norm is not above 0, as happens near a minimum.

    Raises:
      ValueError: an argument is not as described above, or there are fewer than 2 training examples.
    """
    split = jax.device_put(dataset.train)
    num_batches = len(dataset.train.targets) // SMALL_BATCH_SIZE
    small = SMALL_BATCH_SIZE if num_batches >= 2 else max(len(dataset.train.targets) // 2, 1)
    num_batches = len(dataset.train.targets) // small
    batches = Split(*(field[: num_batches * small].reshape(num_batches, small, *field.shape[1:]) for field in split))
    fit = jax.jit(
        functools.partial(training.fit, model, optimizer, loss=loss), static_argnums=3, static_argnames="num_steps"
    )
    measure = jax.jit(functools.partial(estimate_noise, model, loss=loss))
    state = init_state(model, optimizer, seed, split.inputs)
    rows = []
    for before, step in zip([0, *steps], steps, strict=False):
        if step > before:
            order = example_order(len(dataset.train.targets), seed, (step - before) * batch_size, before * batch_size)
            state, _ = fit(state, split, order, batch_size, num_steps=step - before)
        trace, squared_norm = (float(value) for value in measure(state.params, batches, model_state=state.model_state))
        scale = trace / squared_norm if squared_norm > 0 else np.nan
        rows.append((step, trace, squared_norm, scale))
    return pd.DataFrame(rows, columns=["step", "trace", "squared_norm", "noise_scale"])

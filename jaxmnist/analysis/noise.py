"""The gradient noise scale along training: a guess, from gradients alone, at the batch size beyond which more is waste.

Shapes: N training images, M batches of B examples.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxmnist import checks
from jaxmnist.core import losses, training, training_checks
from jaxmnist.core.state import init_state
from jaxmnist.data.dataset import Dataset, Split, check_dataset, check_labels, check_split
from jaxmnist.data.order import example_order
from jaxmnist.sweeps.job import check_model

SMALL_BATCH_SIZE = 100


class Noise(NamedTuple):
    """The two parts of the simple noise scale, `trace / squared_norm` (McCandlish et al. 2018, equation 2.9).

    Attributes:
      trace: `[]` float32, of the covariance of one example's gradient.
      squared_norm: `[]` float32, of the true gradient.
    """

    trace: jax.Array
    squared_norm: jax.Array


def estimate_noise(model: nn.Module, params: optax.Params, batches: Split) -> Noise:
    """Returns unbiased estimates from the gradients of M batches and of all of them together.

    They are equations A.2 and A.3 of McCandlish et al. 2018 (arXiv:1812.06162), B and M * B being the two batch sizes.

    Args:
      model: a linen module from images to logits.
      params: its parameters.
      batches: images `[M, B, H, W, C]` uint8 and labels `[M, B]` int32, of distinct examples; M at least 2.

    Raises:
      ValueError: an argument is none of these, or the parameters are not of this model and such images.
    """
    check_model(model)
    if not isinstance(batches, Split) or getattr(batches.labels, "ndim", None) != 2 or batches.labels.shape[0] < 2:
        checks.refuse("batches", batches, "a Split of batches [M, B, H, W, C], M from 2 on,")
    images = batches.images.reshape(-1, *batches.images.shape[2:])
    check_split("batches", Split(images, batches.labels.reshape(-1)))
    training_checks.check_params(params)
    num_batches, batch_size = batches.labels.shape

    def loss(params, batch):
        logits = training.predict(model, params, batch.images)
        check_labels("batches.labels", batches.labels.reshape(-1), images.shape[0], logits.shape[-1])
        return losses.cross_entropy(logits, batch.labels, jnp.ones(batch_size, jnp.float32))

    def add(total, batch):
        grads = jax.grad(loss)(params, batch)
        return jax.tree.map(jnp.add, total, grads), optax.tree.norm(grads, squared=True)

    total, squared_norms = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batches)
    large, small = num_batches * batch_size, batch_size
    of_large = optax.tree.norm(total, squared=True) / num_batches**2
    of_small = jnp.mean(squared_norms)
    return Noise(
        trace=(of_small - of_large) / (1 / small - 1 / large),
        squared_norm=(large * of_large - small * of_small) / (large - small),
    )


def _check_walk(dataset: Dataset, batch_size: int, steps: Sequence[int]) -> None:
    """Raises ValueError where there is no such training to go along."""
    check_dataset(dataset)
    num_train = len(dataset.train.labels)
    if num_train < 2:
        raise ValueError(f"dataset {dataset.name} has {num_train} training image; the noise of gradients needs 2")
    checks.whole("batch_size", batch_size, 1, num_train, f"the {num_train} training images")
    if (
        not checks.is_sequence(steps)
        or not len(steps)
        or not all(map(checks.is_whole, steps))
        or list(steps) != sorted(set(steps))
        or not 0 <= steps[0] <= steps[-1] <= checks.MAX_STEPS
    ):
        checks.refuse("steps", steps, "a sequence of ascending whole numbers from 0 to 2**31 - 1")


def noise_scale_along_training(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    steps: Sequence[int],
) -> pd.DataFrame:
    """Returns the simple noise scale of one run at some of its steps, from all of its training images.

    Args:
      model: a linen module from images to logits.
      optimizer: an optax gradient transformation.
      dataset: what to train on.
      batch_size: of the run.
      seed: of the run.
      steps: ascending, from 0 on.

    Returns:
      One row per step: `step`, `trace`, `squared_norm` and `noise_scale` in examples; nan where the estimate of the
      squared norm is not above 0, as happens near a minimum.

    Raises:
      ValueError: an argument is none of these, or there are fewer than 2 training images.
    """
    _check_walk(dataset, batch_size, steps)
    split = jax.device_put(dataset.train)
    num_batches = len(dataset.train.labels) // SMALL_BATCH_SIZE
    small = SMALL_BATCH_SIZE if num_batches >= 2 else max(len(dataset.train.labels) // 2, 1)
    num_batches = len(dataset.train.labels) // small
    batches = Split(*(field[: num_batches * small].reshape(num_batches, small, *field.shape[1:]) for field in split))
    fit = jax.jit(functools.partial(training.fit, model, optimizer), static_argnums=3, static_argnames="num_steps")
    measure = jax.jit(functools.partial(estimate_noise, model))
    state = init_state(model, optimizer, seed, split.images)
    rows = []
    for before, step in zip([0, *steps], steps, strict=False):
        if step > before:
            order = example_order(len(dataset.train.labels), seed, (step - before) * batch_size, before * batch_size)
            state, _ = fit(state, split, order, batch_size, num_steps=step - before)
        trace, squared_norm = (float(value) for value in measure(state.params, batches))
        scale = trace / squared_norm if squared_norm > 0 else np.nan
        rows.append((step, trace, squared_norm, scale))
    return pd.DataFrame(rows, columns=["step", "trace", "squared_norm", "noise_scale"])

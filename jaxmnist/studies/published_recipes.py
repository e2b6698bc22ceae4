"""Networks of well-known examples, trained as these are published; see `jaxmnist.studies.published`.

Shapes: B examples of a batch, H x W pixels, C channels, K classes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import jaxmnist as jm
from jaxmnist.analysis.intervals import Interval
from jaxmnist.studies.published import Row

# Mean and standard deviation of MNIST's pixels, as PyTorch's examples standardise them.
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
# A run without `full` takes this many steps of each recipe, with this many seeds.
SHORT_STEPS, SHORT_SEEDS = 100, 2


class Recipe(NamedTuple):
    """How a published number was trained.

    Attributes:
      name: of its row.
      theirs: the published test accuracy, in percent.
      model: the network.
      optimizer: a function of `learning_rate` that returns a gradient transformation.
      learning_rate: of the recipe, or several of which validation chooses.
      batch_size: of the recipe.
      num_steps: of the recipe.
      has_validation: whether they kept some of the training images for validation, as we do. If not, we train on these
        as well, as nothing is chosen.
      theirs_interval: the ends of the published interval, in percent; None if none is published.
      short_steps: the steps taken without `full`.
    """

    name: str
    theirs: float
    model: nn.Module
    optimizer: Callable[..., Any]
    learning_rate: float | Sequence[float]
    batch_size: int
    num_steps: int
    has_validation: bool = True
    theirs_interval: tuple[float, float] | None = None
    short_steps: int = SHORT_STEPS


def accuracy_row(
    recipe: Recipe, dataset: jm.Dataset, num_seeds: int, full: bool, folder: Path | None, progress: bool
) -> Row:
    """Returns the test accuracy of a recipe after its last step, at the learning rate that validation chooses.

    Args:
      recipe: what is trained.
      dataset: what it is trained on.
      num_seeds: how many seeds each learning rate is trained with, if `full`.
      full: whether to take all of the steps and seeds. Fewer steps are not compared with the published number.
      folder: where the sweep is saved and resumed from; None for nowhere.
      progress: whether to show a bar.
    """
    num_steps = recipe.num_steps if full else min(recipe.short_steps, recipe.num_steps)
    rates = recipe.learning_rate
    seeds = range(num_seeds if full else min(SHORT_SEEDS, num_seeds))
    begin = time.monotonic()
    result = jm.sweep(
        recipe.model, recipe.optimizer, jm.grid(learning_rate=rates, batch_size=recipe.batch_size, seed=seeds),
        dataset if recipe.has_validation else with_validation(dataset), num_steps=num_steps, folder=folder,
        progress=progress,
    )  # fmt: skip
    seconds = time.monotonic() - begin
    best = jm.best(result)
    if best is None:
        nothing = Interval(math.nan, math.nan, math.nan, "every learning rate diverged")
        return Row(recipe.name, "%", None, nothing, seconds, note=nothing.kind)
    notes = [] if isinstance(rates, float) else [f"learning rate {best.setting['learning_rate']:.3g}"]
    if num_steps < recipe.num_steps:
        notes.append(f"{num_steps:,} of {recipe.num_steps:,} steps, not to be compared with their {recipe.theirs:g} %")
    is_whole = num_steps == recipe.num_steps
    return Row(
        recipe.name, "%", recipe.theirs if is_whole else None, in_percent(best.test), seconds,
        recipe.theirs_interval if is_whole else None, ", ".join(notes),
    )  # fmt: skip


def in_percent(fraction: Interval) -> Interval:
    """Returns the interval of a fraction as one of percent."""
    return fraction._replace(mean=100 * fraction.mean, low=100 * fraction.low, high=100 * fraction.high)


def with_validation(dataset: jm.Dataset) -> jm.Dataset:
    """Returns a data set whose training split has the validation examples as well; nothing may then be chosen."""
    parts = zip(dataset.train, dataset.validation, strict=True)
    return dataclasses.replace(dataset, train=jm.Split(*(np.concatenate(pair) for pair in parts)))


class FlaxExample(nn.Module):
    """The network of flax's MNIST example (github.com/google/flax, examples/mnist)."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""
        for features in (32, 64):
            images = nn.avg_pool(nn.relu(nn.Conv(features, (3, 3))(images)), (2, 2), (2, 2))
        hidden = nn.relu(nn.Dense(256)(images.reshape(images.shape[0], -1)))
        return nn.Dense(10)(hidden)


class KerasExample(nn.Module):
    """The network of Keras's example "Simple MNIST convnet" (keras.io/examples/vision/mnist_convnet)."""

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""
        for features in (32, 64):
            convolved = nn.Conv(features, (3, 3), padding="VALID", kernel_init=GLOROT)(images)
            images = nn.max_pool(nn.relu(convolved), (2, 2), (2, 2))
        pixels = nn.Dropout(0.5, deterministic=not training)(images.reshape(images.shape[0], -1))
        return nn.Dense(10, kernel_init=GLOROT)(pixels)


class TwoConvolutions(nn.Module):
    """The network of Keras's first MNIST example, which PyTorch's has taken over (github.com/pytorch/examples, mnist).

    Attributes:
      is_pytorch: whether pixels are standardised and parameters initialised as PyTorch's example does, or as Keras's.
    """

    is_pytorch: bool

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""

        def init(inputs):
            return pytorch_init(math.prod(inputs)) if self.is_pytorch else {"kernel_init": GLOROT}

        if self.is_pytorch:
            images = standardised(images)
        for features in (32, 64):
            kernel = init((3, 3, images.shape[-1]))
            images = nn.relu(nn.Conv(features, (3, 3), padding="VALID", **kernel)(images))
        images = nn.Dropout(0.25, deterministic=not training)(nn.max_pool(images, (2, 2), (2, 2)))
        pixels = images.reshape(images.shape[0], -1)
        hidden = nn.relu(nn.Dense(128, **init(pixels.shape[1:]))(pixels))
        hidden = nn.Dropout(0.5, deterministic=not training)(hidden)
        return nn.Dense(10, **init(hidden.shape[1:]))(hidden)


GLOROT = nn.initializers.glorot_uniform()  # of Keras's layers


def standardised(images: jax.Array) -> jax.Array:
    """Returns images `[B, H, W, C]` in `[0, 1]` as PyTorch's examples give them to a network."""
    return (images - MNIST_MEAN) / MNIST_STD


def pytorch_init(num_inputs: int) -> dict[str, Any]:
    """Returns the initialisers of PyTorch's layers: kernel and bias are uniform within 1 / sqrt(inputs of a unit)."""

    def bias(key, shape, dtype):
        reach = 1 / math.sqrt(num_inputs)
        return jax.random.uniform(key, shape, dtype, -reach, reach)

    return {"kernel_init": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), "bias_init": bias}

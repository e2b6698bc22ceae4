"""MNIST-1D (Greydanus & Kobak 2024, arXiv:2011.14439): four models, with the 40 places in order and shuffled.

Shapes: B examples of 40 numbers, K = 10 classes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.studies.published import Row, Table
from jaxmnist.studies.published_recipes import in_percent, with_validation

RATES, THEIR_RATE = (0.003, 0.01, 0.03, 0.1), 0.01
BATCH_SIZE = 100
FULL_STEPS, SHORT_STEPS = 6000, 1500
FULL_SEEDS, SHORT_SEEDS, CHOOSING_SEEDS = 10, 3, 5
# Of the README of github.com/greydanus/mnist1d: accuracy in %, with the places in order and shuffled.
THEIRS = {"logistic regression": (32, 32), "MLP": (68, 68), "CNN": (94, 56), "GRU": (91, 57)}
# Of notebooks/mnist1d-classification.ipynb there, after 6,000 steps; its MLP has 100 units a layer in place of 256.
NOTEBOOK = {"logistic regression": (31.5, 31.5), "MLP": (None, None), "CNN": (92.3, 58.7), "GRU": (89.1, 53.3)}


def torch_kernel() -> Callable:
    """Returns the initial kernels of PyTorch's layers, uniform between -1 and 1 over the root of the fan-in."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Logistic(nn.Module):
    """Logistic regression."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs `[B, 40]` to logits `[B, K]`."""
        return nn.Dense(10, kernel_init=torch_kernel())(inputs)


class ResidualMLP(nn.Module):
    """Two hidden layers of 256 rectified linear units, with a skip around the second."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs `[B, 40]` to logits `[B, K]`."""
        hidden = nn.relu(nn.Dense(256, kernel_init=torch_kernel())(inputs))
        hidden = hidden + nn.relu(nn.Dense(256, kernel_init=torch_kernel())(hidden))
        return nn.Dense(10, kernel_init=torch_kernel())(hidden)


class Convolutional(nn.Module):
    """Three convolutions with 25 channels and stride 2, and a dense layer."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs `[B, 40]` to logits `[B, K]`."""
        hidden = inputs[..., None]
        for width in (5, 3, 3):
            hidden = nn.relu(nn.Conv(25, (width,), strides=2, padding=1, kernel_init=torch_kernel())(hidden))
        return nn.Dense(10, kernel_init=torch_kernel())(hidden.reshape(len(hidden), -1))


class Recurrent(nn.Module):
    """Gated recurrent units, 6 in each direction, and a dense layer over those of all places."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs `[B, 40]` to logits `[B, K]`."""
        forward, backward = (nn.RNN(nn.GRUCell(6)) for _ in range(2))
        hidden: Any = nn.Bidirectional(forward, backward)(inputs[..., None])
        return nn.Dense(10, kernel_init=torch_kernel())(hidden.reshape(len(hidden), -1))


MODELS: dict[str, nn.Module] = {
    "logistic regression": Logistic(),
    "MLP": ResidualMLP(),
    "CNN": Convolutional(),
    "GRU": Recurrent(),
}


def shuffled(dataset: jm.Dataset) -> jm.Dataset:
    """Returns a data set with the places of all its examples in the same random order."""
    order = np.random.default_rng(0).permutation(dataset.train.inputs.shape[1])
    given = dataset.train, dataset.validation, dataset.test
    splits = (jm.Split(split.inputs[:, order], split.targets) for split in given)
    return jm.Dataset(f"{dataset.name}_shuffled", dataset.class_names, *splits)


def mnist1d_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the accuracies of the four models, in order and shuffled.

    Args:
      full: whether to take all of the steps and seeds.
      folder: where the sweeps are saved and resumed from; None for nowhere.
      progress: whether to show bars.

    Raises:
      DataError: the package mnist1d is not installed.
    """
    num_steps, num_seeds = (FULL_STEPS, FULL_SEEDS) if full else (SHORT_STEPS, SHORT_SEEDS)
    ordered = jm.load("mnist1d")
    rows = []
    for place, dataset in enumerate((ordered, shuffled(ordered))):
        for name, theirs in THEIRS.items():
            words = f"{name}, shuffled" if place else name
            inside = folder and folder / words.replace(", ", "_").replace(" ", "_")
            found = accuracy_rows(words, MODELS[name], dataset, num_steps, num_seeds, inside, progress)
            published = (theirs[place], NOTEBOOK[name][place]) if full else (None, None)
            rows += [row._replace(theirs=number) for row, number in zip(found, published, strict=True)]
    short = "" if full else f", of which {FULL_STEPS:,} are theirs: not to be compared"
    return Table(
        "MNIST-1D, test accuracy",
        "Greydanus & Kobak 2024, arXiv:2011.14439, README of github.com/greydanus/mnist1d",
        "Adam, batch size 100; logistic regression, MLP 40-256-256-10 with a skip, 3 convolutions, bidirectional GRU",
        f"{num_steps:,} steps on all 4,000 training examples{short}",
        f"t intervals over {num_seeds} seeds, which decide initial weights and order of examples",
        tuple(rows),
        (
            f"Of the learning rates {', '.join(map(str, RATES))}, each model has that which is best on "
            f"{len(ordered.validation.targets)} examples held out, over {CHOOSING_SEEDS} seeds, and is then trained on "
            "all examples. At their rate, theirs are the numbers of their notebook after 6,000 steps, of one run each; "
            "its MLP is a smaller one.",
            "The other numbers of theirs are those of their README, of one run each in whole percent. They differ from "
            "their notebook's: its GRU has 57 % on shuffled places after 1,000 steps, and 53 % at the end.",
            "Theirs goes through the examples in the same order in every epoch.",
            "Kernels begin as PyTorch's layers do, biases at zero and the GRU as flax's; theirs are all PyTorch's.",
            "The accuracy is that after the last step.",
        ),
    )


def accuracy_rows(
    name: str,
    model: nn.Module,
    dataset: jm.Dataset,
    num_steps: int,
    num_seeds: int,
    folder: Path | None,
    progress: bool,
) -> list[Row]:
    """Returns the test accuracy after training on all examples, at the rate that validation chooses and at theirs."""
    begin = time.monotonic()

    def train(dataset, rates, seeds, which):
        runs = jm.grid(learning_rate=rates, batch_size=BATCH_SIZE, seed=range(seeds))
        place = folder and folder / which
        return jm.sweep(model, optax.adam, runs, dataset, num_steps=num_steps, folder=place, progress=progress)

    best = jm.best(train(dataset, RATES, CHOOSING_SEEDS, "rates"))
    assert best is not None  # Adam at the smallest of the rates does not diverge
    rate = best.setting["learning_rate"]
    result = train(with_validation(dataset), sorted({rate, THEIR_RATE}), num_seeds, "trained")

    def found(rate):
        accuracies = result["test_accuracy"].sel(learning_rate=rate, method="nearest").values.ravel()
        return in_percent(jm.interval(accuracies, len(dataset.test.targets)))

    note = f"learning rate {rate:g}{', the end of the rates' if best.edges else ''}"
    return [
        Row(name, "%", None, found(rate), time.monotonic() - begin, note=note),
        Row(f"{name}, at their rate", "%", None, found(THEIR_RATE), 0.0),
    ]

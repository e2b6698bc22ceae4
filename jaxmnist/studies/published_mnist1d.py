"""MNIST-1D (Greydanus & Kobak 2024, arXiv:2011.14439): four models, with the 40 places in order and shuffled.

Shapes: B examples of 40 numbers, K = 10 classes.
"""

import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.studies.published import Row, Table, percent

RATES = (0.001, 0.003, 0.01, 0.03)
BATCH_SIZE = 100
FULL_STEPS, SHORT_STEPS = 8000, 1500
FULL_SEEDS, SHORT_SEEDS, CHOOSING_SEEDS = 10, 3, 3
# Of the README of github.com/greydanus/mnist1d: accuracy in %, with the places in order and shuffled.
THEIRS = {"logistic regression": (32, 32), "MLP": (68, 68), "CNN": (94, 56), "GRU": (91, 57)}


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
        hidden = nn.Bidirectional(forward, backward)(inputs[..., None])
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
    splits = (dataset.train, dataset.validation, dataset.test)
    return dataset._replace_splits(*(jm.Split(split.inputs[:, order], split.targets) for split in splits))

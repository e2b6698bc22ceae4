"""Tutorials and examples for MNIST, trained as they are published; see `jaxmnist.studies.published`."""

import functools
from pathlib import Path

import optax

import jaxmnist as jm
from jaxmnist.studies.published import Table
from jaxmnist.studies.published_recipes import (
    FlaxExample,
    KerasExample,
    Recipe,
    TwoConvolutions,
    accuracy_row,
)

NUM_SEEDS = 5
NUM_TRAIN = 60_000
PYTORCH_EPOCH = -(-NUM_TRAIN // 64)  # the last batch of an epoch is smaller


def decaying_adadelta(learning_rate) -> optax.GradientTransformation:
    """Returns the optimizer of PyTorch's example, whose rate is multiplied by 0.7 after each epoch."""
    return optax.adadelta(lambda step: learning_rate * 0.7 ** (step // PYTORCH_EPOCH), rho=0.9, eps=1e-6)


RECIPES = {
    "softmax": Recipe(
        "softmax regression of the original notebook", 91.72, jm.SoftmaxRegression(), optax.sgd, 0.5, 100, 1000,
        short_steps=1000,
    ),
    "tensorflow": Recipe("TensorFlow's tutorial", 99.2, jm.CNN(), optax.adam, 1e-4, 50, 20_000),
    "flax": Recipe(
        "flax's example", 99.17, FlaxExample(), functools.partial(optax.sgd, momentum=0.9), 0.1, 128,
        10 * (NUM_TRAIN // 128), has_validation=False,
    ),
    "keras": Recipe(
        "Keras's example", 99.22, KerasExample(), functools.partial(optax.adam, eps=1e-7), 1e-3, 128, 15 * 422
    ),
    "pytorch": Recipe(
        "PyTorch's example", 99.19, TwoConvolutions(is_pytorch=True), decaying_adadelta, 1.0, 64, 14 * PYTORCH_EPOCH,
        has_validation=False,
    ),
}  # fmt: skip


def tutorial_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the test accuracies of five tutorials' recipes on MNIST.

    Args:
      full: whether to train them to their end; if not, only the first is, and the others take some steps.
      folder: where the sweeps are saved and resumed from; None for nowhere.
      progress: whether to show bars.

    Raises:
      DatasetUnavailable: MNIST is not prepared.
    """
    dataset = jm.load("mnist")
    rows = [
        accuracy_row(recipe, dataset, NUM_SEEDS, full, folder and folder / name, progress)
        for name, recipe in RECIPES.items()
    ]
    return Table(
        title="Tutorials for MNIST",
        source="the original notebook; TensorFlow 1 tutorial; examples of flax, Keras and PyTorch",
        recipe="each as published: network, initial parameters, optimizer, batch size and steps",
        budget="the steps of each recipe" if full else "the first recipe's steps, and the first steps of the others",
        seeds="test accuracy after the last step, mean over seeds",
        rows=tuple(rows),
        notes=(
            "Theirs are one run each, PyTorch's two; ours are means over seeds after the last step.",
            "The notebook, TensorFlow and Keras keep 5,000, 5,000 and 6,000 of the 60,000 training images for "
            "validation, and we 5,000; flax and PyTorch train on all of them, and so do we for these two.",
            "Each of our batches is full: where an epoch ends within one, the next epoch fills it up.",
        ),
    )

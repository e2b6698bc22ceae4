"""DeepOBS's problem fmnist_2c2d, with every seed at every learning rate; see `jaxmnist.studies.published`."""

import functools
from pathlib import Path

import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.analysis.intervals import half_width
from jaxmnist.studies.published import Table
from jaxmnist.studies.published_recipes import Recipe, accuracy_row

NUM_SEEDS = 10
BATCH_SIZE = 128
NUM_STEPS = 100 * (60_000 // BATCH_SIZE)
NETWORK = jm.CNN(dropout_rate=0.0, init_std=0.05, init_bias=0.05)
# Of DeepOBS's 36 learning rates, 10 ** (k / 5) from 1e-5 to 1e2, those up to this many places beside the published one.
PLACES_BESIDE = 2


# Test accuracy in percent with its standard deviation over 10 seeds, and the place k of the chosen learning rate.
BASELINES = {
    "SGD": (optax.sgd, 92.27, 0.18, -4),
    "momentum 0.99": (functools.partial(optax.sgd, momentum=0.99), 92.14, 0.21, -13),
    "Adam": (optax.adam, 92.34, 0.29, -18),
}


def recipe(name: str) -> Recipe:
    """Returns the recipe of one of the baselines, with the learning rates around the published one."""
    optimizer, theirs, deviation, place = BASELINES[name]
    places = np.arange(place - PLACES_BESIDE, place + PLACES_BESIDE + 1)
    width = float(half_width(deviation, NUM_SEEDS))
    return Recipe(
        name, theirs, NETWORK, optimizer, tuple((10.0 ** (places / 5)).tolist()), BATCH_SIZE, NUM_STEPS,
        theirs_interval=(theirs - width, theirs + width), short_steps=20,
    )  # fmt: skip


def deepobs_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the test accuracies of DeepOBS's baselines on Fashion-MNIST.

    Args:
      full: whether to train for 100 epochs with 10 seeds; if not, a few steps are taken.
      folder: where the sweeps are saved and resumed from; None for nowhere.
      progress: whether to show bars.

    Raises:
      DatasetUnavailable: Fashion-MNIST is not prepared.
    """
    dataset = jm.load("fashion_mnist")
    rows = [
        accuracy_row(recipe(name), dataset, NUM_SEEDS, full, folder and folder / name.split()[0].lower(), progress)
        for name in BASELINES
    ]
    return Table(
        title="DeepOBS, Fashion-MNIST 2c2d",
        source="Schneider et al. 2019, arXiv:1903.05499; DeepOBS_Baselines",
        recipe=f"two convolutions and two dense layers, weights and biases about 0.05, batch size {BATCH_SIZE}",
        budget="100 epochs" if full else "the first steps",
        seeds=f"{NUM_SEEDS if full else 'few'} seeds at each of {2 * PLACES_BESIDE + 1} learning rates",
        rows=tuple(rows),
        notes=(
            "DeepOBS chooses among 36 learning rates by one seed each, and then trains 10 seeds at the chosen one; we "
            "train every seed at the rates nearest to theirs, and validation chooses.",
            "Their intervals are 95 % t intervals made of the published standard deviations over 10 seeds.",
            "We train on 55,000 of the 60,000 images, for as many steps as theirs.",
        ),
    )

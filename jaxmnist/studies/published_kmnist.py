"""The CNN of KMNIST's README; see `jaxmnist.studies.published`."""

import functools
from pathlib import Path

import optax

import jaxmnist as jm
from jaxmnist.studies.published import Table
from jaxmnist.studies.published_recipes import Recipe, TwoConvolutions, accuracy_row

NUM_SEEDS = 5


RECIPE = Recipe(
    "Keras Simple CNN Benchmark", 94.63, TwoConvolutions(is_pytorch=False),
    functools.partial(optax.adadelta, rho=0.95, eps=1e-7), 1.0, 128,
    12 * (60_000 // 128), has_validation=False,
)  # fmt: skip


def kmnist_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the test accuracy of the README's CNN on KMNIST.

    Args:
      full: whether to train for 12 epochs with 5 seeds; if not, a few steps are taken.
      folder: where the sweep is saved and resumed from; None for nowhere.
      progress: whether to show a bar.

    Raises:
      DatasetUnavailable: KMNIST is not prepared.
    """
    return Table(
        title="KMNIST",
        source="Clanuwat et al. 2018, arXiv:1812.01718; README of rois-codh/kmnist",
        recipe="Keras's first MNIST example: two convolutions, dropout, Adadelta at rate 1, batch size 128",
        budget="12 epochs" if full else "the first steps",
        seeds="test accuracy after the last step, mean over seeds",
        rows=(accuracy_row(RECIPE, jm.load("kmnist"), NUM_SEEDS, full, folder, progress),),
        notes=(
            "Theirs is a single run; nothing was chosen, and so we train on all 60,000 images, as they do.",
            "Another version of the README reports 95.12 % for the same script.",
        ),
    )

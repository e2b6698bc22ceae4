"""Hyperband: brackets of successive halving, some of which prune early and some late."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from jax.typing import DTypeLike

from jaxmnist.checks import Whole, checked_by
from jaxmnist.core import losses, optimizers
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Dataset
from jaxmnist.sweeps.arguments import TRAINED
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.pruning import FACTOR, Bracket, check_pruning, prune, setting_of_each
from jaxmnist.sweeps.runs import Runs


def _check_hyperband(given: SimpleNamespace) -> None:
    check_pruning("hyperband", given.options)
    if given.factor ** (given.num_brackets - 1) > given.num_steps:
        raise ValueError(
            f"num_brackets is {given.num_brackets}; with factor {given.factor} and num_steps {given.num_steps}, the "
            "first rung of the first bracket would come before the first step"
        )


@checked_by(_check_hyperband, **TRAINED, factor=FACTOR, num_brackets=Whole(2, 32))
def hyperband(
    model: ModelLike,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    factor: int,
    num_brackets: int = 3,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    dtype: DTypeLike = "float32",
    **options: Any,
) -> xr.Dataset:
    """Returns the results of Hyperband (Li et al. 2018, arXiv:1603.06560, algorithm 1).

    The settings are dealt to brackets at random, the same way each time. Bracket s, from `num_brackets` - 1 down to 0,
    is a successive halving, as `halve` trains it, with s rungs: at `num_steps` / `factor`^s and so on up to `num_steps`
    / `factor`. In bracket 0, all settings train up to `num_steps`. The numbers of settings are those for which each
    bracket takes about as many steps: proportional to `factor`^s / (s + 1).

    Args:
      model: as `sweep`.
      optimizer: as `sweep`.
      runs: as `sweep`.
      dataset: as `sweep`.
      num_steps: training steps of the runs that are never pruned.
      factor: one in this many settings of a bracket is kept at each of its rungs; at least 2.
      num_brackets: how many brackets there are; at least 2.
      loss: as `sweep`.
      metrics: as `sweep`.
      augment: as `sweep`.
      evaluation_params: as `sweep`.
      dtype: as `sweep`.
      **options: as `halve`. Each rung of each bracket has a folder of its own in `folder`, which is in use until the
        last one has ended.

    Returns:
      As `halve`, with `bracket`: that of each run, which is the number of its rungs.

    Raises:
      ValueError: as `sweep`, or there are fewer settings than brackets, or fewer steps than the brackets need.
    """
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    with precision(setup):
        job = make_job(setup, runs, dataset, num_steps)
        return prune(job, _brackets(job.arrays, num_steps, factor, num_brackets), factor, options)


def _brackets(runs: Runs, num_steps: int, factor: int, num_brackets: int) -> list[Bracket]:
    """Returns the brackets, the one with the most rungs first; all runs of a setting are in the same one."""
    numbers: dict[tuple, int] = {}
    setting = np.array([numbers.setdefault(values, len(numbers)) for values in setting_of_each(runs)])
    if len(numbers) < num_brackets:
        raise ValueError(f"num_brackets is {num_brackets}; each needs a setting, and the runs have {len(numbers)}")
    rungs = np.arange(num_brackets)[::-1]
    shares = np.cumsum(float(factor) ** rungs / (rungs + 1))
    # Each bracket has a setting, and what is left is dealt in proportion.
    ends = np.arange(1, num_brackets + 1) + np.round((len(numbers) - num_brackets) * shares / shares[-1]).astype(int)
    dealt = np.split(np.random.default_rng(0).permutation(len(numbers)), ends[:-1])
    return [
        Bracket(
            np.flatnonzero(np.isin(setting, members)),
            tuple(num_steps // factor**power for power in range(count, -1, -1)),
            f"bracket_{count}",
        )
        for count, members in zip(rungs.tolist(), dealt, strict=True)
    ]

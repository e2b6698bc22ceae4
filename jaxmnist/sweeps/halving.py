"""Successive halving: a sweep that spends most of its steps on the settings that do best along the way."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from jax.typing import DTypeLike

from jaxmnist import checks
from jaxmnist.checks import Optional, Where, checked_by, is_ascending, is_sequence
from jaxmnist.core import losses, optimizers
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Dataset
from jaxmnist.sweeps.arguments import NUM_STEPS, TRAINED
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.pruning import FACTOR, Bracket, check_pruning, prune
from jaxmnist.sweeps.runs import Runs

NUM_DEFAULT_RUNGS = 2
RUNGS = Optional(Where("a sequence of ascending numbers of steps", is_sequence))


def _check_halving(given: SimpleNamespace) -> None:
    check_pruning("halve", given.options)
    check_rungs(given.num_steps, given.rungs)


@checked_by(_check_halving, **TRAINED, factor=FACTOR, rungs=RUNGS)
def halve(
    model: ModelLike,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    factor: int,
    rungs: Sequence[int] | None = None,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    dtype: DTypeLike = "float32",
    **options: Any,
) -> xr.Dataset:
    """Returns the results of successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943).

    All settings train up to the first rung; the best one in `factor` of them, by mean validation accuracy over their
    seeds, train up to the next, and so on up to `num_steps`. A setting keeps all of its seeds, and ranks last if one of
    its runs diverged. Each rung goes on from the states of the rung before, whose numbers are those of runs that were
    never stopped; on a cluster, it begins at step 0.

    Args:
      model: as `sweep`.
      optimizer: as `sweep`.
      runs: as `sweep`.
      dataset: as `sweep`.
      num_steps: training steps of the runs that are never pruned.
      factor: one in this many settings is kept at each rung; at least 2.
      rungs: ascending steps below `num_steps` at which to prune; default `num_steps` / `factor`^2 and / `factor`.
      loss: as `sweep`.
      metrics: as `sweep`.
      augment: as `sweep`.
      evaluation_params: as `sweep`.
      dtype: as `sweep`.
      **options: further arguments of `sweep`, except `num_evaluations`, `record`, `shard` and `keep_states`. Each rung
        has a folder of its own in `folder`, which is in use until the last one has ended.

    Returns:
      As `sweep`, with `pruned_step`: the step after which a run was pruned, nan if it was not. The other
      variables of a pruned run are those at that step.

    Raises:
      ValueError: as `sweep`, or the factor or the rungs are not as described above.
    """
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    steps = default_rungs(num_steps, factor) if rungs is None else list(rungs)
    with precision(setup):
        job = make_job(setup, runs, dataset, num_steps)
        return prune(job, [Bracket(np.arange(len(job.arrays["seed"])), (*steps, num_steps), "")], factor, options)


def default_rungs(num_steps: int, factor: int) -> list[int]:
    """Returns the rungs of a halving for which none are given."""
    return sorted({num_steps // factor**power for power in range(1, NUM_DEFAULT_RUNGS + 1)} - {0})


@checked_by(num_steps=NUM_STEPS, rungs=RUNGS)
def check_rungs(num_steps: int, rungs: Sequence[int] | None) -> None:
    """Raises an error if `halve` would not take these rungs.

    Args:
      num_steps: as in `halve`.
      rungs: as in `halve`; None always fits.

    Raises:
      ValueError: `num_steps` is not a whole number from 1 on, or the rungs are not ascending whole numbers from 1 to
        below it.
    """
    if rungs is not None and (not is_ascending(rungs) or rungs[0] < 1 or rungs[-1] >= num_steps):
        raise ValueError(
            f"rungs are {checks.shown(rungs)}; they are ascending numbers of steps from 1 to below num_steps, "
            f"{num_steps}"
        )

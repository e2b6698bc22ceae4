"""Successive halving: a sweep that spends most of its steps on the settings that do best along the way."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from jax.typing import DTypeLike

from jaxmnist import checks
from jaxmnist.analysis import files as result_files
from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import with_one_seed
from jaxmnist.checks import Optional, Where, Whole, checked_by, is_ascending, is_sequence, kinds
from jaxmnist.core import losses, optimizers
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Dataset
from jaxmnist.host.devices import available
from jaxmnist.host.lock import hold
from jaxmnist.sweeps.arguments import NUM_STEPS, TRAINED
from jaxmnist.sweeps.carried import Carried
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.fingerprint import raise_if_different
from jaxmnist.sweeps.folder import SweepFolder, is_begun
from jaxmnist.sweeps.job import Job, describe, make_job
from jaxmnist.sweeps.runs import Runs, hyperparameter_names
from jaxmnist.sweeps.sweep import Means, check_cluster, sweep, train

NUM_DEFAULT_RUNGS = 2


FACTOR = Whole(2)
SWEEP_KINDS = kinds(sweep)
RUNGS = Optional(Where("a sequence of ascending numbers of steps", is_sequence))


def _check_halving(given: SimpleNamespace) -> None:
    for name, value in given.options.items():
        if name in ("num_evaluations", "record", "shard", "keep_states") and value is not None:
            raise ValueError(f"{name} is {value!r}; halve does not take it, since it evaluates all runs at its rungs")
        if name not in SWEEP_KINDS:
            raise TypeError(f"halve() has no argument {name!r}")
        SWEEP_KINDS[name].check(name, value)
    check_cluster(given.options.get("cluster"), given.options.get("ray_resources"))
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
    place = options.get("folder")
    folder = Path(place) if place is not None else None
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    steps = default_rungs(num_steps, factor) if rungs is None else list(rungs)
    stops = [*steps, num_steps]
    with precision(setup), hold(folder, options.get("wait", False)):
        job = make_job(setup, runs, dataset, num_steps)
        description = describe(job) | {"rungs": " ".join(map(str, stops)), "factor": int(factor)}
        if folder is not None:
            finished = _finished_result(folder, stops, description)
            if finished is not None:
                return finished
        means = Means(
            options.get("memory") or available(),
            cluster=options.get("cluster"),
            ray_resources=options.get("ray_resources"),
            progress=options.get("progress", True),
        )
        merged = _merge(job.arrays, _train_rungs(job, stops, factor, means, folder), description)
        if folder is not None:
            result_files.save(merged, folder)
            for stop in stops:
                SweepFolder(_rung_folder(folder, stop)).forget()
        return merged


def _train_rungs(
    job: Job, stops: Sequence[int], factor: int, means: Means, folder: Path | None
) -> list[tuple[int, np.ndarray, xr.Dataset]]:
    """Returns the steps of each rung, the rows of the runs that reached it, and their results there."""
    stages = []
    rows, origin = np.arange(len(job.arrays["seed"])), None
    for stop in stops:
        arrays = {name: values[rows] for name, values in job.arrays.items()}
        # A cluster's workers keep no states.
        reached = Carried(stop) if stop < stops[-1] and means.cluster is None else None
        place = _rung_folder(folder, stop) if folder is not None else None
        keeps = place is not None and reached is not None
        rung = means._replace(folder=place, keep_states=keeps, origin=origin, reached=reached)
        result = train(job._replace(arrays=arrays, num_steps=stop), rung)
        stages.append((stop, rows, result))
        if stop < stops[-1]:
            staying = survivors(arrays, result, factor)
            rows, origin = rows[staying], reached.only(staying.tolist()) if reached is not None else None
    return stages


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


def survivors(runs: Runs, result: xr.Dataset, factor: int) -> np.ndarray:
    """Returns which of the runs belong to the best one in `factor` settings, at least one, in their order."""
    names = [*hyperparameter_names(runs), "batch_size"]
    ranked = results.settings(with_one_seed(result))[names]
    kept = ranked.head(max(math.ceil(len(ranked) / factor), 1))
    settings = set(kept.itertuples(index=False, name=None))
    columns = zip(*(np.asarray(runs[name]).tolist() for name in names), strict=True)
    return np.flatnonzero([setting in settings for setting in columns])


def _rung_folder(folder: Path, stop: int) -> Path:
    return folder / f"rung_{stop:08d}"


def _finished_result(folder: Path, stops: Sequence[int], description: dict) -> xr.Dataset | None:
    """Returns the result of this halving in a folder, or None if it has not ended.

    Raises:
      ValueError: the folder belongs to another search, or a file of somebody else has a name that is needed.
    """
    for place in (folder, *(_rung_folder(folder, stop) for stop in stops)):
        SweepFolder(place).check()
    if is_begun(folder):
        raise ValueError(f"{folder} holds a sweep that was interrupted: choose another folder")
    held = SweepFolder(folder).held()
    if held is None or not held.is_finished:
        return None
    raise_if_different(f"the sweep in {folder}", held.description, description)
    return held.result


def _merge(arrays: Runs, stages: list[tuple[int, np.ndarray, xr.Dataset]], description: dict) -> xr.Dataset:
    """Returns the last results of every run."""
    num_runs = len(arrays["seed"])
    values = {name: np.full(num_runs, np.nan) for name in (*stages[0][2].data_vars, "pruned_step")}
    for stop, rows, result in stages:
        stage_runs = results.by_run(result, {name: column[rows] for name, column in arrays.items()})
        for name, column in stage_runs.items():
            values[name][rows] = column
        values["pruned_step"][rows] = stop if stop < stages[-1][0] else np.nan
    return results.label(arrays, values, (), description)

"""Settings that are pruned along training: what successive halving and Hyperband have in common."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from jaxmnist.analysis import files as result_files
from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import with_one_seed
from jaxmnist.checks import Whole
from jaxmnist.host.lock import hold
from jaxmnist.sweeps.carried import Carried
from jaxmnist.sweeps.fingerprint import raise_if_different
from jaxmnist.sweeps.folder import SweepFolder, is_begun
from jaxmnist.sweeps.job import Job, describe
from jaxmnist.sweeps.options import check_options, folder_of, means_of
from jaxmnist.sweeps.runs import Runs, hyperparameter_names
from jaxmnist.sweeps.sweep import Means, train

FACTOR = Whole(2)


def check_pruning(function: str, options: Mapping[str, Any]) -> None:
    """Raises an error if a function that prunes cannot pass these on to `sweep`."""
    for name in ("num_evaluations", "record", "shard", "keep_states"):
        if options.get(name) is not None:
            raise ValueError(
                f"{name} is {options[name]!r}; {function} does not take it, since it evaluates all runs at its rungs"
            )
    check_options(function, options)


class Bracket(NamedTuple):
    """Runs that are pruned against each other.

    Attributes:
      rows: `[K]` int, which runs these are.
      stops: ascending; the steps after which to prune, followed by those of the runs that are never pruned.
      place: their subfolder.
    """

    rows: np.ndarray
    stops: tuple[int, ...]
    place: str


def prune(job: Job, brackets: Sequence[Bracket], factor: int, options: Mapping[str, Any]) -> xr.Dataset:
    """Returns the results of runs that are pruned in brackets, trained or read from their folder.

    Args:
      job: all runs, and the steps of those that are never pruned.
      brackets: each run is in one of them.
      factor: one in this many settings is kept at each rung.
      options: further arguments of `sweep`, checked.
    """
    folder = folder_of(options)
    rungs = "; ".join(" ".join(map(str, bracket.stops)) for bracket in brackets)
    description = describe(job) | {"rungs": rungs, "factor": int(factor)}
    with hold(folder, options.get("wait", False)):
        places = [folder / each.place / _rung(stop) for each in brackets for stop in each.stops] if folder else []
        if folder is not None:
            finished = _finished_result(folder, places, description)
            if finished is not None:
                return finished
        means, stages = means_of(options), []
        for bracket in brackets:
            stages += _train_rungs(job, bracket, factor, means, folder / bracket.place if folder else None)
        merged = _merge(job.arrays, stages, brackets, description)
        if folder is not None:
            result_files.save(merged, folder)
            for place in places:
                SweepFolder(place).forget()
        return merged


def _train_rungs(
    job: Job, bracket: Bracket, factor: int, means: Means, folder: Path | None
) -> list[tuple[int, np.ndarray, xr.Dataset]]:
    """Returns the steps of each rung, the rows of the runs that reached it, and their results there."""
    stages = []
    rows, stops, origin = bracket.rows, bracket.stops, None
    for stop in stops:
        arrays = {name: values[rows] for name, values in job.arrays.items()}
        # A cluster's workers keep no states.
        reached = Carried(stop) if stop < stops[-1] and means.cluster is None else None
        place = folder / _rung(stop) if folder is not None else None
        keeps = place is not None and reached is not None
        rung = means._replace(folder=place, keep_states=keeps, origin=origin, reached=reached)
        result = train(job._replace(arrays=arrays, num_steps=stop), rung)
        stages.append((stop, rows, result))
        if stop < stops[-1]:
            staying = survivors(arrays, result, factor)
            rows, origin = rows[staying], reached.only(staying.tolist()) if reached is not None else None
    return stages


def survivors(runs: Runs, result: xr.Dataset, factor: int) -> np.ndarray:
    """Returns which of the runs belong to the best one in `factor` settings, at least one, in their order."""
    ranked = results.settings(with_one_seed(result))[_names(runs)]
    kept = ranked.head(max(math.ceil(len(ranked) / factor), 1))
    settings = set(kept.itertuples(index=False, name=None))
    return np.flatnonzero([setting in settings for setting in setting_of_each(runs)])


def setting_of_each(runs: Runs) -> list[tuple]:
    """Returns the setting of each run: what it has besides its seeds."""
    return list(zip(*(np.asarray(runs[name]).tolist() for name in _names(runs)), strict=True))


def _names(runs: Runs) -> list[str]:
    return [*hyperparameter_names(runs), "batch_size"]


def _rung(stop: int) -> str:
    return f"rung_{stop:08d}"


def _finished_result(folder: Path, places: Sequence[Path], description: dict) -> xr.Dataset | None:
    """Returns the result of this search in a folder, with rungs in these places, or None if it has not ended.

    Raises:
      ValueError: the folder belongs to another search, or a file of somebody else has a name that is needed.
    """
    for place in (folder, *places):
        SweepFolder(place).check()
    if is_begun(folder):
        raise ValueError(f"{folder} holds a sweep that was interrupted: choose another folder")
    held = SweepFolder(folder).held()
    if held is None or not held.is_finished:
        return None
    raise_if_different(f"the sweep in {folder}", held.description, description)
    return held.result


def _merge(
    arrays: Runs,
    stages: list[tuple[int, np.ndarray, xr.Dataset]],
    brackets: Sequence[Bracket],
    description: dict,
) -> xr.Dataset:
    """Returns the last results of every run."""
    num_runs = len(arrays["seed"])
    values = {name: np.full(num_runs, np.nan) for name in (*stages[0][2].data_vars, "pruned_step")}
    for stop, rows, result in stages:
        stage_runs = results.by_run(result, {name: column[rows] for name, column in arrays.items()})
        for name, column in stage_runs.items():
            values[name][rows] = column
        values["pruned_step"][rows] = stop if stop < stages[-1][0] else np.nan
    if len(brackets) > 1:
        values["bracket"] = np.zeros(num_runs)
        for bracket in brackets:
            values["bracket"][bracket.rows] = len(bracket.stops) - 1
    return results.label(arrays, values, (), description)

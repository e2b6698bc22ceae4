"""The parts of a sweep that several machines train, and the results of several sweeps as one."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from jaxmnist.analysis import files as result_files
from jaxmnist.analysis import results
from jaxmnist.analysis.files import load_results
from jaxmnist.checks import PATH, Where, checked_by, is_sequence, shown
from jaxmnist.host.files import NOT_COMPARED
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.fingerprint import COMPUTATION, PLAN, RUNS, raise_if_different, without
from jaxmnist.sweeps.folder import SweepFolder
from jaxmnist.sweeps.job import of_runs
from jaxmnist.sweeps.runs import distinct_rows
from jaxmnist.sweeps.trials import static_values

PART = "shard_{}_of_{}"
OF_SHARDS = ("shard", "plan_crc32")


def described(programs: list[planning.Program], shard: tuple[int, int]) -> dict:
    """Returns how a shard describes itself, besides what its sweep is."""
    return {"shard": f"{shard[0]}/{shard[1]}", "plan_crc32": planning.fingerprint(programs)}


def part_folder(folder: Path, shard: tuple[int, int], description: Mapping) -> Path:
    """Returns the folder of a shard within that of the sweep.

    Raises:
      ValueError: the sweep that the folder holds is another one than that of the shard.
    """
    whole = SweepFolder(folder).held()
    if whole is not None:
        own = without(OF_SHARDS, description)
        raise_if_different(f"the sweep in {folder}", whole.description, own)
    return folder / PART.format(*shard)


def unite(folder: Path, num_shards: int) -> None:
    """Writes the result of the whole sweep, if all of its shards have ended."""
    parts = [folder / PART.format(part, num_shards) for part in range(1, num_shards + 1)]
    held = [SweepFolder(part).held() for part in parts]
    if all(part is not None and part.is_finished for part in held):
        result_files.save(merge(parts), folder)


def _are_files(value: object) -> bool:
    return is_sequence(value) and all(map(PATH.accepts, value))


@checked_by(files=Where("a sequence of files or folders", _are_files))
def merge(files: Sequence[str | os.PathLike]) -> xr.Dataset:
    """Returns one result from those of all shards of a sweep, or from those of sweeps that differ in their runs alone.

    Sweeps must have the same hyperparameters, and the same model, optimizer, loss, data and steps. Of a run that
    several have, the numbers of the first are taken. That the model, the optimizer and the loss compute the same can be
    told if two sweeps have a value of each static hyperparameter in common; else by their names alone.

    Args:
      files: the `results.nc` of each, or the folder that holds it or the folders of shards, in any order.

    Raises:
      ValueError: a shard is missing, given twice or not finished, or the results are not of one sweep or problem.
    """
    paths = [path for file in files for path in _expanded(Path(file))]
    for path in paths:
        # The folder of a mistyped file may hold a result that nobody has asked for.
        if path.name != result_files.FILE_NAME and not path.is_dir():
            raise ValueError(f"files hold {path}, which is neither a folder nor a {result_files.FILE_NAME}")
    parts = [load_results(path if path.is_dir() else path.parent) for path in paths]
    if not parts:
        raise ValueError("merge() needs the files of the shards")
    for path, part in zip(paths, parts, strict=True):
        if "finished" in part:
            raise ValueError(f"{path} is not finished")
    if any("shard" in part.attrs for part in parts):
        return _of_shards(paths, parts)
    return _of_sweeps(paths, parts) if len(parts) > 1 else parts[0]


def _expanded(path: Path) -> list[Path]:
    """Returns the folders of shards in a folder that has no result of its own; else the path itself."""
    parts = sorted(path.glob(PART.format("*", "*")))
    return parts if parts and not (path / result_files.FILE_NAME).is_file() else [path]


def _of_sweeps(paths: list[Path], parts: list[xr.Dataset]) -> xr.Dataset:
    """Returns the results of all runs of several sweeps of one problem."""
    computations = _computations(paths, parts)
    names = list(results.hyperparameters(parts[0]))
    runs = [results.runs(part) for part in parts]
    values = [results.by_run(part, own) for part, own in zip(parts, runs, strict=True)]
    whole = {name: np.concatenate([each[name] for each in runs]) for name in names}
    rows = distinct_rows(whole)
    whole = {name: column[rows] for name, column in whole.items()}
    static = tuple(json.loads(next(iter(computations))))
    settings = [json.dumps(dict(each)) for each in static_values(whole, static)]
    own = of_runs(whole, {setting: computations.get(setting, "") for setting in settings})
    own["objects"] = " ".join(dict.fromkeys(" ".join(part.attrs.get("objects", "") for part in parts).split()))
    first = parts[0]
    attrs = without(PLAN | {"axes"}, first.attrs) | own
    columns = {name: np.concatenate([each[name] for each in values])[rows] for name in values[0]}
    steps = first["step"].values.tolist() if "step" in first else ()
    return results.label(whole, columns, steps, attrs)


def _computations(paths: list[Path], parts: list[xr.Dataset]) -> dict[str, str]:
    """Returns what is computed with each combination of static values, after checking that results are of one problem.

    Raises:
      ValueError: they are not.
    """
    first_path, first = paths[0], parts[0]
    found: dict[str, str] = {}
    names = results.hyperparameters(first)
    ignored = RUNS | PLAN | {COMPUTATION}
    for path, part in zip(paths, parts, strict=True):
        if set(results.hyperparameters(part)) != set(names):
            raise ValueError(
                f"{path} and {first_path} have different hyperparameters: {', '.join(results.hyperparameters(part))}, "
                f"and {', '.join(names)}"
            )
        raise_if_different(f"the sweep in {path}", without(ignored, part.attrs), without(ignored, first.attrs))
        own = json.loads(part.attrs.get("computations", "{}"))
        if not own or any(own[values] != found[values] for values in set(own) & set(found)):
            raise ValueError(
                f"{path} and {first_path} are not of one problem: their model, optimizer or loss differ in what they "
                "compute, or an earlier version has not recorded what that is"
            )
        found |= own
    return found


def _of_shards(paths: list[Path], parts: list[xr.Dataset]) -> xr.Dataset:
    """Returns the result of the sweep of which these are all shards."""
    first = parts[0].attrs
    found: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        shard = part.attrs.get("shard")
        if shard is None:
            raise ValueError(f"{path} is not a shard, as others of the files are")
        if shard in found:
            raise ValueError(f"{path} and {found[shard]} are both the shard {shard}")
        found[shard] = path
        for name in set(first) - NOT_COMPARED - {"shard"}:
            if part.attrs.get(name) != first[name]:
                raise ValueError(f"{path} and {paths[0]} are not of one sweep: {name} differs")
    num_shards = _num_shards(first["shard"])
    missing = [f"{i}/{num_shards}" for i in range(1, num_shards + 1) if f"{i}/{num_shards}" not in found]
    if missing:
        raise ValueError(f"shards are missing: {', '.join(missing)}")
    whole = xr.concat(parts, "run", combine_attrs="override").sortby("row")
    if not np.array_equal(whole["row"], np.arange(first["num_runs"])):
        raise ValueError("the shards do not hold each run once")
    runs = {name: whole[name].values for name in results.hyperparameters(parts[0])}
    values = {str(name): array.values for name, array in whole.data_vars.items()}
    steps = whole["step"].values.tolist() if "step" in whole else ()
    attrs = without({*OF_SHARDS, *PLAN, "axes"}, first)
    return results.label(runs, values, steps, attrs)


def _num_shards(shard: object) -> int:
    found = re.fullmatch(r"\d{1,9}/(\d{1,9})", str(shard))
    if not found:
        raise ValueError(f"the shard {shown(shard)} is not I/N, such as 3/16")
    return int(found[1])

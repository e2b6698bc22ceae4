"""Labelled results: from arrays of runs to `xarray`, to files and back, and the statistics read off them.

A setting is one combination of hyperparameters; its runs differ in the seed alone. Every choice is made on the
validation split. Accuracies are fractions, losses nats per example.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from jaxmnist.files import FORMAT, check_format, write_atomically

FILE_NAME = "results.nc"
METRICS = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "diverged_step", "pruned_step")
STEPS = ("diverged_step", "pruned_step")
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and the 95 % confidence interval around it.

    Attributes:
      mean: the mean, or the proportion.
      low: lower end; nan where there is none.
      high: upper end; nan where there is none.
      kind: in words, what the interval is and over how many of what.
    """

    mean: float
    low: float
    high: float
    kind: str


class Best(NamedTuple):
    """The setting chosen on validation.

    Attributes:
      setting: hyperparameter -> value.
      validation: mean validation accuracy over seeds.
      test: mean test accuracy over seeds, of this setting alone.
      edges: the hyperparameters whose best value is the smallest or the largest of its axis.
    """

    setting: dict[str, float]
    validation: Interval
    test: Interval
    edges: list[str]


def label(
    runs: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    steps: Sequence[int],
    attrs: dict,
    rows: np.ndarray | None = None,
) -> xr.Dataset:
    """Returns the results of runs as a data set with named dims.

    Args:
      runs: name to `[R]` hyperparameter values.
      values: name to `[R]` results, or `[R, E]` for names that begin with `recorded_`.
      steps: the E recorded training steps.
      attrs: what the result says of itself.
      rows: `[R]` int, for a part of a sweep: the places of these runs among all of them.

    Returns:
      One dim per hyperparameter, sorted, if the runs are every combination of their values once; else one dim `run`
      with the hyperparameters, and `rows` as `row`, as coordinates.
    """
    axes = {name: list(dict.fromkeys(np.asarray(column).tolist())) for name, column in runs.items()}
    sorted_axes = {name: np.array(sorted(axis)) for name, axis in axes.items()}
    shape = tuple(len(axis) for axis in axes.values())
    places = tuple(np.searchsorted(sorted_axes[name], column) for name, column in runs.items())
    num_runs = len(next(iter(runs.values())))
    flat = np.ravel_multi_index(places, shape)
    is_grid = rows is None and num_runs == math.prod(shape) and len(np.unique(flat)) == num_runs
    dims: tuple[str, ...] = tuple(axes) if is_grid else ("run",)
    coords: dict = (
        dict(sorted_axes) if is_grid else {name: ("run", np.asarray(column)) for name, column in runs.items()}
    )
    if rows is not None:
        coords["row"] = ("run", rows)
    variables = {}
    for name, array in values.items():
        curve = ("step",) if name.startswith("recorded_") else ()
        if is_grid:
            array = array[np.argsort(flat)].reshape(*shape, *array.shape[1:])
        variables[name] = (dims + curve, array)
    if any("step" in dims_of for dims_of, _ in variables.values()):
        coords = coords | {"step": np.asarray(steps)}
    typed = {"axes": json.dumps(axes)}  # the order in which the axes and their values were typed
    return xr.Dataset(variables, coords, attrs | typed)


def axes(result: xr.Dataset) -> dict[str, list]:
    """Returns the hyperparameters of a result, `seed` among them, with those of their values that it has, as typed."""
    typed = json.loads(result.attrs["axes"])
    held = {name: set(np.atleast_1d(result[name].values).tolist()) for name in typed}
    return {name: [value for value in values if value in held[name]] for name, values in typed.items()}


def with_all_dims(result: xr.Dataset) -> xr.Dataset:
    """Returns the result with a dim for each hyperparameter of which one value was selected, as in `.sel(seed=0)`."""
    return result.expand_dims([name for name in axes(result) if result[name].ndim == 0])


def table(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per run in the order of the runs: hyperparameters, seed, then the metrics."""
    names = list(axes(result))
    result = with_all_dims(result)
    metrics = result[[name for name in METRICS if name in result]]
    if "run" in result.dims:
        frame = metrics.to_dataframe().reset_index(drop=True)
    else:
        frame = metrics.sel(axes(result)).to_dataframe(dim_order=names).reset_index()
    for name in STEPS:
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    return frame[[name for name in names if name != "seed"] + ["seed", *metrics]]


def by_run(result: xr.Dataset, runs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a result's variables as arrays `[R, ...]` in the order of the runs it is the result of."""
    if "run" not in result.dims:
        result = result.sel({name: xr.DataArray(values, dims="run") for name, values in runs.items()})
    return {str(name): array.transpose("run", ...).values for name, array in result.data_vars.items()}


def curve_table(
    result: xr.Dataset, splits: str | Sequence[str] = ("test",), metrics: str | Sequence[str] = ("accuracy",)
) -> pd.DataFrame:
    """Returns one row per setting and recorded step, settings in the order of their runs.

    A run counts as long as it has not diverged: where one of a setting's runs has, or is not finite, the setting has no
    mean, and its statistics are nan.

    Args:
      result: with `recorded_{split}_{metric}` for each split and metric.
      splits: of `"train"`, `"validation"` and `"test"`.
      metrics: of `"accuracy"` and `"loss"`.

    Returns:
      Columns: the hyperparameters of several values, `step`, `num_seeds`; over seeds, of each `{split}_{metric}`, its
      mean (`*_mean`), standard deviation (`*_std`), least and largest value (`*_min`, `*_max`), and half the width of
      the mean's 95 % t interval (`*_half_width`), nan for one seed as is the deviation; `num_diverged`, the number of
      runs that have diverged by this step.

    Raises:
      ValueError: the result has no such curve.
    """
    from scipy import stats

    splits, metrics = ([given] if isinstance(given, str) else list(given) for given in (splits, metrics))
    columns = [f"{split}_{metric}" for split in splits for metric in metrics]
    missing = [f"recorded_{column}" for column in columns if f"recorded_{column}" not in result]
    if missing:
        raise ValueError(f"a curve needs {missing[0]}, which this result does not have: record it in the sweep")
    rows = table(result)
    steps = result["step"].values
    curves = {column: _curves(result, f"recorded_{column}") for column in columns}
    # The loss of step s is that of the parameters which s - 1 steps had left.
    first = rows["diverged_step"].astype(float).to_numpy() - 1
    has_diverged = steps >= np.where(np.isnan(first), math.inf, first)[:, None]
    names = wide_axes(result)
    parts = []
    for setting, places in _by_setting(rows, names):
        num_seeds = len(places)
        part = pd.DataFrame({**setting, "step": steps, "num_seeds": num_seeds})
        for column in columns:
            values = np.where(has_diverged[places], np.nan, curves[column][places])
            deviation = values.std(axis=0, ddof=1) if num_seeds > 1 else np.full(len(steps), np.nan)
            part[f"{column}_mean"] = values.mean(axis=0)
            part[f"{column}_std"] = deviation
            part[f"{column}_min"], part[f"{column}_max"] = values.min(axis=0), values.max(axis=0)
            t = stats.t.ppf((1 + CONFIDENCE) / 2, num_seeds - 1) if num_seeds > 1 else math.nan
            part[f"{column}_half_width"] = t * deviation / math.sqrt(num_seeds)
        part["num_diverged"] = has_diverged[places].sum(axis=0)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def wide_axes(result: xr.Dataset) -> list[str]:
    """Returns the hyperparameters, without the seed, of which a result has several values."""
    return [name for name, axis in axes(result).items() if name != "seed" and len(axis) > 1]


def _curves(result: xr.Dataset, name: str) -> np.ndarray:
    """Returns recorded curves, `[R, E]` float64, in the order of the rows of `table`."""
    curves = with_all_dims(result)[name].astype(np.float64)
    if "run" in curves.dims:
        return curves.transpose("run", "step").values
    typed = axes(result)
    return curves.sel(typed).transpose(*typed, "step").values.reshape(-1, curves.sizes["step"])


def _by_setting(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields each setting, and where its runs are among the rows."""
    places: dict[tuple, list[int]] = {}
    for place, values in enumerate(zip(*(rows[name] for name in names), strict=True) if names else [()] * len(rows)):
        places.setdefault(values, []).append(place)
    for values, of_setting in places.items():
        yield dict(zip(names, values, strict=True)), np.array(of_setting)


def settings(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per setting, best first.

    Columns: the hyperparameters, `num_seeds`, `num_diverged`, and over seeds the mean of `validation_accuracy`,
    `validation_loss` and `test_accuracy`, its standard deviation (`*_std`) and the half width of its 95 % t interval
    (`*_half_width`), both nan for one seed; `pruned_step` where there was pruning.
    Settings of which a run diverged come last: their mean describes no run. Before them come those that were pruned,
    the later the better. Runs that have not ended are left out.
    """
    from scipy import stats

    names = [name for name in axes(result) if name != "seed"]
    rows = table(result)
    if "finished" in result:
        rows = rows[rows["validation_loss"].notna() | rows["diverged_step"].notna()]
    rows["diverged"] = rows["diverged_step"].notna()
    columns = ("validation_accuracy", "validation_loss", "test_accuracy")
    aggregations: dict[str, tuple[str, str | Callable]] = {
        "num_seeds": ("seed", "size"),
        "num_diverged": ("diverged", "sum"),
    }
    for column in columns:
        aggregations[column] = (column, lambda values: values.mean(skipna=False))
        aggregations[f"{column}_std"] = (column, "std")
    if "pruned_step" in rows:
        aggregations["pruned_step"] = ("pruned_step", "max")
    by_setting = rows.groupby(names, sort=False).agg(**aggregations).reset_index()
    counts = by_setting["num_seeds"].to_numpy(float)
    for column in columns:
        with np.errstate(invalid="ignore"):
            width = stats.t.ppf((1 + CONFIDENCE) / 2, counts - 1) / np.sqrt(counts)
        by_setting[f"{column}_half_width"] = width * by_setting[f"{column}_std"]
    by_setting["_diverged"] = by_setting["num_diverged"] > 0
    by_setting["_steps"] = (
        by_setting["pruned_step"].astype(float).fillna(math.inf) if "pruned_step" in rows else math.inf
    )
    order = by_setting.sort_values(
        ["_diverged", "_steps", "validation_accuracy", "validation_loss"],
        ascending=[True, False, False, True],
        kind="stable",
    )
    return order.drop(columns=["_diverged", "_steps"]).reset_index(drop=True)


def best(result: xr.Dataset) -> Best | None:
    """Returns the setting of the highest mean validation accuracy, or None where every setting diverged.

    Ties go to the lower validation loss. Settings of which a run diverged are not considered.
    """
    ranked = settings(result)
    if ranked["num_diverged"].iloc[0] > 0:
        return None
    # Column by column: a row as a whole would turn batch sizes into floats.
    setting = {name: ranked[name].iloc[:1].tolist()[0] for name in axes(result) if name != "seed"}
    rows = table(result)
    chosen = rows[np.logical_and.reduce([rows[name] == value for name, value in setting.items()])]
    edges = [
        name
        for name, value in setting.items()
        if len(axes(result)[name]) > 1 and value in (min(axes(result)[name]), max(axes(result)[name]))
    ]
    return Best(
        setting,
        interval(chosen["validation_accuracy"], result.attrs["num_validation"]),
        interval(chosen["test_accuracy"], result.attrs["num_test"]),
        edges,
    )


def best_of_each(result: xr.Dataset, name: str) -> dict[Any, Best | None]:
    """Returns, for each value of one hyperparameter, the best setting among those that have it; as `best` chooses.

    The edges are those of the values that occur together with it.
    """
    result = with_all_dims(result)
    dim = "run" if "run" in result.dims else name
    return {value: best(result.isel({dim: (result[name] == value).values})) for value in axes(result)[name]}


def interval(accuracies: npt.ArrayLike, num_images: int) -> Interval:
    """Returns the 95 % interval of an accuracy: Student's t over the seeds, or Wilson's over the images for one seed.

    Args:
      accuracies: one fraction per seed.
      num_images: size of the split.
    """
    from scipy import stats

    values = np.asarray(accuracies, np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        if math.isnan(mean):
            return Interval(mean, math.nan, math.nan, "no interval")
        wilson = stats.binomtest(round(mean * num_images), num_images).proportion_ci(CONFIDENCE, "wilson")
        return Interval(
            mean, float(wilson.low), float(wilson.high), f"Wilson interval over {num_images} images, 1 seed"
        )
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    low, high = max(mean - half_width, 0.0), min(mean + half_width, 1.0)
    return Interval(mean, low, high, f"t interval over {len(values)} seeds")


def save(result: xr.Dataset, folder: str | os.PathLike) -> None:
    """Writes `results.nc` (everything) and `results.csv` (a row per run) into a folder, each atomically."""
    write(result, folder)
    write_atomically(Path(folder) / "results.csv", lambda path: table(result).to_csv(path, index=False))


def write(result: xr.Dataset, folder: str | os.PathLike) -> None:
    """Writes `results.nc` into a folder, atomically."""
    # By way of memory: HDF5 itself crashes the process, some time later, where it finds the disk full.
    content = result.to_netcdf(engine="h5netcdf")
    write_atomically(Path(folder) / FILE_NAME, lambda path: Path(path).write_bytes(content))


def merge(files: Iterable[str | os.PathLike]) -> xr.Dataset:
    """Returns the result of a whole sweep from those of its shards.

    Args:
      files: each shard's `results.nc`, or the folder that holds it, in any order.

    Raises:
      ValueError: a shard is missing, there twice or not finished, or the shards are not of one sweep.
    """
    paths = [Path(file) for file in files]
    parts = [load_results(path if path.is_dir() else path.parent) for path in paths]
    if not parts:
        raise ValueError("merge() needs the files of the shards")
    first = parts[0].attrs
    found: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        shard = part.attrs.get("shard")
        if shard is None or "finished" in part:
            raise ValueError(f"{path} is not {'a shard' if shard is None else 'finished'}")
        if shard in found:
            raise ValueError(f"{path} and {found[shard]} are both the shard {shard}")
        found[shard] = path
        for name in set(first) - {"format", "shard", "axes", "versions", "backend", "num_devices"}:
            if part.attrs.get(name) != first[name]:
                raise ValueError(f"{path} and {paths[0]} are not of one sweep: {name} differs")
    num_shards = int(first["shard"].split("/")[1])
    missing = [f"{i}/{num_shards}" for i in range(1, num_shards + 1) if f"{i}/{num_shards}" not in found]
    if missing:
        raise ValueError(f"shards are missing: {', '.join(missing)}")
    whole = xr.concat(parts, "run", combine_attrs="override").sortby("row")
    if not np.array_equal(whole["row"], np.arange(first["num_runs"])):
        raise ValueError("the shards do not hold each run once")
    runs = {name: whole[name].values for name in axes(whole)}
    values = {str(name): array.values for name, array in whole.data_vars.items()}
    steps = whole["step"].values.tolist() if "step" in whole else ()
    attrs = {name: value for name, value in first.items() if name not in ("shard", "plan_crc32", "axes")}
    return label(runs, values, steps, attrs)


def load_results(folder: str | os.PathLike) -> xr.Dataset:
    """Returns the result that `save` wrote into a folder.

    Raises:
      ValueError: there is none, it is damaged, or a later version has written it.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no {FILE_NAME}; it is not the output folder of a finished sweep")
    try:
        result = xr.load_dataset(path, engine="h5netcdf")
        found = int(result.attrs.get("format", FORMAT))
        if found <= FORMAT:
            axes(result)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or was not written by jaxmnist: {error}") from None
    check_format(found, path)
    return result

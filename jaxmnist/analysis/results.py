"""Labelled results: from arrays of runs to `xarray`, and statistics of them.

A setting is one combination of hyperparameters; its runs differ in the seed alone. Every choice is made on the
validation split. Accuracies are fractions, losses nats per example.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis.arguments import (
    SETTINGS,
    SEVERAL_METRICS,
    SEVERAL_SPLITS,
    IsResult,
    axis_values,
    check_result,
    varied,
)
from jaxmnist.analysis.intervals import Interval, half_width, interval
from jaxmnist.checks import STRING, Choice, checked_by

METRICS = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "diverged_step", "pruned_step")
STEPS = ("diverged_step", "pruned_step")


class Best(NamedTuple):
    """The setting chosen on validation.

    Attributes:
      setting: hyperparameter -> value.
      validation: mean validation accuracy over seeds.
      test: mean test accuracy over seeds, of this setting alone.
      edges: the numeric hyperparameters whose best value is the smallest or the largest of its axis; names and booleans
        have no edge.
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
      attrs: what the result says about itself.
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
    if any("step" in found for found, _ in variables.values()):
        coords = coords | {"step": np.asarray(steps)}
    typed = {"axes": json.dumps(axes)}  # the order in which the axes and their values were typed
    return xr.Dataset(variables, coords, attrs | typed)


def hyperparameters(result: xr.Dataset) -> dict[str, list]:
    """Returns the hyperparameters of a result, `seed` among them, with the values that occur, in the order typed."""
    typed = axis_values(result)
    held = {name: set(np.atleast_1d(result[name].values).tolist()) for name in typed}
    return {name: [value for value in values if value in held[name]] for name, values in typed.items()}


def runs(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Returns the runs of a result in their order, name to `[R]` values, as `sweep` was given them."""
    rows = table(result)
    return {name: rows[name].to_numpy() for name in hyperparameters(result)}


def with_all_dims(result: xr.Dataset) -> xr.Dataset:
    """Returns the result with a dim for each hyperparameter of which one value was selected, as in `.sel(seed=0)`."""
    return result.expand_dims([name for name in hyperparameters(result) if result[name].ndim == 0])


def _places(result: xr.Dataset, values: Mapping[str, list]) -> dict[str, list[int]]:
    """Returns the positions of values along the dims of a result. (`sel` would take a list of booleans for a mask.)"""
    found = {name: {value: i for i, value in enumerate(result[name].values.tolist())} for name in values}
    return {name: [found[name][value] for value in column] for name, column in values.items()}


@checked_by(result=IsResult(present=METRICS))
def table(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per run in the order of the runs: hyperparameters, seed, then the metrics.

    Raises:
      ValueError: the argument is not a result.
    """
    names = list(hyperparameters(result))
    result = with_all_dims(result)
    metrics = result[[name for name in METRICS if name in result]]
    if "run" in result.dims:
        frame = metrics.to_dataframe().reset_index(drop=True)
    else:
        frame = metrics.isel(_places(result, hyperparameters(result))).to_dataframe(dim_order=names).reset_index()
    for name in STEPS:
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    return frame[[name for name in names if name != "seed"] + ["seed", *metrics]]


def by_run(result: xr.Dataset, runs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a result's variables as arrays `[R, ...]` in the order of the runs that were swept."""
    if "run" not in result.dims:
        places = _places(result, {name: values.tolist() for name, values in runs.items()})
        result = result.isel({name: xr.DataArray(place, dims="run") for name, place in places.items()})
    return {str(name): array.transpose("run", ...).values for name, array in result.data_vars.items()}


def _check_curves(given: SimpleNamespace) -> None:
    columns = [f"recorded_{split}_{metric}" for split in as_list(given.splits) for metric in as_list(given.metrics)]
    check_result(given.result, [*columns, "diverged_step"])


def as_list(given: str | Sequence[str]) -> list[str]:
    """Returns a list of names, of which a single one may have been given by itself."""
    return [given] if isinstance(given, str) else list(given)


@checked_by(_check_curves, result=IsResult(), splits=SEVERAL_SPLITS, metrics=SEVERAL_METRICS)
def curve_table(
    result: xr.Dataset, splits: str | Sequence[str] = ("test",), metrics: str | Sequence[str] = ("accuracy",)
) -> pd.DataFrame:
    """Returns one row per setting and recorded step, settings in the order of their runs.

    Once a run of a setting has diverged, or if a value is not finite, the statistics of that setting are nan.

    Args:
      result: with `recorded_{split}_{metric}` for each split and metric.
      splits: of `"train"`, `"validation"` and `"test"`.
      metrics: of `"accuracy"` and `"loss"`.

    Returns:
      Columns: the hyperparameters with several values, `step`, `num_seeds`; for each `{split}_{metric}`, over seeds,
      mean (`*_mean`), standard deviation (`*_std`), least and largest value (`*_min`, `*_max`), and half the width of
      the mean's 95 % t interval (`*_half_width`), which is nan for one seed, as is the deviation; and `num_diverged`,
      the number of runs that have diverged by this step.

    Raises:
      ValueError: the result has no such curve.
    """
    columns = [f"{split}_{metric}" for split in as_list(splits) for metric in as_list(metrics)]
    rows = table(result)
    steps = result["step"].values
    curves = {column: _curves(result, f"recorded_{column}") for column in columns}
    # The batch loss of step s is that of the parameters after s - 1 steps.
    first = rows["diverged_step"].astype(float).to_numpy() - 1
    has_diverged = steps >= np.where(np.isnan(first), math.inf, first)[:, None]
    names = varied(result)
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
            part[f"{column}_half_width"] = half_width(deviation, num_seeds)
        part["num_diverged"] = has_diverged[places].sum(axis=0)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _curves(result: xr.Dataset, name: str) -> np.ndarray:
    """Returns recorded curves, `[R, E]` float64, in the order of the rows of `table`."""
    result = with_all_dims(result)
    curves = result[name].astype(np.float64)
    if "run" in curves.dims:
        return curves.transpose("run", "step").values
    typed = hyperparameters(result)
    return curves.isel(_places(result, typed)).transpose(*typed, "step").values.reshape(-1, curves.sizes["step"])


def _by_setting(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields each setting and the positions of its runs among the rows."""
    places: dict[tuple, list[int]] = {}
    for place, values in enumerate(zip(*(rows[name] for name in names), strict=True) if names else [()] * len(rows)):
        places.setdefault(values, []).append(place)
    for values, positions in places.items():
        yield dict(zip(names, values, strict=True)), np.array(positions)


@checked_by(result=IsResult(SETTINGS))
def settings(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per setting, best first.

    Columns: the hyperparameters, `num_seeds`, `num_diverged`, and over seeds the mean of `validation_accuracy`,
    `validation_loss` and `test_accuracy`, its standard deviation (`*_std`) and the half width of its 95 % t interval
    (`*_half_width`), both nan for one seed; `pruned_step` if there was pruning.
    Settings with a run that diverged come last, since their mean describes no run. Before them come those that were
    pruned, the latest first. Runs that have not ended are left out.

    Raises:
      ValueError: the argument is not a result, or none of its runs has ended.
    """
    names = [name for name in hyperparameters(result) if name != "seed"]
    rows = table(result)
    if "finished" in result:
        rows = rows[rows["validation_loss"].notna() | rows["diverged_step"].notna()]
        if not len(rows):
            raise ValueError("result holds no run that has ended")
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
        by_setting[f"{column}_half_width"] = half_width(by_setting[f"{column}_std"], counts)
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


CHOSEN = IsResult(SETTINGS, ("num_validation", "num_test"))


@checked_by(result=CHOSEN)
def best(result: xr.Dataset) -> Best | None:
    """Returns the setting of the highest mean validation accuracy, or None if every setting has runs that diverged.

    Ties go to the lower validation loss. Settings with a run that diverged are not considered.

    Raises:
      ValueError: as `settings`.
    """
    ranked = settings(result)
    if ranked["num_diverged"].iloc[0] > 0:
        return None
    # Column by column: a row as a whole would turn batch sizes into floats.
    values = hyperparameters(result)
    setting = {name: ranked[name].iloc[:1].tolist()[0] for name in values if name != "seed"}
    rows = table(result)
    chosen = rows[np.logical_and.reduce([rows[name] == value for name, value in setting.items()])]
    edges = [
        name
        for name, value in setting.items()
        if result[name].dtype.kind in "iuf"
        and len(values[name]) > 1
        and value in (min(values[name]), max(values[name]))
    ]
    return Best(
        setting,
        interval(chosen["validation_accuracy"], result.attrs["num_validation"]),
        interval(chosen["test_accuracy"], result.attrs["num_test"]),
        edges,
    )


def check_name(given: SimpleNamespace) -> None:
    """Raises ValueError if `name` is not a hyperparameter of `result` other than the seed."""
    Choice(tuple(name for name in hyperparameters(given.result) if name != "seed")).check("name", given.name)


@checked_by(check_name, result=CHOSEN, name=STRING)
def best_of_each(result: xr.Dataset, name: str) -> dict[Any, Best | None]:
    """Returns, for each value of one hyperparameter, the best setting among those that have it; as `best` chooses.

    The edges are those of the values that occur together with it, and `name` itself is never among them.

    Raises:
      ValueError: as `settings`, or there is no such hyperparameter.
    """
    result = with_all_dims(result)
    dim = "run" if "run" in result.dims else name
    return {value: best(result.isel({dim: (result[name] == value).values})) for value in hyperparameters(result)[name]}

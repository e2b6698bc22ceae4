"""Labelled results: from arrays of runs to `xarray`, and statistics of them.

A setting is one combination of hyperparameters; its runs differ in the seed alone. Every choice is made on the
validation split. Accuracies are fractions; other metrics are in their own unit, a cross-entropy in nats per example.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis.arguments import (
    BY,
    LARGEST,
    SETTINGS,
    IsResult,
    axis_values,
    metric_names,
    variables_of,
)
from jaxmnist.analysis.intervals import Interval, half_width
from jaxmnist.analysis.metrics import check_by, interval_of, judged, shown_on_test
from jaxmnist.analysis.words import value_words
from jaxmnist.checks import STRING, Choice, checked_by
from jaxmnist.host.display import shown_by

FINALS = ("validation_*", "test_*", "test_loss", "diverged_step", "pruned_step", "bracket")
STEPS = ("diverged_step", "pruned_step")


def _rows(best: "Best") -> dict[str, str]:
    return {
        "setting": ", ".join(f"{name} {value_words(value)}" for name, value in best.setting.items()),
        "validation": f"{best.validation.text()} ({best.validation.words})",
        "test": f"{best.test.text()} ({best.test.words})",
        "on an edge": ", ".join(best.edges) or "none",
    }


@shown_by(_rows)
class Best(NamedTuple):
    """The setting chosen on validation.

    Attributes:
      setting: hyperparameter -> value.
      validation: mean over seeds of the metric that it was chosen by, on the validation split.
      test: the same on the test split, of this setting alone.
      edges: the numeric hyperparameters whose best value is the smallest or the largest of its axis; names and booleans
        have no edge.
    """

    setting: dict[str, Any]
    validation: Interval
    test: Interval
    edges: list[str]


def label(
    runs: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    steps: Sequence[int],
    attrs: dict,
    places: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """Returns the results of runs as a data set with named dims.

    Args:
      runs: name to `[R]` hyperparameter values.
      values: name to `[R]` results, or `[R, E]` for names that begin with `recorded_`.
      steps: the E recorded training steps.
      attrs: what the result says about itself.
      places: name to `[R]` int, where runs belong: `row`, their places in the sweep of which they are a part, or
        `round`, that of the search in which they were trained.

    Returns:
      One dim per hyperparameter, sorted, if the runs are every combination of their values once and come without
      `places`; else one dim `run` with the hyperparameters and the places as coordinates.
    """
    axes = {name: list(dict.fromkeys(np.asarray(column).tolist())) for name, column in runs.items()}
    sorted_axes = {name: np.array(sorted(axis)) for name, axis in axes.items()}
    shape = tuple(len(axis) for axis in axes.values())
    num_runs = len(next(iter(runs.values())))
    is_grid, order = places is None and num_runs == math.prod(shape), np.arange(num_runs)
    if is_grid:
        spots = tuple(np.searchsorted(sorted_axes[name], column) for name, column in runs.items())
        flat = np.ravel_multi_index(spots, shape)
        is_grid, order = len(np.unique(flat)) == num_runs, np.argsort(flat)
    dims: tuple[str, ...] = tuple(axes) if is_grid else ("run",)
    coords: dict = (
        dict(sorted_axes) if is_grid else {name: ("run", np.asarray(column)) for name, column in runs.items()}
    )
    for name, column in (places or {}).items():
        coords[name] = ("run", column)
    variables = {}
    for name, array in values.items():
        curve = ("step",) if name.startswith("recorded_") else ()
        if is_grid:
            array = array[order].reshape(*shape, *array.shape[1:])
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
    # In pandas, strings are objects.
    return {name: np.array(rows[name].tolist()) for name in hyperparameters(result)}


def as_list(given: str | Sequence[str]) -> list[str]:
    """Returns a list of names, of which a single one may have been given by itself."""
    return [given] if isinstance(given, str) else list(given)


def with_all_dims(result: xr.Dataset) -> xr.Dataset:
    """Returns the result with a dim for each hyperparameter of which one value was selected, as in `.sel(seed=0)`."""
    return result.expand_dims([name for name in hyperparameters(result) if result[name].ndim == 0])


def places(result: xr.Dataset, values: Mapping[str, list]) -> dict[str, list[int]]:
    """Returns the positions of values along the dims of a result. (`sel` would take a list of booleans for a mask.)"""
    found = {name: {value: i for i, value in enumerate(result[name].values.tolist())} for name in values}
    return {name: [found[name][value] for value in column] for name, column in values.items()}


@checked_by(result=IsResult(present=FINALS, one_seed=False))
def table(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per run in the order of the runs: hyperparameters, seed, then the metrics of both splits.

    Raises:
      ValueError: the argument is not a result.
    """
    names = list(hyperparameters(result))
    result = with_all_dims(result)
    metrics = result[[name for name in dict.fromkeys(variables_of(result, FINALS)) if name in result]]
    if "run" in result.dims:
        frame = metrics.to_dataframe().reset_index(drop=True)
    else:
        frame = metrics.isel(places(result, hyperparameters(result))).to_dataframe(dim_order=names).reset_index()
    for name in STEPS:
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    return frame[[name for name in names if name != "seed"] + ["seed", *metrics]]


def by_run(result: xr.Dataset, runs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a result's variables as arrays `[R, ...]` in the order of the runs that were swept."""
    if "run" not in result.dims:
        found = places(result, {name: values.tolist() for name, values in runs.items()})
        result = result.isel({name: xr.DataArray(place, dims="run") for name, place in found.items()})
    return {str(name): array.transpose("run", ...).values for name, array in result.data_vars.items()}


@checked_by(check_by, result=IsResult(SETTINGS), by=BY, largest=LARGEST)
def settings(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> pd.DataFrame:
    """Returns one row per setting, best first.

    Columns: the hyperparameters, `num_seeds`, `num_diverged`, and over seeds the mean of `validation_accuracy`,
    `validation_loss` and `test_accuracy`, its standard deviation (`*_std`) and the half width of its 95 % t interval
    (`*_half_width`), both nan for one seed; `pruned_step` if there was pruning. A result with other metrics has
    `validation_*` of each, and `test_*` of each but the loss, unless it is the only one or settings are compared by it.
    Settings with a run that diverged come last, since their mean describes no run. Before them come those that were
    pruned, the latest first. Ties go to the lower validation loss. Runs that have not ended are left out.

    Args:
      result: of a sweep.
      by: the metric whose mean on the validation split is compared; default the accuracy if there is one, and otherwise
        the loss.
      largest: whether its largest value is the best; default True for the accuracy and False for the loss. Of other
        metrics, it has to be said.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    metric = judged(result, by, largest)
    names = [name for name in hyperparameters(result) if name != "seed"]
    rows = ended(result)
    rows["diverged"] = rows["diverged_step"].notna()
    columns = [f"validation_{name}" for name in metric_names(result)]
    columns += [f"test_{name}" for name in shown_on_test(result, metric.name)]
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
    by_setting["_loss"] = by_setting["validation_loss"]
    order = by_setting.sort_values(
        ["_diverged", "_steps", f"validation_{metric.name}", "_loss"],
        ascending=[True, False, not metric.largest, True],
        kind="stable",
    )
    return order.drop(columns=["_diverged", "_steps", "_loss"]).reset_index(drop=True)


def ended(result: xr.Dataset) -> pd.DataFrame:
    """Returns the rows of `table` that are of runs that have ended.

    Raises:
      ValueError: no run has ended.
    """
    rows = table(result)
    if "finished" in result:
        rows = rows[rows["validation_loss"].notna() | rows["diverged_step"].notna()]
        if not len(rows):
            raise ValueError("result holds no run that has ended")
    return rows


CHOSEN = IsResult(SETTINGS, ("num_validation", "num_test"))


@checked_by(check_by, result=CHOSEN, by=BY, largest=LARGEST)
def best(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> Best | None:
    """Returns the setting of the best mean on the validation split, or None if every setting has runs that diverged.

    That is the highest accuracy, or, if the result has none, the lowest loss. Ties go to the lower validation loss.
    Settings with a run that diverged are not considered.

    Args:
      result: of a sweep.
      by: the metric to choose by, as for `settings`.
      largest: whether its largest value is the best, as for `settings`.

    Raises:
      ValueError: as `settings`.
    """
    metric = judged(result, by, largest)
    ranked = settings(result, *metric)
    if ranked["num_diverged"].iloc[0] > 0:
        return None
    # Column by column: a row as a whole would turn batch sizes into floats.
    values = hyperparameters(result)
    setting = {name: ranked[name].iloc[:1].tolist()[0] for name in values if name != "seed"}
    chosen = rows_of(result, setting)
    edges = [
        name
        for name, value in setting.items()
        if result[name].dtype.kind in "iuf"
        and len(values[name]) > 1
        and value in (min(values[name]), max(values[name]))
    ]
    return Best(
        setting,
        interval_of(metric.name, chosen[f"validation_{metric.name}"], result.attrs["num_validation"]),
        interval_of(metric.name, chosen[f"test_{metric.name}"], result.attrs["num_test"]),
        edges,
    )


def rows_of(result: xr.Dataset, setting: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the rows of `table` that are of a setting, one per seed."""
    rows = table(result)
    return rows[np.logical_and.reduce([rows[name] == value for name, value in setting.items()])]


def check_name(given: SimpleNamespace) -> None:
    """Raises ValueError if `name` is not a hyperparameter of `result` other than the seed."""
    Choice(tuple(name for name in hyperparameters(given.result) if name != "seed")).check("name", given.name)


def check_each(given: SimpleNamespace) -> None:
    """Raises ValueError unless `result` can be judged `by` a metric, for each value of the hyperparameter `name`."""
    check_name(given)
    check_by(given)


@checked_by(check_each, result=CHOSEN, name=STRING, by=BY, largest=LARGEST)
def best_of_each(
    result: xr.Dataset, name: str, by: str | None = None, largest: bool | None = None
) -> dict[Any, Best | None]:
    """Returns, for each value of one hyperparameter, the best setting among those that have it; as `best` chooses.

    The edges are those of the values that occur together with it, and `name` itself is never among them.

    Args:
      result: of a sweep.
      name: of the hyperparameter.
      by: the metric to choose by, as for `settings`.
      largest: whether its largest value is the best, as for `settings`.

    Raises:
      ValueError: as `settings`, or there is no such hyperparameter.
    """
    result = with_all_dims(result)
    dim = "run" if "run" in result.dims else name
    metric = judged(result, by, largest)
    parts = {value: result.isel({dim: (result[name] == value).values}) for value in hyperparameters(result)[name]}
    return {value: best(part, *metric) for value, part in parts.items()}

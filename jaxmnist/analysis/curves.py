"""Recorded curves: statistics of them over seeds, and what they say at equal budgets.

A setting is one combination of hyperparameters; its runs differ in the seed alone.
Shapes: R runs, S settings, E recorded steps.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import (
    ANY_SPLIT,
    METRIC,
    SEVERAL_METRICS,
    SEVERAL_SPLITS,
    IsResult,
    check_result,
    varied,
)
from jaxmnist.analysis.intervals import half_width
from jaxmnist.analysis.metrics import named, several_named
from jaxmnist.checks import Choice, Number, checked_by


def _check_curves(given: SimpleNamespace) -> None:
    metrics = several_named(given.result, given.metrics)
    columns = [f"recorded_{split}_{metric}" for split in results.as_list(given.splits) for metric in metrics]
    check_result(given.result, [*columns, "diverged_step"])


@checked_by(_check_curves, result=IsResult(), splits=SEVERAL_SPLITS, metrics=SEVERAL_METRICS)
def curve_table(
    result: xr.Dataset, splits: str | Sequence[str] = ("test",), metrics: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Returns one row per setting and recorded step, settings in the order of their runs.

    Once a run of a setting has diverged, or if a value is not finite, the statistics of that setting are nan.

    Args:
      result: with `recorded_{split}_{metric}` for each split and metric.
      splits: of `"train"`, `"validation"` and `"test"`.
      metrics: those of the result to tabulate; default the accuracy if it has one, and otherwise the loss.

    Returns:
      Columns: the hyperparameters with several values, `step`, `num_seeds`; for each `{split}_{metric}`, over seeds,
      mean (`*_mean`), standard deviation (`*_std`), least and largest value (`*_min`, `*_max`), and half the width of
      the mean's 95 % t interval (`*_half_width`), which is nan for one seed, as is the deviation; and `num_diverged`,
      the number of runs that have diverged by this step.

    Raises:
      ValueError: the result has no such curve.
    """
    metrics = several_named(result, metrics)
    columns = [f"{split}_{metric}" for split in results.as_list(splits) for metric in metrics]
    rows = results.table(result)
    names, steps = varied(result), result["step"].values
    numbers = _numbers(rows, names)
    settings = rows[names].drop_duplicates() if names else rows.iloc[:1, :0]
    table = settings.loc[settings.index.repeat(len(steps))].reset_index(drop=True)
    table["step"] = np.tile(steps, len(settings))
    table["num_seeds"] = np.repeat(np.bincount(numbers), len(steps))
    gone = has_diverged(result)
    for column in columns:
        found = over_seeds(curves_until_divergence(result, f"recorded_{column}", gone), numbers)
        for name, values in found._asdict().items():
            table[f"{column}_{name}"] = values.ravel()
    diverged = np.zeros((len(settings), len(steps)), int)
    np.add.at(diverged, numbers, gone)
    return table.assign(num_diverged=diverged.ravel())


def _numbers(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Returns the number of each run's setting, `[R]` int, counted in the order of the runs."""
    return rows.groupby(names, sort=False).ngroup().to_numpy() if names else np.zeros(len(rows), int)


class OverSeeds(NamedTuple):
    """Statistics of curves over the seeds of each setting, `[S, E]` float64 each; nan where one of its curves is.

    Attributes:
      mean: over the seeds.
      std: the standard deviation, nan for one seed.
      min: the least value.
      max: the largest value.
      half_width: half the width of the mean's 95 % t interval, nan for one seed.
    """

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    half_width: np.ndarray


def over_seeds(curves: np.ndarray, numbers: np.ndarray) -> OverSeeds:
    """Returns the statistics of curves `[R, E]`, given the numbers `[R]` of the settings of their runs, 0 to S - 1."""
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers)[:, None]
    first = np.concatenate([[0], counts[:-1, 0].cumsum()])
    curves = curves[order]
    mean = np.add.reduceat(curves, first) / counts
    squares = np.add.reduceat((curves - mean[numbers[order]]) ** 2, first)
    deviation = np.sqrt(squares / np.where(counts > 1, counts - 1, np.nan))
    least, most = np.minimum.reduceat(curves, first), np.maximum.reduceat(curves, first)
    return OverSeeds(mean, deviation, least, most, half_width(deviation, counts))


def has_diverged(result: xr.Dataset) -> np.ndarray:
    """Returns which runs have diverged by each recorded step, `[R, E]` bool, in the order of the rows of `table`."""
    # The batch loss of step s is that of the parameters after s - 1 steps.
    first = results.table(result)["diverged_step"].astype(float).to_numpy() - 1
    return result["step"].values >= np.where(np.isnan(first), math.inf, first)[:, None]


def curves_until_divergence(result: xr.Dataset, name: str, gone: np.ndarray) -> np.ndarray:
    """Returns what `curves_by_run` does, nan where a value is not finite, and once a run is `gone`, as `has_diverged`
    says."""
    values = curves_by_run(result, name)
    return np.where(gone | ~np.isfinite(values), np.nan, values)


def seed_curves(result: xr.Dataset, columns: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Returns the curves `[N, E]` of the N seeds of each setting, in the order of `curve_table`, by `{split}_{metric}`.

    They are nan where a run has diverged or its value is not finite.
    """
    gone, numbers = has_diverged(result), _numbers(results.table(result), varied(result))
    curves = {name: curves_until_divergence(result, f"recorded_{name}", gone) for name in columns}
    places = np.split(np.argsort(numbers, kind="stable"), np.bincount(numbers).cumsum()[:-1])
    return [{name: curves[name][found] for name in columns} for found in places]


def curves_by_run(result: xr.Dataset, name: str) -> np.ndarray:
    """Returns recorded curves, `[R, E]` float64, in the order of the rows of `table`."""
    result = results.with_all_dims(result)
    curves = result[name].astype(np.float64)
    if "run" in curves.dims:
        return curves.transpose("run", "step").values
    typed = results.hyperparameters(result)
    return curves.isel(results.places(result, typed)).transpose(*typed, "step").values.reshape(-1, curves.sizes["step"])


def _check_budget(given: SimpleNamespace) -> None:
    needed = ("num_train",) if given.budget == "epochs" else ()
    name = named(given.result, given.metric)
    check_result(given.result, (f"recorded_{given.split}_{name}", "diverged_step"), needed)


@checked_by(
    _check_budget, result=IsResult(numbers=("batch_size",)), budget=Choice(("steps", "examples", "epochs")),
    amount=Number("a number above 0", lambda value: value > 0), split=ANY_SPLIT, metric=METRIC,
)  # fmt: skip
def at_budget(
    result: xr.Dataset, budget: str, amount: float, split: str = "validation", metric: str | None = None
) -> xr.DataArray:
    """Returns the accuracy, or another metric, of every run once it has used up a budget.

    It is the one at the last recorded step within the budget: nothing is interpolated. It is nan for a run whose
    curve ends before the budget is used up, and for one that diverged.

    Args:
      result: with `recorded_{split}_{metric}` and a dim `batch_size`.
      budget: `"steps"`, `"examples"`, or `"epochs"` (passes through the training images).
      amount: how much of it, above 0.
      split: the one whose curve is read.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.

    Raises:
      ValueError: an argument is not as described above, or there is no such curve.
    """
    curves = results.with_all_dims(result)[f"recorded_{split}_{named(result, metric)}"]
    last = last_steps(result, result["batch_size"], budget, amount)
    picked = curves.where(result["step"] == last).sum("step", skipna=True, min_count=1)
    return picked.where(result["diverged_step"].isnull())


def last_steps(result: xr.Dataset, batch_size: xr.DataArray, budget: str, amount: float | xr.DataArray) -> xr.DataArray:
    """Returns the last recorded step within a budget for batch sizes; nan where curves end before it is used up.

    There may be several amounts along a dim of their own.
    """
    examples = amount * (result.attrs["num_train"] if budget == "epochs" else 1)
    allowed = amount + xr.zeros_like(batch_size, float) if budget == "steps" else examples / batch_size
    # With some tolerance, since rounding may turn 100 / 5 * 5 into less than 100.
    within = result["step"] <= allowed * (1 + 1e-9)
    reached = allowed <= result["step"].max("step") * (1 + 1e-9)
    return result["step"].where(within).max("step").where(reached)


def budgets(result: xr.Dataset) -> dict[str, float]:
    """Returns, for each kind of budget, an amount at which the runs of a sweep of equal steps can be compared.

    These are all of the steps, the examples that the smallest batch size has seen, and the largest round number of
    epochs that at least half of the batch sizes have reached.
    """
    steps = int(result["step"].max())
    batch_sizes = np.unique(result["batch_size"].values)
    epochs = steps * float(np.median(batch_sizes)) / result.attrs["num_train"]
    return {"steps": steps, "examples": steps * int(batch_sizes.min()), "epochs": _round_down(epochs)}


def _round_down(value: float) -> float:
    """Returns the largest of 1, 2, 5 times a power of ten that is at most `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{max(digit for digit in (1, 2, 5) if digit * power <= value * (1 + 1e-9)) * power:.1g}")

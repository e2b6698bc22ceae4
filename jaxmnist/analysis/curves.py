"""Recorded curves: statistics of them over seeds, and what they say at equal budgets.

A setting is one combination of hyperparameters; its runs differ in the seed alone.
Shapes: R runs, E recorded steps.
"""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

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
    steps = result["step"].values
    curves = {column: curves_by_run(result, f"recorded_{column}") for column in columns}
    # The batch loss of step s is that of the parameters after s - 1 steps.
    first = rows["diverged_step"].astype(float).to_numpy() - 1
    has_diverged = steps >= np.where(np.isnan(first), math.inf, first)[:, None]
    names = varied(result)
    parts = []
    for setting, places in _by_setting(rows, names):
        num_seeds = len(places)
        part = pd.DataFrame({**setting, "step": steps, "num_seeds": num_seeds})
        for column in columns:
            values = curves[column][places]
            values = np.where(has_diverged[places] | ~np.isfinite(values), np.nan, values)
            deviation = values.std(axis=0, ddof=1) if num_seeds > 1 else np.full(len(steps), np.nan)
            part[f"{column}_mean"] = values.mean(axis=0)
            part[f"{column}_std"] = deviation
            part[f"{column}_min"], part[f"{column}_max"] = values.min(axis=0), values.max(axis=0)
            part[f"{column}_half_width"] = half_width(deviation, num_seeds)
        part["num_diverged"] = has_diverged[places].sum(axis=0)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def seed_curves(result: xr.Dataset, columns: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Returns the curves `[N, E]` of the N seeds of each setting, in the order of `curve_table`, by `{split}_{metric}`.

    They are nan where a run has diverged.
    """
    rows, steps = results.table(result), result["step"].values
    first = rows["diverged_step"].astype(float).fillna(math.inf).to_numpy() - 1
    gone = steps >= first[:, None]
    curves = {name: np.where(gone, np.nan, curves_by_run(result, f"recorded_{name}")) for name in columns}
    places = [found for _, found in _by_setting(rows, varied(result))]
    return [{name: curves[name][found] for name in columns} for found in places]


def curves_by_run(result: xr.Dataset, name: str) -> np.ndarray:
    """Returns recorded curves, `[R, E]` float64, in the order of the rows of `table`."""
    result = results.with_all_dims(result)
    curves = result[name].astype(np.float64)
    if "run" in curves.dims:
        return curves.transpose("run", "step").values
    typed = results.hyperparameters(result)
    return curves.isel(results.places(result, typed)).transpose(*typed, "step").values.reshape(-1, curves.sizes["step"])


def _by_setting(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields each setting and the positions of its runs among the rows."""
    places: dict[tuple, list[int]] = {}
    for place, values in enumerate(zip(*(rows[name] for name in names), strict=True) if names else [()] * len(rows)):
        places.setdefault(values, []).append(place)
    for values, positions in places.items():
        yield dict(zip(names, values, strict=True)), np.array(positions)


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
    examples = amount * (result.attrs["num_train"] if budget == "epochs" else 1)
    batch_size = result["batch_size"]
    allowed = xr.full_like(batch_size, amount, float) if budget == "steps" else examples / batch_size
    # With some tolerance, since rounding may turn 100 / 5 * 5 into less than 100.
    within = result["step"] <= allowed * (1 + 1e-9)
    last = result["step"].where(within).max("step")
    reached = allowed <= result["step"].max("step") * (1 + 1e-9)
    picked = curves.where(result["step"] == last).sum("step", skipna=True, min_count=1)
    return picked.where(reached & result["diverged_step"].isnull())


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

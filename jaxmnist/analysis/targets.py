"""Steps to a target, and the critical batch sizes that follow from them; all on the validation split.

Shapes: S settings, E recorded steps.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import LARGEST, METRIC, TARGET, IsResult, IsTable, check_result
from jaxmnist.analysis.intervals import half_width
from jaxmnist.analysis.metrics import is_share, judged
from jaxmnist.checks import Numbers, checked_by

TARGET_STEP = 0.005
MIN_BATCH_SIZES = 3  # a curve with two parameters fits any two points


class Scaling(NamedTuple):
    """How the steps to a target fall with the batch size: `steps = least_steps + least_examples / batch_size`.

    That is equation 2.11 of McCandlish et al. 2018 (arXiv:1812.06162), solved for the steps.

    Attributes:
      least_steps: at batch sizes far above the critical one.
      least_examples: at batch sizes far below it.
      critical_batch_size: their ratio (equation 2.12), in examples.
    """

    least_steps: float
    least_examples: float
    critical_batch_size: float


def _check_target(given: SimpleNamespace) -> None:
    metric = judged(given.result, given.metric, given.largest, "metric")
    check_result(given.result, (f"recorded_validation_{metric.name}", "diverged_step"))


@checked_by(_check_target, result=IsResult(), target=TARGET, metric=METRIC, largest=LARGEST)
def steps_to_target(
    result: xr.Dataset, target: float, metric: str | None = None, largest: bool | None = None
) -> xr.DataArray:
    """Returns the first recorded step at which a run's validation accuracy or loss reaches a target; nan if none does.

    An accuracy reaches a target from below, a loss from above. A run that diverged never reaches a target, even if its
    curve did before.

    Args:
      result: with recorded validation curves.
      target: an accuracy as a fraction, a loss in nats, or the value of another metric.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.
      largest: whether the metric's largest value is the best; default True for the accuracy and False for the loss. Of
        other metrics, it has to be said.

    Raises:
      ValueError: an argument is not as described above, or there is no such curve.
    """
    name, is_largest = judged(result, metric, largest)
    curves = results.with_all_dims(result)[f"recorded_validation_{name}"]
    there = curves >= target if is_largest else curves <= target
    return result["step"].where(there & result["diverged_step"].isnull()).min("step")


@checked_by(_check_target, result=IsResult(), metric=METRIC, largest=LARGEST)
def default_target(result: xr.Dataset, metric: str | None = None, largest: bool | None = None) -> float:
    """Returns the highest accuracy, or lowest loss, that every batch size reaches with all seeds at some learning rate.

    An accuracy is rounded down to half a percentage point, and another metric to two digits, to the side that is
    easier to reach.

    Args:
      result: with recorded validation curves.
      metric: as for `steps_to_target`.
      largest: as for `steps_to_target`.

    Raises:
      ValueError: there is no such curve, the result is not a grid over batch sizes, or at some batch size, runs of
        every setting diverged.
    """
    name, is_largest = judged(result, metric, largest)
    curves = results.with_all_dims(result)[f"recorded_validation_{name}"].where(result["diverged_step"].isnull())
    # With its sign changed, the smallest value is the largest.
    sign = 1 if is_largest else -1
    worst_seed = (sign * curves).max("step")
    worst_seed = worst_seed.min("seed", skipna=False) if "seed" in worst_seed.dims else worst_seed
    others = [name for name in worst_seed.dims if name != "batch_size"]
    if "batch_size" not in worst_seed.dims:
        raise ValueError("result is not a grid over batch_size, which is needed for a target of every batch size")
    highest = float(worst_seed.max(others).min())
    if not math.isfinite(highest):
        raise ValueError("no target is reached at every batch size: at one of them, runs of every setting diverged")
    if is_share(name):
        return math.floor(highest / TARGET_STEP + 1e-6) * TARGET_STEP
    return sign * _rounded_down(highest)


def _rounded_down(value: float) -> float:
    """Returns a number with two digits that is at most `value`, also in float32."""
    if value == 0:
        return value
    exponent = math.floor(math.log10(abs(value))) - 1
    digits = math.floor(value / 10.0**exponent)
    rounded = float(f"{digits}e{exponent}")
    return rounded if np.float32(rounded) <= np.float32(value) else float(f"{digits - 1}e{exponent}")


@checked_by(_check_target, result=IsResult(), target=TARGET, metric=METRIC, largest=LARGEST)
def target_table(
    result: xr.Dataset, target: float, metric: str | None = None, largest: bool | None = None
) -> pd.DataFrame:
    """Returns one row per batch size and learning rate: how many steps it takes to reach a target.

    Columns: `batch_size`, `learning_rate`, `num_seeds`, `num_reached`, and the mean over seeds of `steps` with the half
    width of its 95 % t interval, both nan unless every seed reached it without diverging; `examples` is steps times
    batch size.

    Args:
      result: of a grid, with recorded validation curves.
      target: as for `steps_to_target`.
      metric: as for `steps_to_target`.
      largest: as for `steps_to_target`.

    Raises:
      ValueError: as `steps_to_target`, or the result is not a grid over learning rates, batch sizes and seeds alone.
    """
    steps = steps_to_target(result, target, metric, largest)
    others = [name for name in steps.dims if name not in ("batch_size", "learning_rate", "seed")]
    if len(steps.dims) != len(others) + 3 or any(steps.sizes[name] > 1 for name in others):
        raise ValueError(f"result has the dims {steps.dims}; a grid over learning_rate, batch_size and seed is needed")
    steps = steps.squeeze(others, drop=True).transpose("batch_size", "learning_rate", "seed")
    rows = []
    for size in steps["batch_size"].values:
        for rate in steps["learning_rate"].values:
            values = steps.sel(batch_size=size, learning_rate=rate).values
            num_reached = int(np.isfinite(values).sum())
            mean = float(values.mean())
            width = math.nan
            if num_reached == len(values) > 1:
                width = float(half_width(values.std(ddof=1), len(values)))
            rows.append((size, rate, len(values), num_reached, mean, width, mean * size))
    columns = ["batch_size", "learning_rate", "num_seeds", "num_reached", "steps", "half_width", "examples"]
    return pd.DataFrame(rows, columns=columns)


@checked_by(table=IsTable("target_table", ("batch_size", "steps")))
def best_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each batch size that reaches the target, the row of a `target_table` with the fewest steps.

    Raises:
      ValueError: the argument is not such a table.
    """
    reached = table[table["steps"].notna()]
    return reached.loc[reached.groupby("batch_size")["steps"].idxmin()].reset_index(drop=True)


POSITIVE = Numbers("a sequence of finite numbers above 0", lambda x: np.isfinite(x) & (x > 0))


def _check_points(given: SimpleNamespace) -> None:
    sizes, taken = len(given.batch_sizes), len(given.steps)
    if taken != sizes:
        raise ValueError(f"steps has {taken} numbers; one for each of the {sizes} batch_sizes is needed")
    if len(np.unique(given.batch_sizes)) < MIN_BATCH_SIZES:
        listed = np.asarray(given.batch_sizes).tolist()
        raise ValueError(f"batch_sizes {listed} are too few: 3 that reach the target are needed for a fit")


@checked_by(_check_points, batch_sizes=POSITIVE, steps=POSITIVE)
def fit_scaling(batch_sizes: Sequence[float], steps: Sequence[float]) -> Scaling:
    """Returns the law of steps against batch size, fitted by least squares of the relative errors; no term is negative.

    Args:
      batch_sizes: at least 3, distinct.
      steps: to the target at each of them, at its best learning rate.

    Raises:
      ValueError: fewer than 3 points, or points that are not finite and above 0.
    """
    from scipy.optimize import nnls

    sizes, taken = np.asarray(batch_sizes, np.float64), np.asarray(steps, np.float64)
    design = np.stack([1 / taken, 1 / (sizes * taken)], axis=1)
    (least_steps, least_examples), _ = nnls(design, np.ones(len(sizes)))
    is_flat = least_steps * sizes.max() <= 1e-9 * least_examples
    critical = math.inf if is_flat else least_examples / least_steps
    return Scaling(float(least_steps), float(least_examples), float(critical))


def table_scaling(rates: pd.DataFrame) -> Scaling | None:
    """Returns the law that `fit_scaling` finds in the rows of `best_rates`, or None if there are too few to fit.

    It needs 3 batch sizes that reach the target, none of them before the first step.
    """
    if len(rates) < MIN_BATCH_SIZES or (rates["steps"] <= 0).any():
        return None
    return fit_scaling(rates["batch_size"].tolist(), rates["steps"].tolist())

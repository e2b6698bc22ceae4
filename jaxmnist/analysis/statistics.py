"""Statistics of recorded curves and of seeds: budgets, steps to a target, ties, dead runs, critical batch sizes.

All of them use the validation split unless told otherwise. A setting is one combination of hyperparameters; its runs
differ in the seed alone.
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
from jaxmnist.analysis.arguments import ANY_SPLIT, METRIC, SETTINGS, TARGET, IsResult, IsTable, check_result
from jaxmnist.analysis.intervals import half_width
from jaxmnist.checks import Choice, Number, Numbers, Whole, checked_by

SIGNIFICANCE = 0.05
# A loss this close to log(classes), relatively, is that of a random guess.
DEAD_TOLERANCE = 0.01
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


def holm(p_values: np.ndarray) -> np.ndarray:
    """Returns p values corrected for their number (Holm 1979), `[S]`; nan stays nan and does not count."""
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(p_values.shape, np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


@checked_by(result=IsResult(SETTINGS))
def ties(result: xr.Dataset) -> pd.DataFrame:
    """Returns one row per setting, best first, as `results.settings`, and how each compares with the best.

    Further columns: `p_value` of a paired t test over the seeds that both have, Holm-corrected over the settings, and
    `is_tied`, whether it cannot be distinguished from the best (p above 0.05; the best itself is tied). A setting with
    a run that diverged or was pruned is never tied. With fewer than 2 seeds in common, p is nan and there is no tie.

    Raises:
      ValueError: as `results.settings`.
    """
    from scipy import stats

    ranked = results.settings(result)
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    rows = results.table(result).set_index(names)
    accuracy = rows.groupby([*names, "seed"])["validation_accuracy"].mean().unstack("seed")
    accuracy = accuracy.reindex(pd.MultiIndex.from_frame(ranked[names]) if len(names) > 1 else ranked[names[0]])
    values = accuracy.to_numpy(np.float64)
    usable = (ranked["num_diverged"] == 0).to_numpy()
    if "pruned_step" in ranked:
        usable = usable & ranked["pruned_step"].isna().to_numpy()
    p_values = np.full(len(ranked), np.nan)
    for row in np.flatnonzero(usable[1:]) + 1 if usable[0] else ():
        both = np.isfinite(values[0]) & np.isfinite(values[row])
        if both.sum() < 2:
            continue
        difference = values[0, both] - values[row, both]
        # If all differences are equal, the t statistic is 0 / 0 or x / 0.
        constant = np.ptp(difference) <= 1e-12
        p_values[row] = float(difference[0] == 0) if constant else stats.ttest_1samp(difference, 0.0).pvalue
    p_values = holm(p_values)
    is_tied = p_values > SIGNIFICANCE
    is_tied[0] = usable[0]
    return ranked.assign(p_value=p_values, is_tied=is_tied)


def _check_budget(given: SimpleNamespace) -> None:
    needed = ("num_train",) if given.budget == "epochs" else ()
    check_result(given.result, (f"recorded_{given.split}_accuracy", "diverged_step"), needed)


@checked_by(
    _check_budget, result=IsResult(numbers=("batch_size",)), budget=Choice(("steps", "examples", "epochs")),
    amount=Number("a number above 0", lambda value: value > 0), split=ANY_SPLIT,
)  # fmt: skip
def at_budget(result: xr.Dataset, budget: str, amount: float, split: str = "validation") -> xr.DataArray:
    """Returns the accuracy of every run once it has used up a budget.

    It is the accuracy at the last recorded step within the budget: nothing is interpolated. It is nan for a run whose
    curve ends before the budget is used up, and for one that diverged.

    Args:
      result: with `recorded_{split}_accuracy` and a dim `batch_size`.
      budget: `"steps"`, `"examples"`, or `"epochs"` (passes through the training images).
      amount: how much of it, above 0.
      split: the one whose curve is read.

    Raises:
      ValueError: an argument is not as described above, or there is no such curve.
    """
    curves = _curves(result, f"recorded_{split}_accuracy")
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


def _check_target(given: SimpleNamespace) -> None:
    check_result(given.result, (f"recorded_validation_{given.metric}", "diverged_step"))


@checked_by(_check_target, result=IsResult(), target=TARGET, metric=METRIC)
def steps_to_target(result: xr.Dataset, target: float, metric: str = "accuracy") -> xr.DataArray:
    """Returns the first recorded step at which a run's validation accuracy or loss reaches a target; nan if none does.

    A run that diverged never reaches a target, even if its curve did before.

    Args:
      result: with recorded validation curves.
      target: an accuracy as a fraction, or a loss in nats.
      metric: `"accuracy"` or `"loss"`.

    Raises:
      ValueError: an argument is not as described above, or there is no such curve.
    """
    curves = _curves(result, f"recorded_validation_{metric}")
    there = curves >= target if metric == "accuracy" else curves <= target
    return result["step"].where(there & result["diverged_step"].isnull()).min("step")


@checked_by(result=IsResult(("recorded_validation_accuracy", "diverged_step")))
def default_target(result: xr.Dataset) -> float:
    """Returns the highest accuracy that every batch size reaches with all seeds, at some learning rate.

    It is rounded down to half a percentage point.

    Raises:
      ValueError: there is no such curve, the result is not a grid over batch sizes, or at some batch size, runs of
        every setting diverged.
    """
    curves = _curves(result, "recorded_validation_accuracy").where(result["diverged_step"].isnull())
    worst_seed = curves.max("step")
    worst_seed = worst_seed.min("seed", skipna=False) if "seed" in worst_seed.dims else worst_seed
    others = [name for name in worst_seed.dims if name != "batch_size"]
    if "batch_size" not in worst_seed.dims:
        raise ValueError("result is not a grid over batch_size, which is needed for a target of every batch size")
    highest = float(worst_seed.max(others).min())
    if not math.isfinite(highest):
        raise ValueError("no target is reached at every batch size: at one of them, runs of every setting diverged")
    return math.floor(highest / TARGET_STEP + 1e-6) * TARGET_STEP


@checked_by(_check_target, result=IsResult(), target=TARGET, metric=METRIC)
def target_table(result: xr.Dataset, target: float, metric: str = "accuracy") -> pd.DataFrame:
    """Returns one row per batch size and learning rate: how many steps it takes to reach a target.

    Columns: `batch_size`, `learning_rate`, `num_seeds`, `num_reached`, and the mean over seeds of `steps` with the half
    width of its 95 % t interval, both nan unless every seed reached it without diverging; `examples` is steps times
    batch size.

    Raises:
      ValueError: as `steps_to_target`, or the result is not a grid over learning rates, batch sizes and seeds alone.
    """
    steps = steps_to_target(result, target, metric)
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


@checked_by(result=IsResult(("recorded_validation_loss", "diverged_step"), ("num_classes",)))
def is_dead(result: xr.Dataset) -> xr.DataArray:
    """Returns which runs are dead: their parameters have moved, but the network now gives every image the same answer.

    The validation loss of a dead run stays within 1 % of log(classes) over the last half of the training steps, and
    was outside that range at some earlier time. A run that learns slowly is not dead, nor is one whose loss never left
    that range.

    Args:
      result: with a recorded validation loss.

    Raises:
      ValueError: there is no such curve.
    """
    curves = _curves(result, "recorded_validation_loss")
    guess = math.log(result.attrs["num_classes"])
    near = abs(curves - guess) <= DEAD_TOLERANCE * guess
    late = result["step"] >= result["step"].max() / 2
    return (near | ~late).all("step") & (~near).any("step") & result["diverged_step"].isnull()


@checked_by(result=results.CHOSEN, num_train=Whole(1))
def refined(result: xr.Dataset, num_train: int) -> dict[str, list]:
    """Returns the axes of a grid around the best setting: as many values, between the neighbours of the best one.

    If the best value is at the end of an axis, the new axis extends beyond it. Axes stay linear or logarithmic.

    Args:
      result: of a grid.
      num_train: number of training images, the largest possible batch size.

    Raises:
      ValueError: no setting can be chosen, the result is not a grid, or some of its values are not numbers.
    """
    chosen = results.best(result)
    for name in results.hyperparameters(result):
        if result[name].dtype.kind not in "iuf":
            raise ValueError(
                f"result has values of {name} that are not numbers, so there is nothing between them to refine"
            )
    if chosen is None or "run" in result.dims:
        raise ValueError("refined() needs a grid with at least one setting of which no run diverged")
    axes = {}
    for name, value in chosen.setting.items():
        values = np.unique(result[name].values.astype(np.float64))
        if len(values) == 1:
            axes[name] = [value]
            continue
        logarithmic = values[0] > 0 and gap_ratio(np.log(values)) < gap_ratio(values)
        scale, back = (np.log, np.exp) if logarithmic else (np.asarray, np.asarray)
        points = scale(values)
        place = int(np.argmin(np.abs(values - value)))
        below = points[place] - points[place - 1] if place > 0 else points[place + 1] - points[place]
        above = points[place + 1] - points[place] if place + 1 < len(points) else points[place] - points[place - 1]
        finer = back(np.linspace(points[place] - below, points[place] + above, len(points)))
        if name == "batch_size":
            whole = np.unique(np.clip(np.round(finer), 1, num_train).astype(int))
            axes[name] = whole.tolist()
        else:
            finer = np.unique(np.maximum(finer, 0.0)) if values[0] >= 0 else finer
            axes[name] = [float(f"{number:.6g}") for number in finer]
    return axes


def gap_ratio(points: np.ndarray) -> float:
    """Returns the largest gap between neighbouring points over the smallest; 1 if they are evenly spaced."""
    gaps = np.diff(points)
    return float(gaps.max() / gaps.min())


def _curves(result: xr.Dataset, name: str) -> xr.DataArray:
    return results.with_all_dims(result)[name]

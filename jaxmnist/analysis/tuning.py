"""Tuning budgets: how good the best of so many settings is, on average over which of them are tried.

Shapes: N settings, K numbers of settings.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results, targets
from jaxmnist.analysis.arguments import (
    BY,
    CHOOSING_SPLIT,
    LARGEST,
    SETTINGS,
    IsResult,
    IsResults,
    by_name,
    check_result,
)
from jaxmnist.analysis.intervals import ENDS
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.analysis.selection import as_one_dim
from jaxmnist.checks import Number, Optional, checked_by

NUM_RESAMPLES = 1000
MAX_POINTS = 100
# Of the settings: the best of more of them is not in enough resamples for an interval, and a median less so.
LARGEST_SHARES = {"mean": 1 / 4, "median": 1 / 7}
TRIED = IsResults(IsResult(SETTINGS, ("dataset", "budget")))
TARGET = Optional(Number())


def check_tuning(given: SimpleNamespace) -> None:
    """Raises ValueError unless all results can be judged by one metric, and are of one data set and budget."""
    found = list(by_name(given.result).values())
    for result in found:
        check_by(SimpleNamespace(result=result, by=given.by, largest=given.largest))
        if "pruned_step" in result and result["pruned_step"].notnull().any():
            raise ValueError("result holds runs that were pruned; settings that were all trained to the end are needed")
        if given.target is not None:
            check_result(result, (f"recorded_validation_{judged(result, given.by, given.largest).name}",))
    if given.target is not None and given.split != "validation":
        raise ValueError(f"split is {given.split!r}, but steps to a target are counted on validation alone")
    for words, values in (
        ("data sets", {result.attrs["dataset"] for result in found}),
        ("budgets", {result.attrs["budget"] for result in found}),
        ("metrics", {judged(result, given.by, given.largest).name for result in found}),
    ):
        if len(values) > 1:
            raise ValueError(f"result has the {words} {', '.join(sorted(values))}; the same is needed for a comparison")


@checked_by(check_tuning, result=TRIED, split=CHOOSING_SPLIT, target=TARGET, by=BY, largest=LARGEST)
def tuning_table(
    result: xr.Dataset | Mapping[str, xr.Dataset],
    split: str = "validation",
    target: float | None = None,
    *,
    by: str | None = None,
    largest: bool | None = None,
) -> pd.DataFrame:
    """Returns one row per number of settings tried: how good the best of them is (Dodge et al. 2019, arXiv:1909.03004).

    The settings of a result stand for tries that were drawn at random, as those of `jm.sample` are; each counts with
    its mean over its seeds. The best of K of them is chosen by that mean on validation. Its mean over all choices of K
    settings out of N without replacement has no bias (Tang et al. 2020, arXiv:2004.13705), unlike that of K draws with
    replacement. With a `target`, the tries are compared by the mean steps to it: the fewest steps of any of K tries
    (Shallue et al. 2019, arXiv:1811.03600).

    A setting with a run that diverged, or that did not reach the target, is never the best. If there are such settings,
    some choices hold no other, and a mean over all choices does not exist. In its place the table has the median, of
    all of its results: a choice without a best is worse than any. The median is nan if most choices are.

    The intervals are percentiles of 1,000 bootstrap samples of the settings, for up to a quarter of them, and up to a
    seventh for a median. In simulations they held the truth in 87 to 95 % of cases there, but in 60 % for all settings:
    the samples cannot know what is better than the best. They do not tell what all settings owe to the same few seeds.

    Args:
      result: of a sweep without pruning, or several by name, such as those of several optimizers, of the same data set
        and budget: `{name: result.sel(optimizer=name) for name in ("sgd", "adam")}`.
      split: on which the best is shown, `"validation"` or `"test"`; it is chosen on validation.
      target: of the metric; then steps to it are compared.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Returns:
      Columns: `result`, the name, if there are several; `num_tried`, up to 100 numbers from 1 to N; `share_found`, that
      of choices with a best; `statistic`, `"mean"` or `"median"`; and `{split}_{metric}` or `steps`, with the ends of
      the 95 % interval, `*_low` and `*_high`.

    Raises:
      ValueError: an argument is not as described above.
    """
    metric = judged(next(iter(by_name(result).values())), by, largest)
    column = f"{split}_{metric.name}" if target is None else "steps"
    values = {
        name: _ranked(each, split, metric) if target is None else _steps(each, target, metric)
        for name, each in by_name(result).items()
    }
    is_median = any(np.isnan(each).any() for each in values.values())
    worst = -np.inf if metric.largest and target is None else np.inf
    tables = []
    for name, each in values.items():
        table = _best_of_each_number(np.where(np.isnan(each), worst, each), is_median)
        table.columns = table.columns.str.replace("best", column)
        if not isinstance(result, xr.Dataset):
            table.insert(0, "result", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _ranked(result: xr.Dataset, split: str, metric: Metric) -> np.ndarray:
    """Returns the mean of each setting on a split, `[N]`, the best on validation first; nan for those that diverged."""
    ranked = results.settings(result, *metric)
    return ranked[f"{split}_{metric.name}"].where(ranked["num_diverged"] == 0).to_numpy(float)


def _steps(result: xr.Dataset, target: float, metric: Metric) -> np.ndarray:
    """Returns the mean steps of each setting to a target, `[N]`, the fewest first; nan if it does not reach it."""
    flat = as_one_dim(result)
    rows = results.ended(flat)
    rows["steps"] = targets.steps_to_target(flat, target, *metric).values[rows.index]
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    return np.sort(rows.groupby(names)["steps"].mean(skipna=False).to_numpy(float))


def _best_of_each_number(values: np.ndarray, is_median: bool) -> pd.DataFrame:
    """Returns the rows of a tuning table, given the values of settings, the best first; infinite if one has none."""
    count = len(values)
    tried = np.unique(np.geomspace(1, count, MAX_POINTS).round().astype(int))
    chances, statistic = best_chances(count, tried), "median" if is_median else "mean"
    generator = np.random.default_rng(0)
    samples = (np.sort(generator.integers(count, size=count)) for _ in range(NUM_RESAMPLES))
    resampled = np.stack([_over_choices(values[sample], chances, is_median) for sample in samples])
    ends = np.percentile(resampled, ENDS, axis=0, method="inverted_cdf")
    best = np.stack([_over_choices(values, chances, is_median), *ends])
    best[1:, tried > LARGEST_SHARES[statistic] * count] = np.nan
    best[~np.isfinite(best)] = np.nan
    found = 1 - chances[:, np.isinf(values)].sum(axis=1)
    columns: dict = {"num_tried": tried, "share_found": found, "statistic": statistic}
    return pd.DataFrame(columns | dict(zip(("best", "best_low", "best_high"), best, strict=True)))


def best_chances(count: int, tried: np.ndarray) -> np.ndarray:
    """Returns with which probability each setting is the best of some, `[K, N]`, the best of all first.

    Args:
      count: N, the number of settings.
      tried: `[K]` int, how many of them are drawn without replacement.
    """
    from scipy import special

    worse, drawn = np.arange(count)[::-1], tried[:, None]
    # The other K - 1 are drawn from those that are worse.
    logarithm = special.gammaln(worse + 1) - special.gammaln(drawn) - special.gammaln(worse - drawn + 2)
    total = special.gammaln(count + 1) - special.gammaln(drawn + 1) - special.gammaln(count - drawn + 1)
    return np.where(worse >= drawn - 1, np.exp(logarithm - total), 0.0)


def _over_choices(values: np.ndarray, chances: np.ndarray, is_median: bool) -> np.ndarray:
    """Returns the mean or the median of the best of each number of settings, `[K]`.

    Args:
      values: `[N]`, the best on validation first; infinite, and last, if a setting has none.
      chances: `[K, N]` of `best_chances`.
      is_median: whether to return the median.
    """
    if not is_median:
        return chances @ values
    # On the test split, the values are not in the order of the choice.
    order = np.argsort(values, kind="stable")
    # With some tolerance, since the chances are rounded.
    place = np.argmax(np.cumsum(chances[:, order], axis=1) >= 0.5 - 1e-9, axis=1)
    return values[order][place]

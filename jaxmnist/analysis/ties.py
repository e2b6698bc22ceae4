"""How settings compare with the best: as good as it, worse, or not to be told with the seeds at hand.

A setting is one combination of hyperparameters; its runs differ in the seed alone. The validation split is compared.
Shapes: S settings, N seeds.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, IsResult
from jaxmnist.analysis.intervals import CONFIDENCE
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.checks import Number, Optional, checked_by

SIGNIFICANCE = 0.05
ACCURACY_MARGIN = 0.005
RELATIVE_MARGIN = 0.01
# Differences that vary less than this, relative to the values, vary by no more than the rounding of float32.
ROUNDING = 1e-7
PAIRS_AT_A_TIME = 2**20
# Every setting is compared with this many of the best, so that the work grows with the settings, not their square.
MAX_RIVALS = 1000
MARGIN = Optional(Number("a number from 0 on", lambda value: value >= 0))


@checked_by(check_by, result=IsResult(SETTINGS), by=BY, largest=LARGEST, margin=MARGIN)
def ties(
    result: xr.Dataset, by: str | None = None, largest: bool | None = None, margin: float | None = None
) -> pd.DataFrame:
    """Returns one row per setting, best first, as `jm.settings`, and how each compares with the best.

    Further columns are `lead` with the ends of its interval, `lead_low` and `lead_high`, `p_value` and `standing`. A
    standing is

    - `"best"`: the first row, whose mean is the best;
    - `"as good"`: at most `margin` worse than the best;
    - `"worse"`: not the best, and not known to be as good;
    - `"unclear"`: neither can be told with these seeds;
    - `"diverged"` or `"pruned"`, if a run of it was.

    Which setting is truly the best is not known: the first row owes its place to luck as well. Therefore no setting is
    compared with the first row alone. Let t_i be the true mean of a setting over all seeds. What is asked is how far it
    lies below the best of the others, max t_k (Hsu 1984, Annals of Statistics 12:1136, multiple comparisons with the
    best). All pairs are compared by one-sided paired t tests over the seeds that both have, at 5 %:

    - a setting is as good as the best if it is less than `margin` worse than each of the others (the intersection-union
      test of Berger 1982, Technometrics 24:295, which needs no correction). It is the one of the two one-sided tests of
      equivalence (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657) that is needed, since nothing is better than the
      best;
    - it is not the best if one of the others is better, where the least p value is multiplied by S - 1, the number of
      the others (Bonferroni). This is the column `p_value`; it is nan for the first row.

    The `lead` is by how much the mean of a setting is better than that of the best of the others, below 0 if it is
    worse, in the unit of the metric. Its 95 % interval is of the same paired tests, two-sided: the lower end needs no
    correction, and the upper one Bonferroni's. `jm.seeds_needed` says how many seeds would tell two settings apart.

    So the probability that the true best is called worse is at most 5 %, and so is that of calling a setting as good
    that is not, for each setting. If a setting scatters so much that it may itself be the best by more than the margin,
    no other is called as good as the best. With fewer than 2 seeds in common with the first row, a setting is unclear,
    and the others are not compared with it. Of more than 1,000 settings, all are compared with the 1,000 best.

    Args:
      result: of a sweep.
      by: the metric that is compared, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.
      margin: how much worse is still as good, in the unit of the metric; an accuracy is a fraction. Default half a
        percentage point of accuracy, and of any other metric 1 % of the first row's mean, which suits metrics for which
        0 means something, as it does for a loss.

    Raises:
      ValueError: as `jm.settings`, or the margin is below 0.
    """
    metric = judged(result, by, largest)
    ranked = results.settings(result, *metric)
    standing = np.full(len(ranked), "unclear", object)
    if "pruned_step" in ranked:
        standing[ranked["pruned_step"].notna()] = "pruned"
    standing[ranked["num_diverged"] > 0] = "diverged"
    values = by_seed(result, ranked, metric)
    p_values, leads = np.full(len(ranked), np.nan), np.full((3, len(ranked)), np.nan)
    if standing[0] == "unclear":
        common = (np.isfinite(values) & np.isfinite(values[0])).sum(axis=1)
        rivals = np.flatnonzero((standing == "unclear") & (common > 1))
        if len(rivals) > 1:
            found = compared(values[rivals], default_margin(ranked, metric) if margin is None else margin)
            standing[rivals[found.p_worse <= SIGNIFICANCE]] = "worse"
            standing[rivals[found.p_as_good <= SIGNIFICANCE]] = "as good"
            p_values[rivals[1:]] = found.p_worse[1:]
            leads[:, rivals] = found.lead, found.lead_low, found.lead_high
        standing[0] = "best"
    lead, low, high = leads
    return ranked.assign(lead=lead, lead_low=low, lead_high=high, p_value=p_values, standing=standing)


def default_margin(ranked: pd.DataFrame, metric: Metric) -> float:
    """Returns the margin within which a setting is as good as the first of a table of settings."""
    if metric.is_share:
        return ACCURACY_MARGIN
    return RELATIVE_MARGIN * abs(float(ranked[f"validation_{metric.name}"].iloc[0]))


def by_seed(result: xr.Dataset, ranked: pd.DataFrame, metric: Metric, split: str = "validation") -> np.ndarray:
    """Returns the metric `[S, N]` of ranked settings by seed, so that more is better; nan where there is no run."""
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    rows = results.table(result).merge(ranked[names].assign(_row=np.arange(len(ranked))), on=names)
    seeds, column = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    values = np.full((len(ranked), len(seeds)), np.nan)
    values[rows["_row"].to_numpy(), column] = rows[f"{split}_{metric.name}"].to_numpy(float)
    return values if metric.largest else -values


class Compared(NamedTuple):
    """How each setting compares with the best of the others, `[S]` each.

    Attributes:
      p_worse: the p value of it being no worse.
      p_as_good: that of it being worse by the margin or more.
      lead: by how much it is better; nan if it has fewer than 2 seeds in common with one of the others.
      lead_low: the lower end of the 95 % interval of that.
      lead_high: the upper end.
    """

    p_worse: np.ndarray
    p_as_good: np.ndarray
    lead: np.ndarray
    lead_low: np.ndarray
    lead_high: np.ndarray


def compared(values: np.ndarray, margin: float) -> Compared:
    """Returns how each setting compares with the best of the others.

    Args:
      values: `[S, N]` by setting and seed, more being better, the best setting first; nan where there is no run.
      margin: how much worse is still as good.
    """
    from scipy import special

    num_settings = len(values)
    p_worse, p_as_good = np.ones(num_settings), np.zeros(num_settings)
    # The lead over the best of the others is the least one over any of them.
    leads = np.full((3, num_settings), np.inf)
    tails = (1 - CONFIDENCE) / 2, (1 - CONFIDENCE) / 2 / max(num_settings - 1, 1)
    for rows, count, difference, error in _pairs(values):
        with np.errstate(divide="ignore", invalid="ignore"):
            lead = np.where(error > 0, -difference / error, np.where(difference < 0, np.inf, -np.inf))
            slack = difference + margin
            slack = np.where(error > 0, slack / error, np.where(slack >= 0, np.inf, -np.inf))
        is_other = np.arange(num_settings)[rows, None] != np.arange(count.shape[1])
        for number in np.flatnonzero(np.bincount(count.ravel())):
            if number < 2:
                # Of two settings without seeds in common, neither is known to be as good as the other.
                has_few = (is_other & (count == number)).any(axis=1)
                p_as_good[rows] = np.where(has_few, 1.0, p_as_good[rows])
                leads[:, rows] = np.where(has_few, np.nan, leads[:, rows])
                continue
            most = np.where(count == number, lead, -np.inf).max(axis=1)
            least = np.where(count == number, slack, np.inf).min(axis=1)
            p_worse[rows] = np.minimum(p_worse[rows], special.stdtr(number - 1, -most))
            p_as_good[rows] = np.maximum(p_as_good[rows], special.stdtr(number - 1, -least))
            low, high = (special.stdtrit(number - 1, tail) for tail in tails)
            ends = np.stack([difference, difference + low * error, difference - high * error])
            found = np.where(is_other & (count == number), ends, np.inf).min(axis=2)
            leads[:, rows] = np.minimum(leads[:, rows], found)
    return Compared(np.minimum(p_worse * (num_settings - 1), 1.0), p_as_good, *leads)


def _pairs(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, for some rows at a time, how they differ from the first rows, the rivals.

    Yields:
      The rows; `[rows, rivals]` int, the number of seeds that both have; the mean difference over these; and its
      standard error, 0 if the difference is the same for all seeds.
    """
    held = np.isfinite(values)
    # A matrix product gives the sums over the seeds of all pairs; of values near 0 these are not small differences of
    # large numbers.
    centred = np.where(held, values - values[0, held[0]].mean(), 0.0)
    mask, largest = held.astype(np.float64), np.abs(np.where(held, values, 0.0)).max(axis=1)
    rivals, has, size = (each[:MAX_RIVALS] for each in (centred, mask, largest))
    step = max(1, PAIRS_AT_A_TIME // len(rivals))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        count = mask[rows] @ has.T
        known = np.maximum(count, 1)
        difference = (centred[rows] @ has.T - mask[rows] @ rivals.T) / known
        squares = centred[rows] ** 2 @ has.T + mask[rows] @ (rivals**2).T - 2 * centred[rows] @ rivals.T
        variance = np.maximum(squares - known * difference**2, 0.0) / np.maximum(count - 1, 1)
        rounding = ROUNDING * np.maximum(largest[rows, None], size)
        is_constant = variance <= rounding**2
        error = np.where(is_constant, 0.0, np.sqrt(variance / known))
        difference = np.where(is_constant & (np.abs(difference) <= rounding), 0.0, difference)
        yield rows, count.astype(int), difference, error

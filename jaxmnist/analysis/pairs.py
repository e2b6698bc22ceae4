"""Two settings compared seed by seed: their differences, and how many seeds would tell them apart.

A setting is one combination of hyperparameters; its runs differ in the seed alone.
Shapes: N seeds.
"""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, IsResult
from jaxmnist.analysis.intervals import Interval
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.analysis.selection import SETTING, select
from jaxmnist.analysis.ties import ROUNDING, SIGNIFICANCE, by_seed, ties
from jaxmnist.checks import Number, checked_by

POWER = 0.8
MAX_EXACT = 10_000  # with more seeds, Student's and the normal distribution give the same number, to one or two
SHARE = Number("a number between 0 and 1", lambda value: 0 < value < 1)


class Pairs(NamedTuple):
    """Two settings, and the seeds that both have.

    Attributes:
      result: of the runs of both.
      settings: their values, `a` first.
      values: `[2, N]` of the seeds of which no run of either diverged.
      num_left_out: of the seeds that both have, those of which a run diverged.
    """

    result: xr.Dataset
    settings: tuple[dict, dict]
    values: np.ndarray
    num_left_out: int


def check_pairs(given: SimpleNamespace, split: str = "validation") -> None:
    """Raises ValueError unless `a` and `b` are two settings of `result` that can be compared `by` a metric."""
    check_by(given)
    found = find_pairs(given.result, (given.a, given.b), split, judged(given.result, given.by, given.largest))
    if found.settings[0] == found.settings[1]:
        raise ValueError("a and b are the same setting; two are needed")
    if found.values.shape[1] < 2:
        raise ValueError("a and b have fewer than 2 seeds in common of which no run diverged; 2 are needed")


def find_pairs(result: xr.Dataset, asked: tuple, split: str, metric: Metric) -> Pairs:
    """Returns the two settings, of several that fit the best on validation, and what their common seeds reached."""
    settings, columns = [], []
    for argument, setting in zip("ab", asked, strict=True):
        part = select(result, setting, argument)
        ranked = results.settings(part, *metric)
        names = [name for name in results.hyperparameters(part) if name != "seed"]
        # Column by column: a row as a whole would turn whole numbers into floats.
        settings.append({name: ranked[name].iloc[:1].tolist()[0] for name in names})
        rows = results.rows_of(part, settings[-1]).set_index("seed")
        values = rows[f"{split}_{metric.name}"].where(rows["diverged_step"].isna())
        columns.append(values.astype(float))
    common = columns[0].index.intersection(columns[1].index).sort_values()
    both = np.stack([column[common].to_numpy() for column in columns])
    known = np.isfinite(both).all(axis=0)
    first, second = settings
    return Pairs(select(result, [first, second]), (first, second), both[:, known], int((~known).sum()))


def effect_size(values: np.ndarray) -> float:
    """Returns the mean of the differences of pairs over their standard deviation, d_z of Cohen (1988, section 2.3.5).

    It is infinite if all differences are the same but not 0, and nan for fewer than 2 of them.

    Args:
      values: `[2, N]`, as of `Pairs`.
    """
    if values.shape[1] < 2:
        return math.nan
    difference, rounding = values[0] - values[1], ROUNDING * float(np.abs(values).max())
    mean, deviation = float(difference.mean()), float(difference.std(ddof=1))
    if deviation > rounding:
        return mean / deviation
    return math.copysign(math.inf, mean) if abs(mean) > rounding else 0.0


def seeds_to_tell(effect: float, power: float = POWER, significance: float = SIGNIFICANCE) -> float:
    """Returns with how many seeds a paired t test finds an effect; infinite for 0, nan for nan.

    The power is that of the noncentral t distribution (Cohen 1988, chapter 2).

    Args:
      effect: of `effect_size`; its sign does not matter.
      power: the probability of finding it.
      significance: the level of the two-sided test.
    """
    if math.isnan(effect) or effect == 0:
        return math.nan if math.isnan(effect) else math.inf
    from scipy import special

    normal = (max(special.ndtri(power) - special.ndtri(significance / 2), 0.0) / effect) ** 2
    if normal > MAX_EXACT:
        return float(math.ceil(normal))
    low, high = 1, 2
    while power_of(effect, high, significance) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect, middle, significance) >= power else (middle, high)
    return float(high)


def power_of(effect: float, num_seeds: int, significance: float = SIGNIFICANCE) -> float:
    """Returns the probability with which a two-sided paired t test over a number of seeds finds an effect."""
    from scipy import stats

    if math.isinf(effect):
        return 1.0
    freedom, shift = num_seeds - 1, abs(effect) * math.sqrt(num_seeds)
    critical = stats.t.isf(significance / 2, freedom)
    # The lower tail is the upper one of the opposite shift, in which form scipy never finds nan.
    return float(stats.nct.sf(critical, freedom, shift) + stats.nct.sf(critical, freedom, -shift))


@checked_by(
    check_pairs, result=IsResult(SETTINGS), a=SETTING, b=SETTING, power=SHARE, significance=SHARE, by=BY,
    largest=LARGEST,
)  # fmt: skip
def seeds_needed(
    result: xr.Dataset,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    power: float = POWER,
    significance: float = SIGNIFICANCE,
    by: str | None = None,
    largest: bool | None = None,
) -> float:
    """Returns how many seeds would tell two settings apart, if they differ on validation as they do in this result.

    That is the least number of seeds with which a two-sided paired t test is significant with this power, from the
    noncentral t distribution. The difference is taken as it was observed, and is uncertain itself, as the interval of
    `jm.contrast` shows: settings that were picked for their difference need more seeds than this number.

    Args:
      result: of a sweep.
      a: a setting, as for `jm.contrast`.
      b: the other setting.
      power: the probability of finding the difference.
      significance: the level of the test.
      by: the metric to compare, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Returns:
      A whole number from 2 on, or infinity if the means are equal.

    Raises:
      ValueError: an argument is not as described above, or fewer than 2 seeds can be compared.
    """
    values = find_pairs(result, (a, b), "validation", judged(result, by, largest)).values
    return seeds_to_tell(effect_size(values), power, significance)


def telling_words(effect: float) -> str:
    """Returns in words with how many seeds an effect would be found."""
    needed = seeds_to_tell(effect)
    count = "no number of" if math.isinf(needed) else f"{needed:,.0f}"
    return f"{count} seeds would tell them apart with power {100 * POWER:.0f} %"


class Lead(NamedTuple):
    """How one of several settings compares with the best of the others on validation.

    Attributes:
      lead: by how much its mean is better, with the 95 % interval that `jm.ties` explains.
      seeds_needed: how many seeds would tell it from the best of the others.
    """

    lead: Interval
    seeds_needed: float


def leads_of(result: xr.Dataset, settings: Sequence[Mapping[str, Any]], metric: Metric) -> list[Lead]:
    """Returns how each of several settings of a result, of which no run diverged, compares with the best of the others.

    All of it is nan for a single setting, and for one with fewer than 2 seeds in common with the others.
    """
    selected = select(result, settings)
    ranked = ties(selected, *metric)
    values, names = by_seed(selected, ranked, metric), list(settings[0])
    found: dict[tuple, Lead] = {}
    for place, row in enumerate(ranked.to_dict("records")):
        interval = Interval(row["lead"], row["lead_low"], row["lead_high"], "interval of paired t tests")
        # The best of the others is the first row, and the second one for the first.
        both = values[[place, 0 if place else min(1, len(values) - 1)]]
        needed = seeds_to_tell(effect_size(both[:, np.isfinite(both).all(axis=0)]))
        found[tuple(row[name] for name in names)] = Lead(interval, needed if len(values) > 1 else math.nan)
    return [found[tuple(setting[name] for name in names)] for setting in settings]

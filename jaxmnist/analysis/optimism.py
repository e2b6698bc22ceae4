"""The winner's curse: how much better the chosen setting looks on validation than it is on test.

Shapes: B bootstrap samples, S settings, N seeds.
"""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST
from jaxmnist.analysis.intervals import NUM_RESAMPLES, Interval, half_width
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.analysis.ties import by_seed
from jaxmnist.checks import checked_by
from jaxmnist.host.display import in_words, shown_by


def _rows(found: "Optimism") -> dict[str, str]:
    return {
        "setting": ", ".join(f"{name} {in_words(value)}" for name, value in found.setting.items()),
        "gap": f"{found.gap.mean:.4g} [{found.gap.low:.4g}, {found.gap.high:.4g}] ({found.gap.words})",
        "due to the choice": f"{found.luck:.2g}",
        "chosen again": f"in {100 * found.share_chosen:.0f} % of resamples",
    }


@shown_by(_rows)
class Optimism(NamedTuple):
    """How much better the chosen setting looks than it is.

    Attributes:
      setting: the one chosen on validation, hyperparameter -> value.
      gap: by how much its mean over seeds is better on validation than on test, in the unit of the metric; below 0 if
        it is worse. It has three reasons: the choice, for which lucky seeds count as much as a good setting, that the
        setting suits the examples of the validation split, and that the two splits are not equally hard.
      luck: the part that is due to the seeds of the choice.
      share_chosen: the share of bootstrap samples in which this setting is chosen again.
    """

    setting: dict[str, Any]
    gap: Interval
    luck: float
    share_chosen: float


def _check_chosen(given: SimpleNamespace) -> None:
    check_by(given)
    metric = judged(given.result, given.by, given.largest)
    if results.best(given.result, *metric) is None:
        raise ValueError("result holds no setting that can be chosen: every setting has runs that diverged")
    if _by_seed(given.result, metric)[1].shape[2] < 2:
        raise ValueError("result holds fewer than 2 seeds that all settings have; several are needed, to choose again")


def _by_seed(result: xr.Dataset, metric: Metric) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns the settings that can be chosen, the best first, and `[2, S, N]` of the seeds that all of them have.

    The first is validation and the second test, so that more is better.
    """
    ranked = results.settings(result, *metric)
    is_sane = ranked["num_diverged"] == 0
    if "pruned_step" in ranked:
        is_sane &= ranked["pruned_step"].isna()
    ranked = ranked[is_sane].reset_index(drop=True)
    values = np.stack([by_seed(result, ranked, metric, split) for split in ("validation", "test")])
    return ranked, values[:, :, np.isfinite(values).all(axis=(0, 1))]


@checked_by(_check_chosen, result=results.CHOSEN, by=BY, largest=LARGEST)
def optimism(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> Optimism:
    """Returns how much better the chosen setting looks on validation than it is on test: the winner's curse.

    The choice is made again in each of 2,000 bootstrap samples of the seeds (Efron 1979, Annals of Statistics 7:1), all
    settings with the same seeds. The interval of the gap is a t interval with the standard error of the gaps in these
    samples: for few seeds, percentiles of them hold the gap too rarely. In simulations of 3 to 20 seeds, it held the
    gap in 95 % of cases or more, and in nearly all of them where many settings are equally good. The luck is the mean
    over the samples of what the chosen setting is better there than over all seeds. Where settings are equally good, it
    is about two thirds of the truth, since they do not seem so.

    Args:
      result: of a sweep; settings with a run that diverged or was pruned are left out, and seeds that not all settings
        have.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, no setting can be chosen, or the settings have fewer than 2
        seeds in common.
    """
    metric = judged(result, by, largest)
    ranked, values = _by_seed(result, metric)
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    best, gap, luck, share_chosen = chosen_again(values)
    return Optimism({name: ranked[name].tolist()[best] for name in names}, gap, luck, share_chosen)


def chosen_again(values: np.ndarray) -> tuple[int, Interval, float, float]:
    """Returns the best setting, its gap, the luck, and the share of samples in which it is the best.

    Args:
      values: `[2, S, N]`, more being better: of validation, on which is chosen, and of test.
    """
    num_settings, num_seeds = values.shape[1:]
    generator = np.random.default_rng(0)
    counts = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=NUM_RESAMPLES) / num_seeds
    means = values.mean(axis=2)
    best = int(means[0].argmax())
    # Some samples at a time, since there may be very many settings.
    chosen = np.concatenate([(values[0] @ part.T).argmax(axis=0) for part in np.array_split(counts, 50)])
    validation, test = (values[:, chosen] * counts).sum(axis=2)
    gaps = validation - test
    # A bootstrap divides by N where a standard deviation divides by N - 1.
    deviation = float(gaps.std()) * num_seeds / math.sqrt(num_seeds - 1)
    width, gap = float(half_width(deviation, num_seeds)), float(means[0, best] - means[1, best])
    kind = f"t interval with bootstrap standard error over {num_seeds} seeds, {num_settings} settings to choose from"
    interval = Interval(gap, gap - width, gap + width, kind)
    return best, interval, float((validation - means[0, chosen]).mean()), float((chosen == best).mean())

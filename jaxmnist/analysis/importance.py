"""How much each hyperparameter matters, by two analyses of variance that Optuna has."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, IsResult, varied
from jaxmnist.analysis.export import check_installed, is_installed, new_study, quiet, study_of
from jaxmnist.analysis.intervals import ENDS
from jaxmnist.analysis.metrics import Metric, check_varied, judged
from jaxmnist.checks import checked_by

MIN_VARIED, MIN_SETTINGS, MAX_SETTINGS = 3, 8, 500
NUM_RESAMPLES = 30
NUM_TREES, NUM_RESAMPLED_TREES = 64, 8


def check_importance(given: SimpleNamespace) -> None:
    """Raises ValueError if Optuna is not installed, or hyperparameters of `result` do not differ."""
    check_installed()
    check_varied(given)


@checked_by(check_importance, result=IsResult(SETTINGS), by=BY, largest=LARGEST)
def importance_table(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> pd.DataFrame:
    """Returns how much each hyperparameter that differs matters, one row each, the most important first.

    fANOVA (Hutter, Hoos and Leyton-Brown 2014, ICML, PMLR 32:754) is the share of the variance over all settings that a
    hyperparameter explains by itself; what is missing to 1 is due to several together. PED-ANOVA (Watanabe, Bansal and
    Hutter 2023, arXiv:2304.10255) asks by which hyperparameters the best tenth of the settings differs from all
    settings; the shares have the sum 1. The intervals are percentiles of a bootstrap over the settings (Efron 1979,
    Annals of Statistics 7:1), extended to the value itself where that lies outside.
    Settings with a run that diverged or was pruned are left out; of more than 500, 500 are drawn at random.

    Args:
      result: of a sweep, a halving or a search.
      by: the metric on the validation split that is analysed, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Returns:
      Columns: `hyperparameter`, `num_settings`, and `fanova` and `ped_anova`, each with `*_low` and `*_high`.

    Raises:
      ValueError: as `jm.settings`, Optuna is not installed, or there are fewer than 8 settings.
    """
    metric = judged(result, by, largest)
    trials = _trials(result, metric, MAX_SETTINGS)
    values = [trial.value for trial in trials]
    if not _can_be_analysed(trials):
        raise ValueError(
            f"result holds {len(values)} settings, of {len(set(values))} different values, of which no run diverged or "
            f"was pruned; {MIN_SETTINGS} or more are needed, not all of one value"
        )
    return _table(trials, varied(result), metric, NUM_RESAMPLES)


def table_if_any(
    result: xr.Dataset, metric: Metric, max_settings: int = MAX_SETTINGS, num_resamples: int = NUM_RESAMPLES
) -> pd.DataFrame | None:
    """Returns what `importance_table` does, or None if it says nothing that other figures do not say, or is impossible.

    That is so if fewer than 3 hyperparameters differ, if there are fewer than 8 settings or all have one value, or if
    Optuna is not installed.

    Args:
      result: of a sweep, a halving or a search.
      metric: that is analysed.
      max_settings: of more settings, so many are drawn at random.
      num_resamples: of the bootstrap.
    """
    names = varied(result)
    if len(names) < MIN_VARIED or not is_installed():
        return None
    trials = _trials(result, metric, max_settings)
    return _table(trials, names, metric, num_resamples) if _can_be_analysed(trials) else None


def _trials(result: xr.Dataset, metric: Metric, most: int) -> list:
    """Returns the trials of a study of Optuna that have a value, of very many some at random."""
    from optuna.trial import TrialState

    return study_of(result, metric, most).get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def _can_be_analysed(trials: list) -> bool:
    return len(trials) >= MIN_SETTINGS and len({trial.value for trial in trials}) > 1


def _table(trials: list, names: list[str], metric: Metric, num_resamples: int) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    samples = [generator.integers(len(trials), size=len(trials)) for _ in range(num_resamples)]
    columns: dict[str, Any] = {"hyperparameter": names, "num_settings": len(trials)}
    for method in ("fanova", "ped_anova"):
        whole = _importances(method, trials, names, metric.largest)
        drawn = [[trials[place] for place in sample] for sample in samples]
        resampled = [_importances(method, each, names, metric.largest, NUM_RESAMPLED_TREES) for each in drawn]
        low, high = np.percentile(resampled, ENDS, axis=0)
        columns |= {method: whole, f"{method}_low": np.minimum(low, whole), f"{method}_high": np.maximum(high, whole)}
    return pd.DataFrame(columns).sort_values("fanova", ascending=False, kind="stable", ignore_index=True)


def _importances(method: str, trials: list, names: list[str], largest: bool, num_trees: int = NUM_TREES) -> np.ndarray:
    """Returns the importance of each hyperparameter by one method."""
    from optuna import importance

    study = new_study(largest)
    study.add_trials(trials)
    with quiet():
        if method == "fanova":
            found = importance.FanovaImportanceEvaluator(n_trees=num_trees, seed=0).evaluate(study, params=names)
            return np.array([found[name] for name in names], np.float64)
        found = importance.PedAnovaImportanceEvaluator().evaluate(study, params=names)
    shares = np.array([found[name] for name in names], np.float64)
    return shares / shares.sum() if shares.sum() > 0 else shares

"""Results for other tools: as a study of Optuna, and as a table that trackers of experiments can import."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, IsResult, metric_names
from jaxmnist.analysis.curves import curves_by_run
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.checks import PATH, Where, checked_by
from jaxmnist.host.files import check_folder, check_ours, remove_temporary_files, write_atomically

# Of positive numbers that span more than this, a study sees the logarithm.
WIDE = 10
CSV = Where("a path that ends in .csv", lambda value: PATH.accepts(value) and Path(value).suffix == ".csv")


def is_installed() -> bool:
    """Returns whether Optuna is installed."""
    return importlib.util.find_spec("optuna") is not None


def check_installed() -> None:
    """Raises ValueError if Optuna is not installed."""
    if not is_installed():
        raise ValueError("optuna is not installed; install it by pip install 'jaxmnist[search]'")


def new_study(largest: bool) -> Any:
    """Returns an empty study of Optuna in memory, which maximizes if the largest value is the best."""
    import optuna

    with quiet():
        return optuna.create_study(direction="maximize" if largest else "minimize")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna, within the block, from reporting each new study on standard error."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _check_study(given) -> None:
    check_installed()
    check_by(given)


@checked_by(_check_study, result=IsResult(SETTINGS), by=BY, largest=LARGEST)
def to_optuna(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> Any:
    """Returns a study of Optuna with one trial per setting, in the order of the runs.

    Optuna then has what it offers for studies: `optuna.importance.get_param_importances(study)`, plots, and the
    dashboard. The study is in memory. One with a storage takes its trials by `other.add_trials(study.trials)`.

    Args:
      result: of a sweep, a halving or a search.
      by: the metric whose mean over seeds on the validation split is the value of a trial, as for `settings`.
      largest: whether its largest value is the best, as for `settings`.

    Returns:
      An `optuna.Study`. A setting with a run that diverged is a trial that failed, and one that halving has pruned is a
      pruned trial with its value at that step. The other means on the validation split are among the user attributes
      of a trial, with `num_seeds` and `num_diverged`; nothing of the test split is. A hyperparameter of numbers has the
      interval of its values as its distribution, logarithmic if they are positive and span more than a factor of 10.

    Raises:
      ValueError: as `settings`, or Optuna is not installed.
    """
    return study_of(result, judged(result, by, largest))


def study_of(result: xr.Dataset, metric: Metric, most: int | None = None) -> Any:
    """Returns the study of `to_optuna`, or, of its trials that have a value, as many as asked for, drawn at random."""
    import optuna

    names = [name for name in results.hyperparameters(result) if name != "seed"]
    ranked = results.settings(result, *metric)
    rows = results.table(result)[names].drop_duplicates().merge(ranked, on=names)
    distributions = {name: _distribution(rows[name].tolist()) for name in names}
    if most is not None:
        is_complete = rows["num_diverged"] == 0
        if "pruned_step" in rows:
            is_complete &= rows["pruned_step"].isna()
        rows = rows[is_complete]
        rows = rows.iloc[np.sort(np.random.default_rng(0).permutation(len(rows))[:most])]
    states = optuna.trial.TrialState
    study = new_study(metric.largest)
    means = [f"validation_{name}" for name in metric_names(result)]
    columns = [*names, "num_seeds", "num_diverged", *means]
    # Column by column: a row as a whole would turn whole numbers into floats.
    for values in zip(*(rows[name].tolist() for name in (*columns, "pruned_step") if name in rows), strict=True):
        trial = dict(zip((*columns, "pruned_step"), values, strict=False))
        stop = trial.pop("pruned_step", None)
        value = trial[f"validation_{metric.name}"]
        ended: dict[str, Any] = dict(value=value)
        if trial["num_diverged"]:
            ended = dict(state=states.FAIL)
        elif stop is not None and not pd.isna(stop):
            ended = dict(state=states.PRUNED, intermediate_values={int(stop): value})
        params = {name: trial.pop(name) for name in names}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, user_attrs=trial, **ended)
        )
    return study


def _distribution(values: list) -> Any:
    """Returns the distribution of Optuna that the values of a hyperparameter span."""
    from optuna import distributions

    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return distributions.CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    is_whole = all(isinstance(value, int) for value in values)
    kind = distributions.IntDistribution if is_whole else distributions.FloatDistribution
    return kind(low, high, log=low > 0 and high / low > WIDE)


@checked_by(result=IsResult(SETTINGS, ("num_steps",), one_seed=False), path=CSV)
def to_csv(result: xr.Dataset, path: str | os.PathLike) -> None:
    """Writes one row per run and step, as trackers of experiments log them, into a CSV file, atomically.

    Columns: `run` (its number), the hyperparameters, `seed`, `step`, and each `{split}_{metric}`, empty where it was
    not evaluated; `diverged_step`. There is a row for each recorded step and for the end of a run. Runs that have not
    ended are left out. docs/trackers.md shows how W&B, trackio and TensorBoard take this table. (A row per run is what
    `save` writes into `results.csv`.)

    Args:
      result: of a sweep, a halving or a search.
      path: of the file; a table that is there is replaced, and the folder is created if it does not exist.

    Raises:
      ValueError: an argument is not as described above, or the file was not written by jaxmnist.
      OSError: the file cannot be written.
    """
    path = Path(path)
    check_folder(path.parent)
    check_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(path.parent)
    write_atomically(path, lambda temporary: by_step(result).to_csv(temporary, index=False))


def by_step(result: xr.Dataset) -> pd.DataFrame:
    """Returns the table that `to_csv` writes."""
    runs = results.table(result)
    index = ["run", "step"]
    stop = runs["pruned_step"] if "pruned_step" in runs else pd.Series(pd.NA, runs.index, dtype="Int64")
    finals = [f"{split}_{name}" for split in ("validation", "test") for name in metric_names(result)]
    finals = [name for name in finals if name in runs]
    ends = runs[finals].assign(run=runs.index, step=stop.fillna(int(result.attrs["num_steps"])).astype(int))
    values = ends.set_index(index)
    curves = [str(name) for name in result if str(name).startswith("recorded_")]
    if curves:
        places = pd.MultiIndex.from_product([runs.index, result["step"].values.tolist()], names=index)
        recorded = {
            # As the end of a run is written, with no more digits than were computed.
            name.removeprefix("recorded_"): curves_by_run(result, name).ravel().astype(result[name].dtype)
            for name in curves
        }
        values = pd.DataFrame(recorded, places).combine_first(values)
    metrics = sorted(values, key=lambda name: (name not in finals, finals.index(name) if name in finals else 0, name))
    ended = runs["validation_loss"].notna() | runs["diverged_step"].notna()
    names = [*results.hyperparameters(result)]
    names = [name for name in names if name != "seed"] + ["seed"]
    rows = values.sort_index().reset_index().join(runs.loc[ended, [*names, "diverged_step"]], on="run", how="inner")
    return rows[["run", *names, "step", *metrics, "diverged_step"]]

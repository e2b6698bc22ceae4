"""All figures that a result has, chosen by what it holds."""

import pandas as pd
import xarray as xr

from jaxmnist.analysis import results, targets
from jaxmnist.analysis.arguments import BY, LARGEST, varied
from jaxmnist.analysis.importance import table_if_any
from jaxmnist.analysis.metrics import Metric, judged
from jaxmnist.analysis.report import NOISE_TABLE, REACHED, RESULT, check_report, has_maps, has_steps_to_target
from jaxmnist.analysis.words import axis_words
from jaxmnist.checks import checked_by
from jaxmnist.plots.curves import MAX_CURVES, accuracy_curve, curves
from jaxmnist.plots.importance import figure_of
from jaxmnist.plots.maps import heatmap, scatter
from jaxmnist.plots.parallel import parallel
from jaxmnist.plots.scaling import budget_maps, noise_curve, target_maps
from jaxmnist.plots.slices import slices
from jaxmnist.plots.style import Figure, Figures


@checked_by(check_report, result=RESULT, target=REACHED, noise=NOISE_TABLE, by=BY, largest=LARGEST)
def figures(
    result: xr.Dataset,
    target: float | None = None,
    noise: pd.DataFrame | None = None,
    *,
    by: str | None = None,
    largest: bool | None = None,
) -> Figures:
    """Returns the figures that a result has, by name: a `dict`, which a notebook shows as pictures.

    - `scatter` (test split): its settings differ in learning rate and batch size only;
    - `heatmap` (validation split): they also form a grid;
    - `heatmap`, `slices` and `parallel`: its settings differ in anything else; and `importance`: they differ in 3
      hyperparameters or more, there are at least 8, and Optuna is installed (extra `search`);
    - `budgets` and `steps_to_target`: the grid has recorded validation curves;
    - `noise_scale`: `noise` is given;
    - `learning_curves` and `test_accuracy` (or `test_loss`, if that is the metric): curves of the training or the test
      split are recorded, of at most 8 settings.

    Args:
      result: as `sweep` returns it.
      target: validation accuracy whose steps are counted, a fraction, or value of another metric; None for
        `default_target`. If that finds none, there is no `steps_to_target`.
      noise: as `noise_scale_along_training` returns it.
      by: the metric to show, and to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    metric = judged(result, by, largest)
    found: dict[str, Figure] = {}
    critical = None
    if has_maps(result):
        found["scatter"] = scatter(result, by=metric.name, largest=metric.largest)
        if "run" not in result.dims:
            found["heatmap"] = heatmap(result, by=metric.name, largest=metric.largest)
    else:
        found |= _of_any_axes(result, metric)
    if has_steps_to_target(result, metric.name):
        found["budgets"] = budget_maps(result, by=metric.name, largest=metric.largest)
        target = _target(result, metric) if target is None else target
        if target is not None:
            found["steps_to_target"] = target_maps(result, target, by=metric.name, largest=metric.largest)
            law = targets.table_scaling(targets.best_rates(targets.target_table(result, target, *metric)))
            critical = None if law is None else law.critical_batch_size
    if noise is not None:
        found["noise_scale"] = noise_curve(noise, critical, result, _chosen(result, metric))
    return Figures(found | _curves(result, metric))


def _of_any_axes(result: xr.Dataset, metric: Metric) -> dict[str, Figure]:
    """Returns the figures of a result whose settings differ in other hyperparameters than a map shows by itself."""
    names = varied(result)
    asked: dict = dict(by=metric.name, largest=metric.largest)
    if not names:
        return {}
    found = {"slices": slices(result, **asked)}
    if len(results.hyperparameters(result)) > 2:
        found["heatmap"] = heatmap(result, **asked)
    if len(names) > 1:
        found["parallel"] = parallel(result, **asked)
    table = table_if_any(result, metric)
    if table is not None:
        found["importance"] = figure_of(result, metric, table)
    return found


def _target(result: xr.Dataset, metric: Metric) -> float | None:
    try:
        return targets.default_target(result, *metric)
    except ValueError:
        return None


def _chosen(result: xr.Dataset, metric: Metric) -> str:
    """Returns the chosen setting in words; empty if there is none."""
    best = results.best(result, *metric)
    setting = {} if best is None else best.setting
    return ", ".join(f"{name.replace('_', ' ')} {axis_words(result, name, value)}" for name, value in setting.items())


def _curves(result: xr.Dataset, metric: Metric) -> dict[str, Figure]:
    splits = [split for split in ("train", "validation", "test") if f"recorded_{split}_loss" in result]
    if set(splits) <= {"validation"} or len(results.settings(result)) > MAX_CURVES:
        return {}
    found = {"learning_curves": curves(result)}
    if "test" in splits:
        found[f"test_{metric.name}"] = accuracy_curve(result, metric=metric.name)
    return found

"""All figures that a result has, chosen by what it holds."""

import pandas as pd
import xarray as xr

from jaxmnist.analysis import results, statistics
from jaxmnist.analysis.report import (
    NOISE_TABLE,
    RESULT,
    TARGET,
    has_maps,
    has_steps_to_target,
    value_words,
)
from jaxmnist.checks import checked_by
from jaxmnist.plots.curves import accuracy_curve, learning_curves
from jaxmnist.plots.maps import heatmap, scatter
from jaxmnist.plots.scaling import budget_maps, noise_curve, target_maps
from jaxmnist.plots.style import Figure

# A figure with more lines cannot be read.
MAX_CURVES = 8


@checked_by(result=RESULT, target=TARGET, noise=NOISE_TABLE)
def figures(result: xr.Dataset, target: float | None = None, noise: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Returns the figures that a result has, by name.

    - `scatter` (test split): its settings differ in learning rate and batch size only;
    - `heatmap` (validation split): they also form a grid;
    - `budgets` and `steps_to_target`: the grid has recorded validation curves;
    - `noise_scale`: `noise` is given;
    - `learning_curves` and `test_accuracy`: curves of the training or the test split are recorded, of at most 8
      settings.

    Args:
      result: as `sweep` returns it.
      target: validation accuracy whose steps are counted, a fraction; None for `default_target`. If that finds none,
        there is no `steps_to_target`.
      noise: as `noise_scale_along_training` returns it.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    found: dict[str, Figure] = {}
    critical = None
    if has_maps(result):
        found["scatter"] = scatter(result)
        if "run" not in result.dims:
            found["heatmap"] = heatmap(result)
    if has_steps_to_target(result):
        found["budgets"] = budget_maps(result)
        target = _target(result) if target is None else target
        if target is not None:
            found["steps_to_target"] = target_maps(result, target)
            law = statistics.table_scaling(statistics.best_rates(statistics.target_table(result, target)))
            critical = None if law is None else law.critical_batch_size
    if noise is not None:
        found["noise_scale"] = noise_curve(noise, critical, result, _chosen(result))
    return found | _curves(result)


def _target(result: xr.Dataset) -> float | None:
    try:
        return statistics.default_target(result)
    except ValueError:
        return None


def _chosen(result: xr.Dataset) -> str:
    """Returns the chosen setting in words; empty if there is none."""
    best = results.best(result)
    setting = {} if best is None else best.setting
    return ", ".join(f"{name.replace('_', ' ')} {value_words(value)}" for name, value in setting.items())


def _curves(result: xr.Dataset) -> dict[str, Figure]:
    splits = [split for split in ("train", "validation", "test") if f"recorded_{split}_loss" in result]
    if set(splits) <= {"validation"} or len(results.settings(result)) > MAX_CURVES:
        return {}
    found = {"learning_curves": learning_curves(result, splits)}
    return found | ({"test_accuracy": accuracy_curve(result)} if "test" in splits else {})

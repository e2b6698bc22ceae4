"""What the cells of a map show: of each, the setting that is the best in it.

Shapes: R rows and C columns of panels; Y and X cells along the axes of each.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import intervals, results, statistics, ties
from jaxmnist.analysis.metrics import Metric
from jaxmnist.plots.metrics import in_unit
from jaxmnist.plots.rulers import Ruler, ruler, rulers_of_cells


class Cells(NamedTuple):
    """What a map shows, `[R, C, Y, X]` each.

    Attributes:
      values: mean over seeds (accuracies in per cent), masked if a run diverged, was pruned or has not ended.
      share: share of the runs that diverged; 0 if a setting of the cell has none.
      pruned: whether runs were pruned.
      half_width: half the width of the 95 % interval of the mean, in the same unit.
      dead: whether a run is stuck at log(classes); never true if no curves were recorded.
      standing: of `jm.ties`; empty where there is no setting, or a single seed for all of them.
    """

    values: np.ma.MaskedArray
    share: np.ndarray
    pruned: np.ndarray
    half_width: np.ndarray
    dead: np.ndarray
    standing: np.ndarray


class Layout(NamedTuple):
    """Where the settings of a result are on a map.

    Attributes:
      x: of the axes.
      y: of the axes.
      columns: of panels; None for one column.
      rows: of panels; None for one row.
    """

    x: Ruler
    y: Ruler
    columns: Ruler | None
    rows: Ruler | None

    @property
    def names(self) -> list[str]:
        """The hyperparameters that the map shows."""
        return [each.name for each in self if each is not None]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """R, C, Y and X."""
        rows, columns = (1 if each is None else each.size for each in (self.rows, self.columns))
        return rows, columns, self.y.size, self.x.size


def layout(result: xr.Dataset, table: pd.DataFrame, names: tuple[str, str], panels: tuple) -> Layout:
    """Returns where settings are on a map, given the names of the axes, and of columns and rows or None."""
    columns, rows = (None if name is None else ruler(result, name) for name in panels)
    return Layout(*rulers_of_cells(result, table, names), columns, rows)


def settings_table(result: xr.Dataset, metric: Metric) -> pd.DataFrame:
    """Returns the table of `jm.ties` with columns `dead` and `hidden`, the settings that are not hidden first."""
    table = ties.ties(result, *metric)
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    hidden = is_hidden(result, table, metric)
    table = table.assign(hidden=hidden, dead=_is_dead(result, table[names]) & ~hidden)
    return table.sort_values("hidden", kind="stable", ignore_index=True)


def is_hidden(result: xr.Dataset, table: pd.DataFrame, metric: Metric) -> np.ndarray:
    """Returns which settings have no mean to be shown, `[S]` bool: a run diverged, was pruned, or has not ended."""
    hidden = (table["num_diverged"] > 0).to_numpy() | table[f"validation_{metric.name}"].isna().to_numpy()
    if "pruned_step" in table:
        hidden = hidden | table["pruned_step"].notna().to_numpy()
    if "finished" in result:
        names = [name for name in results.hyperparameters(result) if name != "seed"]
        counts = results.table(result).groupby(names, sort=False).size().rename("num_runs").reset_index()
        hidden = hidden | (table.merge(counts, on=names)["num_runs"] > table["num_seeds"]).to_numpy()
    return hidden


def _is_dead(result: xr.Dataset, settings: pd.DataFrame) -> np.ndarray:
    """Returns whether runs of settings are stuck at log(classes), `[S]` bool."""
    has_curves = "recorded_validation_loss" in result and "num_classes" in result.attrs
    if not has_curves or not statistics.is_classified(result):
        return np.zeros(len(settings), bool)
    runs = results.runs(result)
    rows = pd.DataFrame({str(name): runs[str(name)].tolist() for name in settings})
    rows["dead"] = results.by_run(xr.Dataset({"dead": statistics.is_dead(result)}), runs)["dead"]
    dead = rows.groupby(list(settings), sort=False)["dead"].any().reset_index()
    return settings.merge(dead, on=list(settings), how="left")["dead"].to_numpy(bool)


def cells(result: xr.Dataset, table: pd.DataFrame, shown: Layout, column: str, metric: Metric) -> Cells:
    """Returns what the cells of a map show.

    Args:
      result: of a sweep.
      table: of its settings, as `settings_table` returns it, the best first.
      shown: where they are on the map.
      column: of the table, to show: the mean of the metric on a split.
      metric: what settings are compared by.
    """
    places = [
        np.zeros(len(table), int) if each is None else each.places(table[each.name])
        for each in (shown.rows, shown.columns, shown.y, shown.x)
    ]
    flat = np.ravel_multi_index(places, shown.shape)
    held, first = np.unique(flat, return_index=True)
    chosen = table.iloc[first]
    is_hidden = chosen["hidden"].to_numpy()
    diverged = chosen["num_diverged"].to_numpy() > 0
    counts = [np.bincount(flat, table[name].to_numpy())[held] for name in ("num_diverged", "num_seeds")]
    pruned = chosen["pruned_step"].notna().to_numpy() if "pruned_step" in table else np.zeros(len(held), bool)
    means = np.where(is_hidden, np.nan, chosen[column].to_numpy(float))
    half_width = _half_widths(result, chosen, column, metric)
    standing = chosen["standing"].to_numpy(object)
    if table["num_seeds"].max() == 1:  # which tell nothing
        standing = np.where(standing == "unclear", "", standing)
    every = (
        (in_unit(metric.name, means), np.nan),
        (np.where(diverged, counts[0] / counts[1], 0.0), 0.0),
        (pruned & ~diverged, False),
        (np.where(is_hidden, np.nan, in_unit(metric.name, half_width)), np.nan),
        (chosen["dead"].to_numpy(), False),
        (standing, ""),
    )
    arrays = []
    for filled, empty in every:
        array = np.full(np.prod(shown.shape), empty, filled.dtype)
        array[held] = filled
        arrays.append(array.reshape(shown.shape))
    return Cells._make([np.ma.masked_invalid(arrays[0]), *arrays[1:]])


def _half_widths(result: xr.Dataset, chosen: pd.DataFrame, column: str, metric: Metric) -> np.ndarray:
    """Returns half the widths of the intervals over seeds; of one seed, of that over the images, for an accuracy."""
    if not metric.is_share or chosen["num_seeds"].max() > 1:
        return chosen[f"{column}_half_width"].to_numpy(float)
    low, high = intervals.wilson(chosen[column].to_numpy(float), result.attrs[f"num_{column.split('_')[0]}"])
    return (high - low) / 2

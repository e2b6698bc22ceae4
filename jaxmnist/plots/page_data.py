"""The numbers of the interactive page: all of them are computed here, so that the page only shows.

Shapes: R runs in the order of their settings, S settings from the best to the worst, E recorded steps, B batch sizes.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import LogNorm

from jaxmnist.analysis import results, ties
from jaxmnist.analysis.arguments import metric_names
from jaxmnist.analysis.curves import curves_until_divergence, has_diverged, last_steps, over_seeds
from jaxmnist.analysis.metrics import Metric, shown_on_test
from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.plots.metrics import colors, in_unit, label

# Recorded steps are left out evenly, so that a page holds at most so many recorded values, of two bytes each.
MAX_RECORDED = 1_200_000
MAX_AMOUNTS = 60
STANDINGS = ("best", "as good", "worse", "unclear", "diverged", "pruned")  # of `jm.ties`
BUDGETS = {"steps": "steps", "examples": "examples", "epochs": "passes through the training examples"}


class Runs(NamedTuple):
    """Which settings there are, and which runs are theirs.

    Attributes:
      settings: a row per setting, as `ties` returns it.
      rows: a row per run that has ended, setting by setting.
      places: `[R]` int, of these runs among the rows of `table`.
      numbers: `[R]` int, of their settings.
    """

    settings: pd.DataFrame
    rows: pd.DataFrame
    places: np.ndarray
    numbers: np.ndarray


class Quantity(NamedTuple):
    """A metric on a split.

    Attributes:
      name: such as `validation_accuracy`.
      metric: its name, and whether its largest values are drawn bright.
      label: of an axis, with the unit.
      arrays: by name, in the unit of the label: `final_mean` and `final_half_width` `[S]`, `final_runs` `[R]`, and, if
        it is recorded, `recorded_mean` and `recorded_half_width` `[S, E]`, `recorded_runs` `[R, E]`. If no setting has
        several seeds, there are means alone.
    """

    name: str
    metric: Metric
    label: str
    arrays: dict[str, np.ndarray]

    @property
    def words(self) -> dict[str, Any]:
        """What a page says of it."""
        return {
            "name": self.name, "label": self.label, "largest": self.metric.largest, "share": self.metric.is_share,
        }  # fmt: skip


def runs_of(result: xr.Dataset, metric: Metric) -> Runs:
    """Returns the settings of a result with one seed, best first, and their runs."""
    settings = ties.ties(result, *metric)
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    rows = results.table(result)
    of_setting = pd.MultiIndex.from_frame(settings[names])
    numbers = of_setting.get_indexer(pd.MultiIndex.from_frame(rows[names]))
    if "finished" in result:
        numbers = np.where(rows["validation_loss"].notna() | rows["diverged_step"].notna(), numbers, -1)
    order = np.argsort(numbers, kind="stable")
    order = order[numbers[order] >= 0]
    return Runs(settings, rows.iloc[order], order, numbers[order])


def recorded_names(result: xr.Dataset) -> list[str]:
    """Returns the names of what a result has recorded along training, such as `validation_accuracy`."""
    names = [f"{split}_{metric}" for split in SPLIT_NAMES for metric in metric_names(result)]
    return [name for name in names if f"recorded_{name}" in result]


def thinned(result: xr.Dataset, runs: Runs) -> xr.Dataset:
    """Returns a result with as many recorded steps as a page has room for, evenly among them, and the last one."""
    names = recorded_names(result)
    if not names:
        return result
    has_seeds = len(runs.rows) > len(runs.settings)
    per_step = len(names) * (len(runs.rows) + 2 * len(runs.settings) if has_seeds else len(runs.settings))
    count = result.sizes["step"]
    kept = np.linspace(0, count - 1, max(2, min(count, MAX_RECORDED // per_step))).round().astype(int)
    return result.isel(step=np.unique(kept) if count > 1 else [0])


def quantities_of(result: xr.Dataset, runs: Runs, metric: Metric) -> list[Quantity]:
    """Returns what a page can show of a result: first what settings are chosen by, then by split and metric."""
    recorded = recorded_names(result)
    finals = [f"validation_{name}" for name in metric_names(result)]
    finals += [f"test_{name}" for name in shown_on_test(result, metric.name)]
    names = dict.fromkeys([f"validation_{metric.name}", *finals, *recorded])
    return [_quantity(result, runs, metric, name, name in finals, name in recorded) for name in names]


def _quantity(result: xr.Dataset, runs: Runs, judged: Metric, name: str, has_end: bool, has_curves: bool) -> Quantity:
    split, _, which = name.partition("_")
    is_largest = judged.largest if which == judged.name else which != "loss"
    has_seeds = len(runs.rows) > len(runs.settings)
    arrays: dict[str, np.ndarray] = {}
    if has_end:
        is_sane = (runs.settings["num_diverged"] == 0).to_numpy()
        arrays["final_mean"] = np.where(is_sane, runs.settings[name].to_numpy(float), np.nan)
        if has_seeds:
            arrays["final_half_width"] = np.where(is_sane, runs.settings[f"{name}_half_width"].to_numpy(float), np.nan)
            has_run = runs.rows["diverged_step"].notna().to_numpy()
            arrays["final_runs"] = np.where(has_run, np.nan, runs.rows[name].to_numpy(float))
    if has_curves:
        curves = curves_until_divergence(result, f"recorded_{name}", has_diverged(result))[runs.places]
        found = over_seeds(curves, runs.numbers)
        arrays["recorded_mean"] = found.mean
        if has_seeds:
            arrays |= {"recorded_half_width": found.half_width, "recorded_runs": curves}
    arrays = {key: in_unit(which, array) for key, array in arrays.items()}
    return Quantity(name, Metric(which, is_largest), f"{split} {label(result, which)}", arrays)


def frames_of(result: xr.Dataset) -> list[dict[str, Any]]:
    """Returns, for each kind of budget, the amounts at which a result can be looked at, and the steps that they allow.

    Returns:
      For each kind its `name`, `words`, `amounts`, and `places`: for each amount, `[B]`, the place of the last recorded
      step within it for each batch size in ascending order, or -1 where curves end before it is used up.
    """
    if not recorded_names(result):
        return []
    steps = result["step"].values
    found = [_frame("steps", steps.tolist(), [[place] for place in range(len(steps))])]
    sizes = _sizes(result)
    if not len(sizes) or "num_train" not in result.attrs:
        return found
    for kind, unit in (("examples", 1), ("epochs", result.attrs["num_train"])):
        exact = np.unique(np.outer(steps, sizes).astype(np.float64))
        chosen = exact[np.unique(np.linspace(0, len(exact) - 1, MAX_AMOUNTS).round().astype(int))] / unit
        amounts = [float(f"{amount:.6g}") for amount in chosen]
        found.append(_frame(kind, amounts, _places(result, sizes, kind, amounts)))
    return found


def _sizes(result: xr.Dataset) -> np.ndarray:
    """Returns the batch sizes of a result in ascending order, `[B]`; empty if it has none that are numbers."""
    sizes = np.unique(result["batch_size"].values) if "batch_size" in result.coords else np.array([])
    return sizes if sizes.dtype.kind in "iuf" else np.array([])


def sizes_of(result: xr.Dataset, settings: pd.DataFrame) -> np.ndarray:
    """Returns the place of each setting's batch size in `places` of `frames_of`, `[S]` uint32."""
    sizes = _sizes(result)
    column = settings["batch_size"].to_numpy() if len(sizes) else np.zeros(len(settings))
    return np.searchsorted(sizes, column).astype(np.uint32)


def _frame(kind: str, amounts: list, places: list[list[int]]) -> dict[str, Any]:
    return {"name": kind, "words": BUDGETS[kind], "amounts": amounts, "places": places}


def _places(result: xr.Dataset, sizes: np.ndarray, kind: str, amounts: list[float]) -> list[list[int]]:
    by_size, by_amount = xr.DataArray(sizes, dims="size"), xr.DataArray(amounts, dims="amount")
    last = last_steps(result, by_size, kind, by_amount).transpose("amount", "size").values
    return np.where(np.isnan(last), -1, np.searchsorted(result["step"].values, last)).tolist()


def limits_of(quantity: Quantity, frames: list[dict[str, Any]], sizes: np.ndarray, runs: Runs) -> dict[str, Any]:
    """Returns the ends of the colour scale of a quantity: at the end of training, and at each amount of each budget.

    Args:
      quantity: of the result.
      frames: as `frames_of` returns them.
      sizes: as `sizes_of` returns them.
      runs: of the result; settings that were pruned have no colour at the end.
    """
    found: dict[str, Any] = {}
    if "final_mean" in quantity.arrays:
        means = quantity.arrays["final_mean"]
        is_pruned = runs.settings["pruned_step"].notna().to_numpy() if "pruned_step" in runs.settings else False
        found["end"] = _ends(quantity.metric, np.where(is_pruned, np.nan, means))
    if "recorded_mean" not in quantity.arrays:
        return found
    means = quantity.arrays["recorded_mean"]
    for frame in frames:
        # At equal numbers of steps, all batch sizes have the same place.
        spots = [np.asarray(places)[sizes if len(places) > 1 else 0] for places in frame["places"]]
        found[frame["name"]] = [_ends(quantity.metric, _at(means, spot)) for spot in spots]
    return found


def _at(means: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the means of settings at a place among the steps for each, nan where that is -1."""
    return np.where(places < 0, np.nan, means[np.arange(len(means)), places])


def _ends(metric: Metric, values: np.ndarray) -> list | None:
    """Returns both ends of the scale of `colors`, and whether it is logarithmic; None if there is nothing to colour."""
    values = np.ma.masked_invalid(values)
    if not values.count():
        return None
    norm: Any = colors(values, metric).norm
    return [float(norm.vmin), float(norm.vmax), isinstance(norm, LogNorm)]


def diverged_by_step(result: xr.Dataset, runs: Runs) -> np.ndarray:
    """Returns how many runs of each setting have diverged by each recorded step, `[S, E]` uint32."""
    counts = np.zeros((len(runs.settings), result.sizes["step"]), np.uint32)
    np.add.at(counts, runs.numbers, has_diverged(result)[runs.places])
    return counts

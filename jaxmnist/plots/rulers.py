"""How the values of any hyperparameter, numbers or names, are laid out along an axis of a figure."""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.words import axis_words
from jaxmnist.plots.style import MIN_LOG_RANGE, axis_label, log_ticks, set_scale

# Settings that are no grid are put into intervals if fewer cells than this share hold any, or there are more values.
MIN_FILLED, MAX_VALUES = 0.6, 40
MIN_INTERVALS, MAX_INTERVALS = 3, 16
IN_DOUBT = 0.1  # of the length of an axis: how much less evenly numbers may lie on a logarithmic scale
MANY_NAMES, MAX_NAMES = 12, 30
LETTERS_PER_TICK = 5  # that fit below an axis side by side, of names and of its label


class Ruler(NamedTuple):
    """The values of a hyperparameter, in the order in which an axis shows them.

    Attributes:
      name: of the hyperparameter.
      values: each of them, numbers in ascending order and others as typed; if there are `edges`, they lie in intervals.
      edges: `[N + 1]` float64, where intervals of numbers begin and end; None if each value has a place of its own.
    """

    name: str
    values: list
    edges: np.ndarray | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers."""
        return are_numbers(self.values)

    @property
    def size(self) -> int:
        """How many places there are."""
        return len(self.values) if self.edges is None else len(self.edges) - 1

    def places(self, column: pd.Series) -> np.ndarray:
        """Returns which value or interval the elements of a column belong to, `[S]` int."""
        if self.edges is not None:
            found = np.searchsorted(self.edges, column.to_numpy(float), side="right") - 1
            return np.clip(found, 0, self.size - 1)
        place = {value: i for i, value in enumerate(self.values)}
        return np.array([place[value] for value in column.tolist()], int)


def are_numbers(values: list) -> bool:
    """Returns whether all values are numbers, which booleans are not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_logarithmic(values: np.ndarray) -> bool:
    """Returns whether numbers lie more evenly on a logarithmic scale, as log-uniform draws do, or as evenly."""
    low, middle, high = values.min(), np.median(values), values.max()
    if not low > 0 or high <= MIN_LOG_RANGE * low:
        return False
    linear = abs(middle - (low + high) / 2) / (high - low)
    return bool(abs(np.log(middle) - np.log(low * high) / 2) / np.log(high / low) < linear + IN_DOUBT)


def ruler(result: xr.Dataset, name: str) -> Ruler:
    """Returns the ruler of all values that a result has of a hyperparameter."""
    values = results.hyperparameters(result)[name]
    return Ruler(name, sorted(values) if are_numbers(values) else values)


def rulers_of_cells(result: xr.Dataset, table: pd.DataFrame, names: tuple[str, str]) -> tuple[Ruler, Ruler]:
    """Returns rulers of two hyperparameters that divide the settings of a table into the cells of a map.

    Each value has a place, unless the result is no grid and the cells would be nearly empty, as they are for settings
    drawn at random: then numbers are put into intervals.
    """
    both = ruler(result, names[0]), ruler(result, names[1])
    if "run" not in result.dims:
        return both
    num_filled = len(table[list(names)].drop_duplicates())
    is_sparse = num_filled < MIN_FILLED * both[0].size * both[1].size
    count = num_intervals(len(table))
    found = []
    for each in both:
        is_divided = each.is_numeric and each.size > (count if is_sparse else MAX_VALUES)
        found.append(in_intervals(each, count) if is_divided else each)
    return found[0], found[1]


def num_intervals(num_settings: int) -> int:
    """Returns into how many intervals numbers are put of which each setting has its own."""
    return int(np.clip(round(num_settings**0.5), MIN_INTERVALS, MAX_INTERVALS))


def in_intervals(shown: Ruler, count: int) -> Ruler:
    """Returns a ruler of numbers in intervals of equal length, on the scale on which they lie more evenly."""
    values = np.array(shown.values, np.float64)
    spaced = np.geomspace if is_logarithmic(values) else np.linspace
    return shown._replace(edges=spaced(values.min(), values.max(), count + 1))


def draw_ruler(
    axes: Axes, which: str, result: xr.Dataset, shown: Ruler, max_ticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives an axis the scale, the ticks and the label of a ruler, and returns centres and edges of its cells.

    Args:
      axes: of the figure.
      which: `"x"` or `"y"`.
      result: that the values are of.
      shown: the ruler.
      max_ticks: how many numbers are written along it at most.
    """
    if not shown.is_numeric:
        cells = _draw_names(axes, which, result, shown, LETTERS_PER_TICK * max_ticks)
    elif shown.edges is None:
        cells = set_scale(axes, which, shown.name, np.array(shown.values), max_ticks)
    else:
        edges = shown.edges
        draw_numbers(axes, which, shown)
        axes.set(**{f"{which}lim": (edges[0], edges[-1])})
        is_log = getattr(axes, f"get_{which}scale")() == "log"
        cells = (np.sqrt(edges[1:] * edges[:-1]) if is_log else (edges[1:] + edges[:-1]) / 2), edges
    words = getattr(axes, f"get_{which}label")()
    axes.set(**{f"{which}label": textwrap.fill(words, LETTERS_PER_TICK * max_ticks)})
    return cells


def draw_numbers(axes: Axes, which: str, shown: Ruler) -> None:
    """Gives an axis along which numbers may lie anywhere its scale, its ticks and its label."""
    axes.set(**{f"{which}label": axis_label(shown.name)})
    values = np.array(shown.values, np.float64)
    if is_logarithmic(values):
        axes.set(**{f"{which}scale": "log"})
        log_ticks(axes, which, values.min(), values.max())
    else:
        getattr(axes, f"{which}axis").set_major_locator(ticker.MaxNLocator(5))


def _draw_names(
    axes: Axes, which: str, result: xr.Dataset, shown: Ruler, max_letters: int
) -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(shown.size, dtype=np.float64)
    edges = np.arange(shown.size + 1) - 0.5
    words = [axis_words(result, shown.name, value) for value in shown.values]
    step = -(-len(words) // MAX_NAMES)
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(centres[::step], words[::step], fontsize=10 if len(words) <= MANY_NAMES else 7)
    axis.set_ticks([], minor=True)
    if which == "x" and sum(map(len, words)) > max_letters:
        axes.tick_params("x", rotation=30)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set(**{f"{which}label": axis_label(shown.name), f"{which}lim": (edges[0], edges[-1])})
    return centres, edges

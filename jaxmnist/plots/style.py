"""What all figures share: one style, the scales of their axes, and captions that say what is shown."""

import contextlib
import io
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import matplotlib.style
import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.statistics import gap_ratio
from jaxmnist.analysis.words import axis_words
from jaxmnist.core.optimizers import OWNERS

COLORMAP = "viridis"  # monotone in lightness: it survives greyscale and colour blindness
DIVERGED_COLOR = "0.93"
MAX_TICKS = 9
CAPTION_LETTERS_PER_INCH = 15
MAX_GAP_RATIO = 3.0
MIN_LOG_RANGE = 10
MOST_WHOLE = 1e6  # whole numbers from here on are written with powers of ten
PLANE = ("learning_rate", "batch_size")
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # The same file for the same picture.
    "svg.hashsalt": "jaxmnist",
}
LABELS = {"learning_rate": "learning rate", "batch_size": "batch size (examples)"}
# A logarithmic axis that spans at most the first factor gets evenly spaced ticks, up to the second one many, and beyond
# the third one powers of ten alone.
EVEN_TICKS, MANY_TICKS, DECADE_TICKS = 1.6, 6.0, 1000.0
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
MARKERS = "os^DvPX*"
MOST_ABOVE = 4  # lines of which each is wider than the next; of more, each is less so
MAX_COLOR = 0.75  # the end of the colour map is too light for a line on white


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure in the house style, which a notebook shows as a picture."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Writes the figure, as matplotlib's own method does."""
        # Ticks and fonts are made only as a figure is drawn, from the settings of that moment.
        with house_style():
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()

    def _ipython_display_(self) -> None:
        # Comes before the formatter that `%matplotlib inline` registers, which would draw in another style.
        from IPython.display import display

        display({"image/png": self._repr_png_(), "text/plain": repr(self)}, raw=True)


class Figures(dict[str, Figure]):
    """Figures by name, which a notebook shows as pictures, one below the other."""

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(*self.values())


def house_style() -> contextlib.AbstractContextManager[None]:
    """Returns the context in which figures are made: the house style, over matplotlib's defaults.

    What a matplotlibrc or a notebook has set does not count, so that a picture is the same everywhere.
    """
    return matplotlib.style.context(["default", STYLE])


def set_scale(
    axes: Axes, which: str, name: str, values: np.ndarray, max_ticks: int = MAX_TICKS
) -> tuple[np.ndarray, np.ndarray]:
    """Gives an axis the scale on which its values are evenly spaced, and returns centres and edges of their cells.

    That is the linear or the logarithmic scale. If the values are uneven on both, they are drawn at equal distances, in
    their order.
    """
    values = np.atleast_1d(np.asarray(values, np.float64))
    scale, points, note = "linear", values, ""
    if len(values) > 2:
        linear = gap_ratio(values)
        logarithmic = gap_ratio(np.log(values)) if values.min() > 0 else np.inf
        if min(linear, logarithmic) > MAX_GAP_RATIO:
            points, note = np.arange(len(values), dtype=np.float64), ", values spaced evenly"
        elif logarithmic < linear:
            scale, points = "log", np.log(values)
    backward: Callable[[np.ndarray], np.ndarray] = np.exp if scale == "log" else np.asarray
    gaps = np.diff(points) if len(points) > 1 else np.array([max(abs(points[0]), 1.0)])
    middles = (points[1:] + points[:-1]) / 2
    edges = backward(np.concatenate([[points[0] - gaps[0] / 2], middles, [points[-1] + gaps[-1] / 2]]))
    centres = backward(points)
    # Counted from the last one, which is always named.
    shown = np.arange(len(values) - 1, -1, -math.ceil(len(values) / max_ticks))[::-1]
    axes.set(**{f"{which}scale": scale, f"{which}label": axis_label(name) + note})
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(centres[shown], tick_words(values)[shown])
    axis.set_ticks([], minor=True)
    axes.set(**{f"{which}lim": (edges[0], edges[-1])})
    return centres, edges


def axis_label(name: str) -> str:
    """Returns what an axis calls a hyperparameter."""
    return LABELS.get(name, name.replace("_", " "))


def tick_words(values: np.ndarray) -> np.ndarray:
    """Returns numbers in as few digits, from 2 on, as tell them apart; whole ones have all of theirs."""
    if (values == np.round(values)).all() and np.abs(values).max() < MOST_WHOLE:
        return np.array([f"{value:.0f}" for value in values])
    for digits in range(2, 7):
        words = np.array([f"{float(f'{value:.{digits}g}'):g}" for value in values])
        if len(set(words)) == len(values):
            break
    return words


def places(axes: Axes, which: str, name: str, column: np.ndarray, is_sample: bool) -> np.ndarray:
    """Gives an axis its scale and returns where the values of a column lie on it."""
    if is_sample:
        wide = column.min() > 0 and column.max() > MIN_LOG_RANGE * column.min()
        axes.set(**{f"{which}scale": "log" if wide else "linear", f"{which}label": axis_label(name)})
        return column
    values, place = np.unique(column, return_inverse=True)
    return set_scale(axes, which, name, values)[0][place]


def seeds_words(result: xr.Dataset) -> str:
    """Returns the number of seeds in words."""
    count = len(results.hyperparameters(result)["seed"])
    return f"{count} seed" + "s" * (count > 1)


def title(axes: Axes, result: xr.Dataset, split: str) -> None:
    """Writes data set, split and budget above the axes."""
    axes.set_title(f"{result.attrs['dataset']}, {split} split, {result.attrs['budget']}", loc="left")


def hyperparameter_words(result: xr.Dataset, name: str, value: Any) -> str:
    """Returns a hyperparameter and its value in words; an optimizer is named without saying that it is one."""
    shown = axis_words(result, name, value) if isinstance(value, float | str) else value
    if name == "optimizer":
        return shown
    return f"{axis_label(name).split(' (')[0]} {shown}"


def write_caption(figure: Figure, *parts: str) -> None:
    """Writes a caption below a figure, in lines no wider than the figure; empty parts are left out."""
    width = int(CAPTION_LETTERS_PER_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill("; ".join(filter(None, parts)), width), fontsize=8, color="0.35")


def write_result_caption(figure: Figure, result: xr.Dataset, *notes: str, on_axes: Iterable[str] = ()) -> None:
    """Writes a caption of model, optimizer, the hyperparameters that all settings share, and notes.

    Args:
      figure: of the result.
      result: of a sweep.
      *notes: what else the caption says.
      on_axes: hyperparameters that the axes show, even if they have only one value.
    """
    held = results.hyperparameters(result)
    shared = [name for name, axis in held.items() if len(axis) == 1 and name not in ("seed", *on_axes)]
    words = {name: hyperparameter_words(result, name, held[name][0]) for name in shared}
    if "optimizer" in held:
        words |= {name: f"{words[name]} (of {owner} alone)" for name, owner in OWNERS.items() if name in words}
    optimizer = "" if "optimizer" in held else result.attrs["optimizer"]
    write_caption(figure, result.attrs["model"].split("(")[0], optimizer, ", ".join(words.values()), *notes)


def log_ticks(axes: Axes, which: str, low: float, high: float) -> None:
    """Gives a logarithmic axis ticks that can be read, the fewer the longer it is."""
    axis = getattr(axes, f"{which}axis")
    digits: tuple[float, ...] = (1.0, 2.0, 5.0) if high > MANY_TICKS * low else (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    if high > DECADE_TICKS * low:
        digits = (1.0,)
    even = high < EVEN_TICKS * low
    axis.set_major_locator(ticker.MaxNLocator(5) if even else ticker.LogLocator(subs=digits, numticks=20))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def round_numbers(low: float, high: float, is_log: bool) -> np.ndarray:
    """Returns a few round numbers from one end to the other, evenly on the scale of an axis."""
    if not is_log:
        found = np.asarray(ticker.MaxNLocator(6).tick_values(low, high))
    else:
        digits = (1.0,) if high > DECADE_TICKS * low else (1.0, 2.0, 5.0) if high < 60 * low else (1.0, 3.0)
        found = np.array([digit * 10.0**power for power in range(-12, 13) for digit in digits])
    return found[(found >= low * (1 - 1e-9)) & (found <= high * (1 + 1e-9))]


def line_style(place: int, count: int) -> dict:
    """Returns what distinguishes a line from the others, also in greyscale and for the colour-blind.

    The lower of two lines that coincide can still be seen, since it is wider and has larger markers.
    """
    above = (count - 1 - place) * min(1.0, MOST_ABOVE / max(count - 1, 1))
    return dict(
        color=mpl.colormaps[COLORMAP](0.3 if count == 1 else MAX_COLOR * place / (count - 1)),
        linestyle=DASHES[place % len(DASHES)],
        marker=MARKERS[place % len(MARKERS)],
        linewidth=1.2 + 0.4 * above,
        markersize=3.0 if count == 1 else 4.0 + above,
    )

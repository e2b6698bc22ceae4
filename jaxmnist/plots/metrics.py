"""How a metric is drawn: its label and unit, and colours of which the brightest are the best."""

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure

from jaxmnist.analysis.metrics import Metric, is_share
from jaxmnist.analysis.words import metric_words
from jaxmnist.plots.style import COLORMAP, MIN_LOG_RANGE, log_ticks

OUTLIER_COLOR = "black"
# Numbers outside of these, and axes that span a larger factor, are written as powers of ten.
LEAST_WRITTEN_OUT, MOST_WRITTEN_OUT, POWER_TICKS = 1e-4, 1e4, 1e5
NAMELESS = ("loss", "<lambda>")  # losses whose name says nothing


class Colors(NamedTuple):
    """The colours of a metric's values.

    Attributes:
      norm: from values to [0, 1], linear or logarithmic.
      cmap: from [0, 1] to colours.
      extend: at which end the colour bar has an arrow, in matplotlib's words.
      largest: whether the largest values are bright.
    """

    norm: Normalize
    cmap: Colormap
    extend: str
    largest: bool

    def is_bright(self, value: float) -> bool:
        """Returns whether black can be read on the colour of a value."""
        place = float(self.norm(value))
        return (place if self.largest else 1 - place) > 0.6


def in_unit(name: str, values: np.ndarray) -> np.ndarray:
    """Returns values of a metric as figures show them: accuracies in per cent, others as they are."""
    return 100 * values if is_share(name) else values


def label(result: xr.Dataset, name: str) -> str:
    """Returns what an axis calls a metric, with its unit."""
    if is_share(name):
        return f"{name} (%)"
    if name != "loss":
        return metric_words(name)
    if is_in_nats(result, name):
        return "loss (nats per example)"
    loss = result.attrs["loss"]
    return "loss" if loss in NAMELESS else f"loss ({metric_words(loss)})"


def is_in_nats(result: xr.Dataset, name: str) -> bool:
    """Returns whether a metric is a cross-entropy, as it is of all results that do not say what loss they have."""
    return name == "loss" and str(result.attrs.get("loss", "cross_entropy")).startswith("cross_entropy")


def is_wide(name: str, values: np.ndarray) -> bool:
    """Returns whether values span so many orders of magnitude that their scale has to be logarithmic."""
    known = values[np.isfinite(values)]
    return not is_share(name) and known.size > 0 and known.min() > 0 and known.max() > MIN_LOG_RANGE * known.min()


def colors(values: np.ma.MaskedArray, metric: Metric) -> Colors:
    """Returns the colours of values: the best are bright, and outliers among the worst are black.

    A value is an outlier beyond Tukey's fence, 1.5 interquartile ranges from the others; black does not look like an
    end of the scale, and leaves the colours to the rest.
    """
    known = np.asarray(values.compressed(), np.float64)
    name = f"{COLORMAP}" if metric.largest else f"{COLORMAP}_r"
    cmap = mpl.colormaps[name].with_extremes(**{"under" if metric.largest else "over": OUTLIER_COLOR})
    if not known.size:
        return Colors(Normalize(), cmap, "neither", metric.largest)
    is_log = not metric.largest and is_wide(metric.name, known)
    kept = known[lower_fence(known, metric, is_log)]
    ends = (kept.min(), known.max()) if metric.largest else (known.min(), kept.max())
    norm = LogNorm(*ends) if is_log and is_wide(metric.name, kept) else Normalize(*ends)
    has_outliers = len(kept) < len(known)
    extend = "neither" if not has_outliers else "min" if metric.largest else "max"
    return Colors(norm, cmap, extend, metric.largest)


def lower_fence(known: np.ndarray, metric: Metric, is_log: bool) -> np.ndarray:
    """Returns which values are no outliers among the worst: those within Tukey's fence, `[N]` bool."""
    goodness = (1 if metric.largest else -1) * (np.log(known) if is_log else known)
    low, high = np.percentile(goodness, [25, 75])
    return goodness >= low - 1.5 * (high - low)


def color_bar(
    figure: Figure, drawn: ScalarMappable, axes: Axes | np.ndarray, words: str, extend: str, **style: Any
) -> Colorbar:
    """Draws the colour bar of a metric beside the axes."""
    bar = figure.colorbar(drawn, ax=axes, label=words, extend=extend, **style)
    if isinstance(drawn.norm, LogNorm):
        metric_ticks(bar.ax, *drawn.get_clim())
    return bar


def metric_ticks(axes: Axes, low: float, high: float) -> None:
    """Gives a logarithmic y axis ticks that can be read, powers of ten if it spans very many of them."""
    if low >= LEAST_WRITTEN_OUT and high <= POWER_TICKS * low:
        log_ticks(axes, "y", low, high)
        return
    axes.yaxis.set_major_locator(ticker.LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(ticker.LogFormatterMathtext())
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def cell_words(name: str, value: float) -> str:
    """Returns a value of a metric, as `in_unit` gives it, for a cell of a map."""
    if is_share(name):
        return f"{value:.1f}"
    if value == 0 or LEAST_WRITTEN_OUT <= abs(value) < MOST_WRITTEN_OUT:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}" if abs(value) >= 0.01 else f"{value:#.2g}"
    digit, exponent = f"{value:.0e}".split("e")
    return rf"${digit}\times 10^{{{int(exponent)}}}$"


def mean_width_words(name: str, half_widths: np.ndarray, means: np.ndarray) -> str:
    """Returns the median half width of the intervals of all settings in words, in the unit of `in_unit`.

    Empty if no setting has an interval.

    Means that span orders of magnitude have no typical width, but a typical share that the width has in the mean.
    """
    known = np.isfinite(half_widths)
    if not known.any():
        return ""
    if is_wide(name, means[known]):
        return f"95 % interval ±{100 * np.median(half_widths[known] / means[known]):.2g} % of the mean (median cell)"
    width = np.median(half_widths[known])
    words = f"±{width:.1f} points" if is_share(name) else f"±{width:.2g}"
    return f"95 % interval {words} (median cell)"

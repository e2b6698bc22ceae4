"""Figures of the boundary of trainability, from saved results; see `jaxmnist.studies.boundary`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

from jaxmnist.host.files import write_atomically
from jaxmnist.plots.style import Figure, house_style, write_caption
from jaxmnist.studies import boundary, fractal

# Two halves, each monotone in lightness, palest and darkest where they meet: converging runs stay light, the others
# dark, in greyscale too; blue and red differ for the colour-blind.
CONVERGED_COLORS = ("#4a9bc9", "#8fc7de", "#cfe8ee", "#fbfbf2")
DIVERGED_COLORS = ("#14020c", "#3f0a22", "#6d1530", "#93283a")
CONVERGED = LinearSegmentedColormap.from_list("converged", CONVERGED_COLORS)
DIVERGED = LinearSegmentedColormap.from_list("diverged", DIVERGED_COLORS)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MIN_DECADES = 2.0
MIN_WIDTH = 0.1
FRAME_MS = 700


def colors(measure: np.ndarray) -> np.ndarray:
    """Returns a picture's colours, `[N, N, 3]`: from the rank of each run's measure among those of its kind.

    Each of a half's colours is used equally often, as in the notebook's `cdf_img`; the bars show what they stand for.

    Args:
      measure: `[N, N]`, from `boundary.picture`.
    """
    rgb = np.empty((*measure.shape, 3))
    for kind, colormap in ((measure < 0, CONVERGED), (measure >= 0, DIVERGED)):
        speeds = np.abs(measure[kind])
        known = np.sort(speeds)
        middle = (np.searchsorted(known, speeds, "left") + np.searchsorted(known, speeds, "right") - 1) / 2
        share = middle / max(len(known) - 1, 1)
        # Both halves meet at the slow end: converging with a large sum of losses, diverging with one of inverses.
        rgb[kind] = colormap(share if colormap is CONVERGED else 1 - share)[:, :3]
    return rgb


def figure(
    result: xr.Dataset, axes: tuple[str, str], window: boundary.Window, setting: str = "", frame: str = ""
) -> Figure:
    """Returns the picture of which runs converge, coloured by how fast each converges or diverges.

    Args:
      result: of a sweep over the two axes that recorded the training loss.
      axes: the horizontal and the vertical one.
      window: its edges.
      setting: the hyperparameters that no axis shows, in words, for the caption.
      frame: which of several pictures this is, in words.

    Raises:
      ValueError: as `boundary.picture`.
    """
    attrs = result.attrs
    title = (
        f"{attrs['dataset']}, {attrs['num_train']} training images averaged to {boundary.IMAGE_SIZE}x"
        f"{boundary.IMAGE_SIZE}, equal steps: {attrs['num_steps']}, {attrs['num_runs']:,} runs"
    )
    notes = ("tanh network, SGD, full batch, seed 0", setting)
    shown = boundary.AXES[axes[0]], boundary.AXES[axes[1]]
    return _draw(boundary.picture(result, axes), window, shown, f"{title}\n{frame}" if frame else title, notes)


def paper_figure(result: xr.Dataset, condition: str, window: boundary.Window, frame: str = "") -> Figure:
    """Returns the same picture of one of the paper's conditions.

    Args:
      result: of a sweep of `fractal.problem`.
      condition: one of `fractal.CONDITIONS`.
      window: its edges.
      frame: which of several pictures this is, in words.
    """
    attrs, setup = result.attrs, fractal.CONDITIONS[condition]
    title = f"{setup.words}, random data, equal steps: {attrs['num_steps']}, {attrs['num_runs']:,} runs"
    notes = ("network, weights and data of arXiv:2402.06184, float64", f"published dimension {setup.dimension}")
    shown = fractal.AXES[fractal.axes(condition)[0]], fractal.AXES[fractal.axes(condition)[1]]
    return _draw(fractal.picture(result, condition), window, shown, f"{title}\n{frame}" if frame else title, notes)


def _draw(
    measure: np.ndarray, window: boundary.Window, axes: tuple[boundary.Axis, boundary.Axis], title: str,
    notes: Sequence[str],
) -> Figure:  # fmt: skip
    """Returns a picture with its axes, its title and what its caption says besides the share that converges."""
    with house_style(), mpl.rc_context({"axes.spines.top": True, "axes.spines.right": True}):
        drawn = Figure(figsize=(7.2, 6.0), layout="constrained")
        places = drawn.add_gridspec(2, 2, width_ratios=(28, 1))
        main, upper, lower = (drawn.add_subplot(place) for place in (places[:, 0], places[0, 1], places[1, 1]))
        main.imshow(colors(measure), origin="lower", extent=window, aspect="auto", interpolation="nearest")
        for which, axis, (low, high) in (("x", axes[0], window[:2]), ("y", axes[1], window[2:])):
            _scale(main, which, axis, low, high)
        main.set_title(title, loc="left")
        _bar(upper, DIVERGED, measure[measure >= 0], "do not converge:\nsum of initial loss / loss")
        _bar(lower, CONVERGED, -measure[measure < 0], "converge:\nsum of loss / initial loss")
        share = 100 * (measure < 0).mean()
        write_caption(
            drawn,
            *notes,
            f"{share:.1f} % of the runs converge: "
            f"mean loss of the last {boundary.LAST_STEPS} steps below the initial one",
            "sums are over steps",
            "colours by rank, bars marked at quartiles",
        )
    return drawn


def _scale(axes: Axes, which: str, shown: boundary.Axis, low: float, high: float) -> None:
    """Gives an axis its label and ticks; those of a narrow window are distances from its centre."""
    drawn = getattr(axes, f"{which}axis")
    unit = ", log10" if shown.logarithmic else ""
    if high - low < MIN_WIDTH:
        centre = (low + high) / 2
        digits = max(int(np.ceil(-np.log10(high - low))) + 2, 0)
        middle = round(centre, digits)
        scale = 10.0 ** np.floor(np.log10((high - low) / 2))
        step = scale * (2 if (high - low) / scale > 8 else 1 if (high - low) / scale > 4 else 0.5)
        offsets = step * np.arange(np.ceil((low - middle) / step), np.floor((high - middle) / step) + 1)
        drawn.set_ticks(middle + offsets, [f"{round(offset / scale, 1):g}" for offset in offsets])
        unit = f"{unit}, distance from {middle:.{digits}f} in $10^{{{np.log10(scale):.0f}}}$"
    elif shown.logarithmic and high - low >= MIN_DECADES:
        decades = np.arange(np.ceil(low), np.floor(high) + 1)
        drawn.set_ticks(decades, [f"$10^{{{decade:.0f}}}$" for decade in decades])
        unit = ""
    axes.set(**{f"{which}label": f"{shown.words}{unit}", f"{which}lim": (low, high)})


def _bar(axes: Axes, colormap: Colormap, sums: np.ndarray, words: str) -> None:
    """Draws the colours of one half, with the sums at its quartiles; the slow ends of both halves meet."""
    bar = axes.figure.colorbar(mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colormap), cax=axes)
    bar.set_label(words, fontsize=9)
    places = SHARES if colormap is CONVERGED else [1 - share for share in SHARES]
    known = sums.size > 0
    bar.set_ticks(
        places, labels=[_short(value) for value in np.quantile(sums, SHARES)] if known else [""] * len(SHARES)
    )
    axes.tick_params(labelsize=8)


def _short(value: float) -> str:
    if 0.01 <= value < 1e4:
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    digits, power = f"{value:.0e}".split("e")
    return f"${digits} \\times 10^{{{int(power)}}}$"


def save_animation(frames: Sequence[str | os.PathLike], path: str | os.PathLike) -> None:
    """Writes PNG files as one GIF that repeats, atomically."""
    pictures = []
    for frame in frames:
        with Image.open(frame) as opened:
            pictures.append(opened.convert("RGB").quantize(256, dither=Image.Dither.NONE))
    options: dict = dict(save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0)
    write_atomically(Path(path), functools.partial(pictures[0].save, format="GIF", **options))

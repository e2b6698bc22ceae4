"""The dimension of the boundary of trainability (Sohl-Dickstein 2024, arXiv:2402.06184) under six conditions."""

import time
from pathlib import Path

import numpy as np

from jaxmnist.analysis.intervals import t_interval
from jaxmnist.studies import fractal
from jaxmnist.studies.boundary import boundary
from jaxmnist.studies.dimension import MIN_LOCAL_RESOLUTION, box_dimension, median_slope
from jaxmnist.studies.published import Row, Table

FULL_RESOLUTION, SHORT_RESOLUTION = 256, 64
FULL_PICTURES, SHORT_PICTURES = 5, 3


def fractal_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the dimensions of the six boundaries, by the paper's estimator and by least squares.

    Args:
      full: whether to draw pictures of 256 x 256 runs and zoom four times, in place of 64 x 64 and twice.
      folder: where the sweeps are saved and resumed from; None for nowhere.
      progress: whether to show bars.
    """
    resolution, pictures = (FULL_RESOLUTION, FULL_PICTURES) if full else (SHORT_RESOLUTION, SHORT_PICTURES)
    rows: list[Row] = []
    for name in fractal.CONDITIONS:
        begin = time.monotonic()
        place = None if folder is None else folder / name
        measures = fractal.zoom(name, resolution, pictures, folder=place, progress=progress)
        rows += dimension_rows(name, measures, time.monotonic() - begin)
    return Table(
        "The boundary of trainability, box-counting dimension",
        "Sohl-Dickstein 2024, arXiv:2402.06184",
        "network with one hidden layer of 16 units, gradient descent in float64, the weights and data of the notebook",
        f"{fractal.NUM_STEPS} steps; {pictures} pictures of {resolution} x {resolution} runs for each condition",
        "one network; intervals are over the pictures of a zoom",
        tuple(rows),
        (
            "The paper zooms by 2 from picture to picture, at 2,048 or more points an axis, into places chosen by eye; "
            f"we zoom by {resolution // 2} into a typical piece of the boundary, at {resolution}.",
            "The first row of each condition is the median of the local slopes over all pictures, as in the paper, and "
            "the second the mean over pictures of slopes by least squares, from boxes of 1 pixel on.",
            "The notebook adds the offset of the weights at every step, and so do we.",
            "Minibatches are drawn by another generator of random numbers.",
        ),
    )


def dimension_rows(condition: str, measures: list[np.ndarray], seconds: float) -> list[Row]:
    """Returns the rows of a condition, whose notes say what the same pictures give at fewer points.

    Args:
      condition: one of `fractal.CONDITIONS`.
      measures: the pictures of a zoom, `[N, N]` each.
      seconds: that they took.
    """
    setup, resolution = fractal.CONDITIONS[condition], len(measures[0])
    # Every second point, and every fourth.
    strides = [stride for stride in (4, 2) if resolution // stride >= 2 * MIN_LOCAL_RESOLUTION]
    kinds = {
        setup.words: (setup.dimension, lambda sets: median_slope([pixels[:-1, :-1] for pixels in sets])),
        f"{setup.words}, least squares": (None, least_squares),
    }
    rows = []
    for name, (theirs, estimate) in kinds.items():
        found = {stride: estimate(boundaries(measures, stride)) for stride in (*strides, 1)}
        coarser = [f"{found[stride].mean:.3f} at {resolution // stride}" for stride in strides]
        note = f"{', '.join(coarser)} points an axis" if coarser else ""
        rows.append(Row(name, "dimension", theirs, found[1], seconds if theirs else 0.0, note=note))
    return rows


def boundaries(measures: list[np.ndarray], stride: int) -> list[np.ndarray]:
    """Returns the pixels on the boundary in each picture that has one, of every `stride`-th point."""
    sets = [boundary(measure[::stride, ::stride]) for measure in measures]
    return [pixels for pixels in sets if pixels.any()]


def least_squares(sets):
    """Returns the mean of the dimensions of sets of pixels, by least squares, with its t interval over them."""
    found = t_interval([box_dimension(pixels).dimension for pixels in sets])
    return found._replace(kind=found.kind.replace("seed", "picture"))

"""The ruling of paper: straight lines from border to border, found and taken away from under the ink.

Shapes: H, W (height and width of a picture), C (its channels).
"""

import math
from typing import NamedTuple

import numpy as np

# The widest line, as a share of the root of the area, which leaves room for a pen that is broader.
MAX_WIDTH = 1 / 16
# Tangent of the largest tilt, 17 degrees, and how far one line's may be from the others', as perspective has it.
MAX_SLOPE, MAX_SPREAD = 0.3, 0.08
# In shares of the strongest contrast: what is fainter than this does no harm.
MIN_LINE = 0.1
# A line is seen on this share of the length that no broad stroke covers, and covered on at most the second.
SEEN, COVERED = 0.75, 0.6
# A line reaches the border: it is seen on half of this share of its length at either end.
END = 0.08
# In pixels; smaller pictures show no ruling.
MIN_SIDE = 28
# Ink on a line differs from the line alone by more than this factor.
DARKER = 1.3


class Line(NamedTuple):
    """A line `y = middle + slope * u + bend * u**2` where `u = x - W / 2`, of a width in pixels."""

    middle: float
    slope: float
    bend: float
    width: int


def without_ruling(contrast: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns the contrast of the ink alone, `[H, W]`; strokes are carried on over the lines that crossed them.

    The lines are those of ruled and graph paper and of margins: thin, straight, nearly horizontal or vertical, and as
    long as the paper.

    Args:
      contrast: `[H, W, C]` float, how far each pixel is from the paper.
      where: `[H, W]` bool, what belongs to the paper.
    """
    strength = contrast.max(axis=-1)
    if min(strength.shape) < MIN_SIDE:
        return strength
    noise = 2 * float(np.median(strength[where]))
    faintest = max(MIN_LINE * strength.max(), noise)
    rows = _lines(strength, where, faintest)
    columns = _lines(strength.T, where.T, faintest)
    if not rows and not columns:
        return strength
    across = _layer(contrast, where, rows)
    down = _layer(contrast.swapaxes(0, 1), where.T, columns).swapaxes(0, 1)
    expected = across + down - across * down
    is_line = (expected.max(axis=-1) > faintest / 2) & (contrast <= DARKER * expected + noise).all(axis=-1)
    # Light passes ink and line one after the other.
    density = np.clip((contrast - expected) / np.clip(1 - expected, 0.2, 1), 0, None).max(axis=-1)
    left = np.where(is_line, 0, density)
    bridged = np.maximum(_bridged(left, across, rows), _bridged(left.T, down.swapaxes(0, 1), columns).T)
    return np.where(is_line, bridged, left)


def _lines(strength: np.ndarray, where: np.ndarray, faintest: float) -> list[Line]:
    """Returns the lines that go from left to right, by a Hough transform of thin ridges."""
    from scipy import ndimage

    width = strength.shape[1]
    smooth = ndimage.gaussian_filter(strength, (0.5, 2))
    extent = max(3, round(math.sqrt(strength.size) * MAX_WIDTH))
    ridge = where & (smooth - ndimage.grey_opening(smooth, (extent, 1)) > faintest)
    covered = ~where | ((smooth > faintest) & ~ridge)
    slopes = np.arange(-MAX_SLOPE, MAX_SLOPE, 2 / width)
    seen = _votes(ridge, slopes)
    free = _lengths(ridge.shape, slopes) - _votes(covered, slopes)
    share = seen / np.maximum(free, 1)
    long = _lines_among(np.where(free > (1 - COVERED) * width, share, 0), slopes, ridge, covered, extent)
    if not long:
        return []
    usual = float(np.median([line.slope for line in long]))
    # Where the paper is tilted, lines cut the corners.
    is_possible = (np.abs(slopes - usual) <= MAX_SPREAD)[:, None] & (free >= 2 * extent)
    return _lines_among(np.where(is_possible, share, 0), slopes, ridge, covered, extent)


def _lines_among(
    share: np.ndarray, slopes: np.ndarray, ridge: np.ndarray, covered: np.ndarray, extent: int
) -> list[Line]:
    """Returns the lines that are seen on a large share `[slopes, middles]` of their length, the clearest first."""
    share = share.copy()
    outside = (share.shape[1] - len(ridge)) // 2
    lines = []
    while share.max() >= SEEN:
        index, middle = np.unravel_index(share.argmax(), share.shape)
        is_off = share[index] < SEEN / 2
        before, after = np.flatnonzero(is_off[:middle]), np.flatnonzero(is_off[middle:])
        first = before[-1] + 1 if len(before) else 0
        last = middle + after[0] - 1 if len(after) else len(is_off) - 1
        line = _fitted(Line((first + last) / 2 - outside, slopes[index], 0, last - first + 1), ridge)
        share[:, max(first - 2, 0) : last + 3] = 0
        if line.width <= extent and _reaches_both_ends(line, ridge, covered):
            lines.append(line)
    return lines


def _fitted(line: Line, ridge: np.ndarray) -> Line:
    """Returns the line that fits the ridge around this one best; paper and lenses bend long ones a little."""
    reach = line.width // 2 + 2
    y, x = _course(line, ridge.shape)
    offsets = np.arange(-reach, reach + 1)
    at = np.clip(y + offsets[:, None], 0, len(ridge) - 1)
    found = ridge[at, x]
    degree = 2 if len(x) > ridge.shape[1] / 2 else 1
    u = np.broadcast_to(x - ridge.shape[1] / 2, at.shape)[found]
    terms = np.stack([u**power for power in range(degree + 1)], axis=-1)
    middle, slope, bend = np.pad(np.linalg.lstsq(terms, at[found], rcond=None)[0], (0, 2 - degree))
    return Line(middle, slope, bend, line.width)


def _votes(mask: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Returns how many pixels of the mask lie on the line of each slope and each middle, `[slopes, middles]`."""
    height, width = mask.shape
    outside = math.ceil(MAX_SLOPE * width / 2)
    y, x = np.nonzero(mask)
    votes = np.empty((len(slopes), height + 2 * outside))
    for index, slope in enumerate(slopes):
        middles = np.rint(y - slope * (x - width / 2)).astype(int) + outside
        votes[index] = np.bincount(middles, minlength=votes.shape[1])
    return votes


def _lengths(shape: tuple[int, int], slopes: np.ndarray) -> np.ndarray:
    """Returns how many columns the line of each slope and each middle has in the picture, `[slopes, middles]`."""
    height, width = shape
    outside = math.ceil(MAX_SLOPE * width / 2)
    middles = np.arange(-outside, height + outside)
    courses = np.sort(slopes[:, None] * (np.arange(width) - width / 2), axis=1)
    return np.stack([each.searchsorted(height - 0.5 - middles) - each.searchsorted(-0.5 - middles) for each in courses])


def _course(line: Line, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and columns of the pixels of a line."""
    x = np.arange(shape[1])
    u = x - shape[1] / 2
    y = np.rint(line.middle + line.slope * u + line.bend * u**2).astype(int)
    inside = (y >= 0) & (y < shape[0])
    return y[inside], x[inside]


def _reaches_both_ends(line: Line, ridge: np.ndarray, covered: np.ndarray) -> bool:
    from scipy import ndimage

    y, x = _course(line, ridge.shape)
    seen = ndimage.maximum_filter1d(ridge, 3, axis=0)[y, x][~covered[y, x]]
    end = max(round(END * len(seen)), 1)
    return len(seen) > 0 and bool(min(seen[:end].mean(), seen[-end:].mean()) >= 0.5)


def _layer(contrast: np.ndarray, where: np.ndarray, lines: list[Line]) -> np.ndarray:
    """Returns the contrast that the lines alone would have, `[H, W, C]`: the median along each, at each distance."""
    from scipy import ndimage

    layer = np.zeros(contrast.shape)
    height = len(contrast)
    for line in lines:
        y, x = _course(line, where.shape)
        reach = line.width // 2 + 3
        for distance in range(-reach, reach + 1):
            at = y + distance
            inside = (at >= 0) & (at < height)
            at, along = at[inside], x[inside]
            on_paper = where[at, along]
            if on_paper.any():
                usual = np.median(contrast[at[on_paper], along[on_paper]], axis=0)
                layer[at, along] = np.maximum(layer[at, along], usual)
    # The course of a line is known to a pixel.
    return ndimage.maximum_filter1d(layer, 3, axis=0)


def _bridged(ink: np.ndarray, layer: np.ndarray, lines: list[Line]) -> np.ndarray:
    """Returns the ink `[H, W]` closed over gaps of a line's width, from above to below; 0 except on the lines."""
    from scipy import ndimage

    if not lines:
        return np.zeros(ink.shape)
    size = max(line.width for line in lines) + 7
    diagonal = np.eye(size, dtype=bool)
    closed = [
        ndimage.grey_closing(ink, footprint=each) for each in (np.ones((size, 1), bool), diagonal, diagonal[::-1])
    ]
    return np.where(layer.max(axis=-1) > 0, np.max(closed, axis=0), 0)

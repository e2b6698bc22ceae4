"""Several digits in one picture: which blots of ink belong together, and what is no row of digits.

Shapes: H, W (height and width of a picture).
"""

from typing import NamedTuple

import numpy as np

from jaxmnist.networks.ink import INK_THRESHOLD, blot_labels

# Blots that overlap by this share of the narrower one's width are parts of one digit, as the bar of a 5 and its bowl.
OVERLAP = 0.4
# In shares of the height of the tallest: a lower blot is a part of a digit, if one is as near as the second.
LOW, NEAR = 0.45, 0.25
# In pixels: what is lower cannot be told apart.
MIN_HEIGHT = 6
# Of 4,000 of MNIST's digits, 5 are wider than this, as a multiple of their height, and none has more holes than two,
# specks not counted.
MAX_WIDTH, MAX_HOLES, HOLE_SHARE = 1.6, 2, 0.02


class Blot(NamedTuple):
    """Connected ink, or what counts as such: its numbers among the labels, and its outermost rows and columns."""

    labels: tuple[int, ...]
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def separated(ink: np.ndarray, name: str) -> list[np.ndarray]:
    """Returns the ink of each digit alone, `[H, W]`, from left to right.

    Args:
      ink: `[H, W]` float in `[0, 1]`.
      name: of the picture, for messages.

    Raises:
      ValueError: the ink is not that of digits in one row.
    """
    from scipy import ndimage

    mask = ink > INK_THRESHOLD
    labels = blot_labels(mask)
    blots = [
        Blot((index + 1,), rows.start, rows.stop, columns.start, columns.stop)
        for index, (rows, columns) in enumerate(ndimage.find_objects(np.where(mask, labels, 0)))
    ]
    digits = _joined(blots, name)
    for digit in digits:
        _check_digit(digit, mask & np.isin(labels, digit.labels), name)
    return [np.where(np.isin(labels, digit.labels), ink, 0) for digit in digits]


def _joined(blots: list[Blot], name: str) -> list[Blot]:
    """Returns the blots of the digits of one row, from left to right."""
    tallest = max(blot.height for blot in blots)
    if tallest < MIN_HEIGHT:
        raise ValueError(f"{name} shows nothing but specks")
    digits: list[Blot] = []
    for blot in sorted(blots, key=lambda blot: -blot.height):
        found = [index for index, digit in enumerate(digits) if _overlap(blot, digit) > OVERLAP]
        if not found and blot.height < LOW * tallest:
            nearest = min(range(len(digits)), key=lambda index: _gap(blot, digits[index]))
            if _gap(blot, digits[nearest]) > NEAR * tallest:
                raise ValueError(f"{name} shows marks besides its digits; cut the picture to the digits")
            found = [nearest]
        if len(found) > 1:
            raise ValueError(f"{name} shows ink that joins several digits; leave a gap between them")
        if not found:
            digits.append(blot)
            continue
        digit = digits[found[0]]
        if blot.height >= LOW * tallest and (blot.top >= digit.bottom or blot.bottom <= digit.top):
            raise ValueError(f"{name} shows digits below each other; cut the picture to one row of them")
        digits[found[0]] = Blot(
            digit.labels + blot.labels, min(digit.top, blot.top), max(digit.bottom, blot.bottom),
            min(digit.left, blot.left), max(digit.right, blot.right),
        )  # fmt: skip
    return sorted(digits, key=lambda digit: digit.left + digit.right)


def _overlap(one: Blot, other: Blot) -> float:
    """Returns the share of the narrower blot's columns that both have."""
    return (min(one.right, other.right) - max(one.left, other.left)) / min(one.width, other.width)


def _gap(one: Blot, other: Blot) -> int:
    """Returns the larger of the horizontal and the vertical distance of two blots, in pixels."""
    across = max(one.left, other.left) - min(one.right, other.right)
    return max(across, max(one.top, other.top) - min(one.bottom, other.bottom))


def _check_digit(digit: Blot, mask: np.ndarray, name: str) -> None:
    """Raises ValueError if ink cannot be one digit."""
    from scipy import ndimage

    if digit.width > MAX_WIDTH * digit.height:
        raise ValueError(f"{name} shows digits that touch, or no digits; leave a gap between digits")
    background = ndimage.label(~np.pad(mask, 1))[0]
    areas = np.bincount(background[background > 0])
    if (areas > HOLE_SHARE * digit.width * digit.height).sum() > 1 + MAX_HOLES:
        raise ValueError(f"{name} shows lines that cannot be told from the ink; use a pen darker than the lines")

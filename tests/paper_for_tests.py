"""Pictures of handwritten digits on paper, as a camera would take them: made of MNIST's digits, never stored.

Shapes: H, W (height and width of a picture, in pixels); N (digits in a row).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

KINDS = ("blank", "ruled", "graph", "coloured", "margin", "shadow", "mixture")
PAPERS = ((1.0, 0.96, 0.66), (1.0, 0.8, 0.82), (0.8, 0.94, 0.78), (0.76, 0.88, 0.98), (0.8, 0.67, 0.5))
LINES = (
    (0.55, 0.72, 0.92),
    (0.7, 0.7, 0.72),
    (0.45, 0.55, 0.8),
    (0.55, 0.78, 0.62),
    (0.8, 0.85, 0.95),
    (0.5, 0.5, 0.5),
)
PENS = ((0.06, 0.06, 0.08), (0.1, 0.15, 0.5), (0.7, 0.1, 0.12), (0.08, 0.35, 0.2), (0.38, 0.38, 0.4))
WHITE, RED = (0.97, 0.97, 0.96), (0.9, 0.5, 0.52)


def thinned(mask: np.ndarray) -> np.ndarray:
    """Returns the skeleton of a mask `[H, W]` (Zhang and Suen 1984, https://doi.org/10.1145/357994.358023)."""
    mask, has_changed = np.pad(mask, 1), True
    while has_changed:
        has_changed = False
        for first in (True, False):
            around = [
                np.roll(mask, (-dy, -dx), (0, 1))
                for dy, dx in ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
            ]
            north, _, east, _, south, _, west, _ = around
            count = sum(each.astype(int) for each in around)
            turns = sum(~a & b for a, b in zip(around, [*around[1:], around[0]], strict=True))
            free = ~(north & east & south if first else north & east & west)
            free &= ~(east & south & west if first else north & south & west)
            gone = mask & (count >= 2) & (count <= 6) & (turns == 1) & free
            mask, has_changed = mask & ~gone, has_changed or bool(gone.any())
    return mask[1:-1, 1:-1]


def written(image: np.ndarray, height: int, random: np.random.Generator) -> np.ndarray:
    """Returns one digit `[H, W]` in `[0, 1]`, about `height` high: with MNIST's own pen, or with a thinner one."""
    factor = height / 20
    smooth = np.clip(ndimage.zoom(image.astype(np.float32) / 255, factor, order=3), 0, 1)
    if random.random() < 0.4:
        return np.clip((smooth - 0.4) * 4, 0, 1)
    coarse = thinned(ndimage.zoom(image.astype(np.float32) / 255, 4, order=3) > 0.45)
    line = ndimage.zoom(coarse.astype(np.float32), np.array(smooth.shape) / coarse.shape, order=1) > 0.3
    width = height * random.uniform(0.04, 0.09)
    return np.clip(width / 2 + 1 - ndimage.distance_transform_edt(~line), 0, 1)


def in_a_row(images: Sequence[np.ndarray], height: int, random: np.random.Generator) -> np.ndarray:
    """Returns the ink `[H, W]` of digits beside each other, with gaps of a tenth to a third of their height."""
    pieces = []
    for image in images:
        ink = written(image, height, random)
        columns = np.flatnonzero((ink > 0.1).any(axis=0))
        pieces += [ink[:, columns[0] : columns[-1] + 1], np.zeros((len(ink), int(height * random.uniform(0.12, 0.35))))]
    return np.concatenate(pieces[:-1], axis=1)


def ruling(shape: tuple[int, int], spacing: float, width: float, angle: float, offset: float) -> np.ndarray:
    """Returns parallel lines `[H, W]` in `[0, 1]`: `angle` is in degrees, the other lengths in pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    across = y * np.cos(np.radians(angle)) - x * np.sin(np.radians(angle)) + offset
    distance = np.abs((across + spacing / 2) % spacing - spacing / 2)
    return np.clip(width / 2 + 0.5 - distance, 0, 1)


def picture(images: Sequence[np.ndarray], kind: str, random: np.random.Generator) -> Image.Image:
    """Returns a picture of digits on one of the `KINDS` of paper; pen, tilt, light, blur and noise are random.

    Args:
      images: `[N]` of `[28, 28]` uint8, the digits of one row.
      kind: one of `KINDS`.
      random: decides everything else.
    """
    is_mixture = kind == "mixture"
    height = random.integers(110, 230)
    row = in_a_row(images, height, random)
    frame = (height * random.uniform(0.25, 0.7, (2, 2))).astype(int)
    ink = np.pad(row, frame)
    pen, shape = np.array(PENS[random.integers(len(PENS))]), ink.shape
    if pen.min() > 0.3:  # a pencil leaves grains of the paper white
        ink = ink * np.clip(random.normal(0.85, 0.15, shape), 0.4, 1)
    tilt = random.uniform(-6, 6)
    paper = np.ones((*shape, 3)) * (
        PAPERS[random.integers(len(PAPERS))] if kind == "coloured" or (is_mixture and random.random() < 0.5) else WHITE
    )
    line_colour, width = np.array(LINES[random.integers(len(LINES))]), max(height * random.uniform(0.01, 0.035), 1)
    grid = kind == "graph" or (is_mixture and random.random() < 0.5)
    if kind in ("ruled", "graph", "margin", "mixture"):
        spacing = height * (random.uniform(0.25, 0.6) if grid else random.uniform(0.5, 1.5))
        for angle in (tilt, tilt + 90)[: 1 + grid]:
            lines = ruling(shape, spacing, width, angle, random.uniform(0, spacing))
            paper *= 1 - lines[..., None] * (1 - line_colour)
    if kind == "margin" or (is_mixture and random.random() < 0.5):
        x = frame[1, 0] * random.uniform(0.2, 1.6)
        lines = ruling(shape, 10_000, width, tilt + 90, x * np.cos(np.radians(tilt)))
        paper *= 1 - lines[..., None] * (1 - np.array(RED))
    shades = paper * (1 - ink[..., None] * (1 - pen))
    if kind == "shadow" or (is_mixture and random.random() < 0.5):
        y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
        direction, soft = random.uniform(0, 2 * np.pi), random.uniform(0.15, 0.6)
        along = np.cos(direction) * x + np.sin(direction) * y - random.uniform(-0.5, 0.5)
        shades *= (1 - random.uniform(0.25, 0.5) / (1 + np.exp(-along / soft)))[..., None]
    shades = ndimage.gaussian_filter(shades, (*[random.uniform(0.3, 1.5)] * 2, 0))
    shades += random.normal(0, random.uniform(0.005, 0.03), shades.shape)
    return Image.fromarray((255 * np.clip(shades, 0, 1)).round().astype(np.uint8))

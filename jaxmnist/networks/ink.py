"""The ink in a picture of paper: the paper, its light and its ruling, dirt and the table around it are taken away.

Shapes: H, W (height and width of a picture), C (its channels).
"""

import math

import numpy as np

from jaxmnist.networks.ruling import without_ruling

# Ink is what stands out from the paper by more than this share of the picture's contrast.
INK_THRESHOLD = 0.3
MIN_CONTRAST = 0.08
# Neighbouring pixels have a mean of more than so many times what most of the paper has, or they are noise.
NOISE_FACTOR = 5
# Blots of less than this share of the digit's area are dirt; the separate bar of a 5 or a 7 is well above it.
DIRT_SHARE = 0.05
# "Ink" that covers this share of the picture and of its convex hull, which fills this share of a rectangle (no digit
# of 3,000 of MNIST's does all three), is a sheet on a table.
SHEET_AREA, SHEET_SOLIDITY, SHEET_RECTANGLE = 0.2, 0.6, 0.92
SHEET_SIDE = 14
# A blot along this share of the border is a shadow or the table's edge, if there is anything else.
BORDER_SHARE = 0.15


def ink_of(pixels: np.ndarray, name: str) -> np.ndarray:
    """Returns the ink alone, `[H, W]` float in `[0, 1]`: on the whole picture, or on a sheet that lies in it.

    Args:
      pixels: `[H, W, C]` float in `[0, 1]`.
      name: of the picture, for messages.

    Raises:
      ValueError: there is no contrast, no ink, or nothing but a sheet of paper on a table.
    """
    from scipy import ndimage

    whole = np.ones(pixels.shape[:2], bool)
    contrast = _contrast(pixels, whole)
    strongest = contrast.max()
    if not _stands_out(contrast.max(axis=-1), whole):
        raise ValueError(f"{name} shows nothing: all of it is of one shade")
    mask = _clean(contrast.max(axis=-1)) > INK_THRESHOLD
    if not _is_sheet(mask):
        return _written(contrast, whole, name)
    # Its outline is blurred or lies in its own shadow.
    sheet = ndimage.binary_erosion(ndimage.binary_fill_holes(mask), iterations=2 + int(math.sqrt(mask.size)) // 50)
    on_sheet = _contrast(pixels, sheet)
    # A bold digit looks like a sheet too, but like a blank one.
    if on_sheet.max() < max(MIN_CONTRAST, strongest / 4):
        return _clean(contrast.max(axis=-1))
    ink = _written(on_sheet, sheet, name)
    if _is_sheet(ink > INK_THRESHOLD):
        raise ValueError(f"{name} shows no digit that stands out from its paper; cut the picture to the paper")
    return ink


def _written(contrast: np.ndarray, where: np.ndarray, name: str) -> np.ndarray:
    """Returns the ink `[H, W]` without the ruling of the paper, given the contrast `[H, W, C]` of both."""
    ink = without_ruling(contrast, where)
    if not _stands_out(ink, where):
        raise ValueError(f"{name} shows nothing but the ruling of its paper")
    return _clean(ink)


def _stands_out(strength: np.ndarray, where: np.ndarray) -> bool:
    """Returns whether something in the contrast `[H, W]` is no noise of single pixels."""
    from scipy import ndimage

    faintest = max(MIN_CONTRAST, NOISE_FACTOR * np.quantile(strength[where], 0.25))
    return bool(ndimage.uniform_filter(strength, 3, mode="constant").max() >= faintest)


def _contrast(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns how far each pixel is from the paper in each channel, `[H, W, C]`; 0 outside `where`.

    The paper starts as the median of the outline of `where`, and then is the polynomial of first and second degree
    through what is close to it: light falls off over a photograph.
    """
    from scipy import ndimage

    if not where.any():
        return np.zeros(pixels.shape)
    outline = where & ~ndimage.binary_erosion(where)
    y, x = (np.linspace(-1, 1, extent) for extent in where.shape)
    y, x = np.broadcast_arrays(y[:, None], x)
    # A few ten thousand pixels decide six numbers well enough.
    some = (slice(None, None, 1 + int(math.sqrt(where.size)) // 200),) * 2
    terms = np.stack([np.ones(where.shape), y, x, y * y, y * x, x * x], axis=-1)
    background = np.median(pixels[outline], axis=0)
    contrast = np.where(where, np.abs(pixels - background).max(axis=-1), 0)
    for num_terms, share in ((3, 0.5), (3, 0.4), (6, 0.35), (6, 0.3)):
        paper = where & (contrast <= max(share * contrast.max(), MIN_CONTRAST / 4))
        sample = paper[some]
        coefficients = np.linalg.lstsq(terms[some][sample, :num_terms], pixels[some][sample], rcond=None)[0]
        background = terms[..., :num_terms] @ coefficients
        differences = np.where(where[..., None], np.abs(pixels - background), 0)
        contrast = differences.max(axis=-1)
    background = _with_shadows(background, pixels, where & (contrast <= max(0.3 * contrast.max(), MIN_CONTRAST)))
    differences = np.where(where[..., None], np.abs(pixels - background), 0)
    contrast = differences.max(axis=-1)
    light = background.mean(axis=-1)
    brightest = light[where].max()
    if brightest < MIN_CONTRAST or (pixels.mean(axis=-1) - light)[contrast >= 0.5 * contrast.max()].mean() > 0:
        return differences
    # Dark ink takes away a share of the light that falls on the paper.
    return differences * (brightest / np.clip(light, 0.2 * brightest, brightest))[..., None]


def _with_shadows(background: np.ndarray, pixels: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """Returns the background `[H, W, C]`, brought nearer to the paper that is seen around each pixel."""
    from scipy import ndimage

    size = 1 + int(math.sqrt(paper.size)) // 6
    weights = np.where(paper[..., None], 1.0, 0.0)
    sums = [np.concatenate([(pixels - background) * weights, weights], axis=-1)]
    for _ in range(2):
        sums.append(ndimage.uniform_filter(sums[-1], (size, size, 0), mode="constant"))
    # Where next to no paper is seen, within a bold stroke, the background stays as it is.
    return background + sums[-1][..., :-1] / (sums[-1][..., -1:] + 0.05)


def _clean(contrast: np.ndarray) -> np.ndarray:
    """Returns contrast `[H, W]` as ink in `[0, 1]`, without the paper's grain and without specks of dirt."""
    ink = np.clip((contrast / contrast.max() - INK_THRESHOLD / 2) / (1 - INK_THRESHOLD / 2), 0, 1)
    labels = blot_labels(ink > INK_THRESHOLD)
    areas = np.bincount(labels.ravel(), weights=(ink > INK_THRESHOLD).ravel())
    areas[0] = 0
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inner = np.bincount(border, minlength=len(areas)) < BORDER_SHARE * len(border)
    if (areas * inner).max() >= DIRT_SHARE * areas.max():
        areas = areas * inner
    return np.where((areas >= DIRT_SHARE * areas.max())[labels] & (labels > 0), ink, 0)


def blot_labels(mask: np.ndarray) -> np.ndarray:
    """Returns the number of the blot that each pixel belongs to, `[H, W]` int, from 1; 0 is far from all ink.

    Pieces of one broken stroke lie close together, and count as one.
    """
    from scipy import ndimage

    near = ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=1 + int(math.sqrt(mask.size)) // 100)
    return ndimage.label(near, np.ones((3, 3), bool))[0]


def _is_sheet(mask: np.ndarray) -> bool:
    """Returns whether the ink `[H, W]` is a large rectangle in any direction, as no pen leaves."""
    from scipy.spatial import ConvexHull

    if mask.mean() < SHEET_AREA or min(mask.shape) < SHEET_SIDE:
        return False
    hull = ConvexHull(np.argwhere(mask))
    angles = np.radians(np.arange(0, 180, 3))
    extents = np.ptp(hull.points[hull.vertices] @ np.stack([np.sin(angles), np.cos(angles)]), axis=0)
    rectangle = (extents * np.roll(extents, len(angles) // 2)).min()
    return bool(mask.sum() > SHEET_SOLIDITY * hull.volume and hull.volume > SHEET_RECTANGLE * rectangle)

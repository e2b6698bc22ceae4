"""A person's own pictures, brought to the form of MNIST's: white on black, in a box of 20, centred by mass in 28.

Shapes: H, W (height and width of a picture), C (its channels).
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.checks import PATH, checked_by

SIZE = 28
BOX = 20
MAX_PIXELS = 50_000_000
# Not all that pillow reads: its EPS reader starts another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000")
# Larger pictures are averaged down to this side: 12 times MNIST's, enough for a digit that fills a tenth of the area.
WORKING_SIDE = 360
# Ink is what stands out from the paper by more than this share of the picture's contrast.
INK_THRESHOLD = 0.3
MIN_CONTRAST = 0.08
# Blots of less than this share of the digit's area are dirt; the separate bar of a 5 or a 7 is well above it.
DIRT_SHARE = 0.05
# "Ink" that covers this share of the picture and of its convex hull, which fills this share of a rectangle (no digit
# of 3,000 of MNIST's does all three), is a sheet on a table.
SHEET_AREA, SHEET_SOLIDITY, SHEET_RECTANGLE = 0.2, 0.6, 0.92
# A blot along this share of the border is a shadow or the table's edge, if there is anything else.
BORDER_SHARE = 0.15
# In pixels of the finished image: strokes below the first are made as wide as the second, MNIST's usual pen.
MIN_STROKE, STROKE = 1.3, 2.4
# A picture of two colours that change more often than this from one pixel to the next is dithered.
DOTS = 0.02


@checked_by(path=PATH)
def read_digit(path: str | Path) -> np.ndarray:
    """Returns one digit as the network expects it: `[28, 28]` uint8, light on dark.

    Any size, colour or grey, 1 to 32 bits, dark on light or light on dark: the border tells which is the paper. Uneven
    light, specks of dirt, transparency and a table around the sheet are allowed for. As in MNIST, the ink is scaled,
    keeping its proportions, to fit a box of 20 pixels, and its centre of mass is put in the middle
    (LeCun et al. 1998, section III.A).

    Args:
      path: of a picture, such as a PNG, JPEG, WebP, GIF, BMP or TIFF file.

    Raises:
      ValueError: the file is no picture, is larger than 50 million pixels, or shows nothing.
    """
    return centre(_read(Path(path)), str(path))


def centre(pixels: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Returns `[28, 28]` uint8 as `read_digit` does, from `[H, W]` or `[H, W, C]` float in `[0, 1]`.

    Raises:
      ValueError: there is no contrast, or nothing but a sheet of paper on a table.
    """
    from PIL import Image

    ink = _pen(_digit(pixels.reshape(*pixels.shape[:2], -1), name))
    rows, columns = (np.flatnonzero((ink > INK_THRESHOLD).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(round(extent * scale), 1) for extent in cut.shape)
    picture = Image.fromarray((255 * cut).astype(np.uint8))
    resampled = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    resampled = resampled * (255 / resampled.max())
    mass = resampled.sum()
    y = round((SIZE - 1) / 2 - (resampled.sum(axis=1) @ np.arange(height)) / mass)
    x = round((SIZE - 1) / 2 - (resampled.sum(axis=0) @ np.arange(width)) / mass)
    # A lopsided digit's centre of mass may ask for more room than there is on one side.
    y, x = int(np.clip(y, 0, SIZE - height)), int(np.clip(x, 0, SIZE - width))
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[y : y + height, x : x + width] = resampled.round().astype(np.uint8)
    return image


def _read(path: Path) -> np.ndarray:
    """Returns a picture as `[H, W, C]` float32 in `[0, 1]`, its longer side at most about `WORKING_SIDE`."""
    from PIL import Image, ImageOps
    from scipy import ndimage

    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")  # reading from a pipe could take for ever
    try:
        with warnings.catch_warnings():
            # Sizes are judged here, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as opened:
                width, height = opened.size
                if allowed := width * height <= MAX_PIXELS:
                    picture = _eight_bits(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has too many pixels; {MAX_PIXELS} are allowed: {error}") from None
    except Exception as error:  # Of a broken file, pillow's decoders raise whatever their parsing ran into.
        raise ValueError(
            f"{path} is no picture that can be read: {str(error).strip() or type(error).__name__}"
        ) from None
    if not allowed:
        raise ValueError(f"{path} has {width} x {height} pixels; {MAX_PIXELS} are allowed")
    # Dithering: many dots of two colours, whose local density is the shade.
    dotted = picture.getcolors(2) and np.mean(np.diff(np.asarray(picture.convert("L"))) != 0) > DOTS
    pixels = _flat(picture.reduce(math.ceil(max(picture.size) / WORKING_SIDE)))
    sigma = max(pixels.shape) / 120
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0)) if dotted else pixels


def _eight_bits(picture: Any) -> Any:
    """Returns a pillow image as RGBA; greys of more than 8 bits have no agreed white, so their own range is used."""
    from PIL import Image

    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture.convert("RGBA")
    values = np.asarray(picture, np.float64)
    finite = np.isfinite(values)
    low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
    shades = np.where(finite, (values - low) / (high - low), 0) if high > low else np.zeros(values.shape)
    return Image.fromarray((255 * shades).astype(np.uint8)).convert("RGBA")


def _flat(picture: Any) -> np.ndarray:
    """Returns an RGBA image as `[H, W, C]` float32: put on white, or its alpha if what it shows has but one colour."""
    from PIL import Image

    alpha = np.asarray(picture.getchannel("A"), np.float32) / 255
    opaque = np.asarray(picture.convert("RGB"), np.float32)[alpha > 0.5] / 255
    if len(opaque) and np.ptp(alpha) > MIN_CONTRAST and np.ptp(opaque, axis=0).max() < MIN_CONTRAST:
        return alpha[..., None]
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"), np.float32) / 255


def _digit(pixels: np.ndarray, name: str) -> np.ndarray:
    """Returns the ink of the digit alone, `[H, W]` in `[0, 1]`: on the whole picture or on a sheet that lies in it."""
    from scipy import ndimage

    whole = np.ones(pixels.shape[:2], bool)
    contrast = _contrast(pixels, whole)
    if contrast.max() < MIN_CONTRAST:
        raise ValueError(f"{name} shows nothing: all of it is of one shade")
    ink = _clean(contrast)
    if not _is_sheet(ink > INK_THRESHOLD):
        return ink
    sheet = ndimage.binary_fill_holes(ink > INK_THRESHOLD)
    # Its outline is blurred or lies in its own shadow.
    sheet = ndimage.binary_erosion(sheet, iterations=2 + max(pixels.shape) // 50)
    on_sheet = _contrast(pixels, sheet)
    # A bold digit looks like a sheet too, but like a blank one.
    if on_sheet.max() < max(MIN_CONTRAST, contrast.max() / 4):
        return ink
    ink = _clean(on_sheet)
    if _is_sheet(ink > INK_THRESHOLD):
        raise ValueError(f"{name} shows no digit that stands out from its paper; cut the picture to the paper")
    return ink


def _contrast(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns how far each pixel is from the paper, `[H, W]`: in the channel that differs most, 0 outside `where`.

    The paper starts as the median of the outline of `where`, and then is the polynomial of first and second degree
    through what is close to it: light falls off over a photograph.
    """
    from scipy import ndimage

    if not where.any():
        return np.zeros(where.shape)
    outline = where & ~ndimage.binary_erosion(where)
    y, x = (np.linspace(-1, 1, extent) for extent in where.shape)
    y, x = np.broadcast_arrays(y[:, None], x)
    terms = np.stack([np.ones(where.shape), y, x, y * y, y * x, x * x], axis=-1)
    background = np.median(pixels[outline], axis=0)
    contrast = np.where(where, np.abs(pixels - background).max(axis=-1), 0)
    for num_terms, share in ((3, 0.5), (3, 0.4), (6, 0.35), (6, 0.3)):
        paper = where & (contrast <= max(share * contrast.max(), MIN_CONTRAST / 4))
        coefficients = np.linalg.lstsq(terms[paper, :num_terms], pixels[paper], rcond=None)[0]
        background = terms[..., :num_terms] @ coefficients
        contrast = np.where(where, np.abs(pixels - background).max(axis=-1), 0)
    light = background.mean(axis=-1)
    brightest = light[where].max()
    if brightest < MIN_CONTRAST or (pixels.mean(axis=-1) - light)[contrast >= 0.5 * contrast.max()].mean() > 0:
        return contrast
    # Dark ink takes away a share of the light that falls on the paper.
    return contrast * brightest / np.clip(light, 0.2 * brightest, brightest)


def _clean(contrast: np.ndarray) -> np.ndarray:
    """Returns contrast `[H, W]` as ink in `[0, 1]`, without the paper's grain and without specks of dirt."""
    from scipy import ndimage

    ink = np.clip((contrast / contrast.max() - INK_THRESHOLD / 2) / (1 - INK_THRESHOLD / 2), 0, 1)
    # Pieces of one broken stroke lie close together, and count as one.
    near = ndimage.binary_dilation(ink > INK_THRESHOLD, np.ones((3, 3), bool), iterations=1 + max(ink.shape) // 100)
    labels, num_blots = ndimage.label(near, np.ones((3, 3), bool))
    areas = ndimage.sum_labels(ink > INK_THRESHOLD, labels, np.arange(num_blots + 1))
    areas[0] = 0
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inner = np.bincount(border, minlength=num_blots + 1) < BORDER_SHARE * len(border)
    if (areas * inner).max() >= DIRT_SHARE * areas.max():
        areas = areas * inner
    return np.where((areas >= DIRT_SHARE * areas.max())[labels] & near, ink, 0)


def _is_sheet(mask: np.ndarray) -> bool:
    """Returns whether the ink `[H, W]` is a large rectangle in any direction, as no pen leaves."""
    from scipy.spatial import ConvexHull

    if mask.mean() < SHEET_AREA or min(mask.shape) < SIZE // 2:
        return False
    hull = ConvexHull(np.argwhere(mask))
    angles = np.radians(np.arange(0, 180, 3))
    extents = np.ptp(hull.points[hull.vertices] @ np.stack([np.sin(angles), np.cos(angles)]), axis=0)
    rectangle = (extents * np.roll(extents, len(angles) // 2)).min()
    return bool(mask.sum() > SHEET_SOLIDITY * hull.volume and hull.volume > SHEET_RECTANGLE * rectangle)


def _pen(ink: np.ndarray) -> np.ndarray:
    """Returns ink `[H, W]` with strokes that would vanish in 28 x 28 drawn with a broader pen."""
    from scipy import ndimage

    mask = ink > INK_THRESHOLD
    scale = BOX / max(np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1))
    # Depths in a stroke run evenly from 0 to half its width.
    width = 4 * (ndimage.distance_transform_edt(mask)[mask].mean() - 0.5)
    if scale * width >= MIN_STROKE:
        return ink
    radius = (STROKE / scale - width) / 2
    ink = np.pad(ink, math.ceil(radius))
    return np.maximum(ink, np.clip(radius + 1 - ndimage.distance_transform_edt(ink <= INK_THRESHOLD), 0, 1))

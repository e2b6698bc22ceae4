"""A person's own pictures, brought to the form of MNIST's: white on black, in a box of 20, centred by mass in 28.

Shapes: H, W (height and width of a picture), C (its channels).
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jaxmnist.checks import PATH, checked_by
from jaxmnist.networks.digits import separated
from jaxmnist.networks.ink import INK_THRESHOLD, MIN_CONTRAST, ink_of

SIZE = 28
BOX = 20
MAX_PIXELS = 50_000_000
# Not all that pillow reads: its EPS reader starts another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "HEIF")
# Pictures of more than this area are averaged down to it: 17 times MNIST's side, enough to tell lines from a pen.
WORKING_SIDE = 480
# No longer side is more than so many times that: of long strips, a row of digits is the longest that is useful.
MAX_STRETCH = 4
# What the files of phones begin with, after four bytes (ISO/IEC 23008-12, annex B).
HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftypmsf1")
# In pixels of the finished image: strokes below the first are made as wide as the second, MNIST's usual pen.
MIN_STROKE, STROKE = 1.3, 2.4
# A picture of two colours that change more often than this from one pixel to the next is dithered.
DOTS = 0.02


@checked_by(path=PATH)
def read_digits(path: str | Path) -> np.ndarray:
    """Returns the digits of a picture, from left to right, as the network expects them: `[N, 28, 28]` uint8.

    The digits are light on dark. The picture may have any size, in colour or grey, of 1 to 32 bits, dark on light or
    light on dark: the border tells which is the paper. Ruled, graph and coloured paper, margins, uneven light, specks
    of dirt, transparency and a table around the sheet are allowed for. As in MNIST, the ink of each digit is scaled,
    keeping its proportions, to fit a box of 20 pixels, and its centre of mass is put in the middle (LeCun et al. 1998,
    section III.A). Digits that touch are taken for one, unless the two are much wider than high.

    Args:
      path: of a picture, such as a PNG, JPEG, WebP, GIF, BMP or TIFF file, or, if the package pillow-heif is installed,
        a HEIC file.

    Raises:
      ValueError: the file is no picture, is larger than 50 million pixels, or does not show digits in one row, with
        gaps between them.
    """
    return centred_digits(_read(Path(path)), str(path))


@checked_by(path=PATH)
def read_digit(path: str | Path) -> np.ndarray:
    """Returns the only digit of a picture, `[28, 28]` uint8, as `read_digits` does.

    Args:
      path: of a picture, as for `read_digits`.

    Raises:
      ValueError: the file is not as described above, or shows several digits.
    """
    digits = centred_digits(_read(Path(path)), str(path))
    if len(digits) > 1:
        raise ValueError(f"{path} shows {len(digits)} digits; read_digits reads several")
    return digits[0]


def centred_digits(pixels: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Returns `[N, 28, 28]` uint8 as `read_digits` does, from `[H, W]` or `[H, W, C]` float in `[0, 1]`.

    Raises:
      ValueError: there is no contrast, or what is there is no row of digits.
    """
    ink = ink_of(pixels.reshape(*pixels.shape[:2], -1), name)
    return np.stack([_centred(_pen(digit)) for digit in separated(ink, name)])


def _centred(ink: np.ndarray) -> np.ndarray:
    """Returns the ink of one digit, `[H, W]` in `[0, 1]`, as `[28, 28]` uint8."""
    from PIL import Image

    rows, columns = (np.flatnonzero((ink > INK_THRESHOLD).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(round(extent * scale), 1) for extent in cut.shape)
    picture = Image.fromarray((255 * cut).astype(np.uint8))
    resampled = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    resampled = (resampled * (255 / resampled.max())).round().astype(np.uint8)
    # In whole numbers, so that the middle of a symmetric digit is rounded in the same way on every machine.
    mass = resampled.sum(dtype=int)
    y = round((SIZE - 1) / 2 - (resampled.sum(axis=1, dtype=int) @ np.arange(height)) / mass)
    x = round((SIZE - 1) / 2 - (resampled.sum(axis=0, dtype=int) @ np.arange(width)) / mass)
    # A lopsided digit's centre of mass may ask for more room than there is on one side.
    y, x = int(np.clip(y, 0, SIZE - height)), int(np.clip(x, 0, SIZE - width))
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[y : y + height, x : x + width] = resampled
    return image


def _read(path: Path) -> np.ndarray:
    """Returns a picture as `[H, W, C]` float32 in `[0, 1]`, of an area of at most `WORKING_SIDE**2`."""
    from PIL import Image, ImageOps, UnidentifiedImageError
    from scipy import ndimage

    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")  # reading from a pipe could take for ever
    try:
        with warnings.catch_warnings():
            # Sizes are judged here, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            has_heif = _add_heif()
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as opened:
                width, height = opened.size
                if allowed := width * height <= MAX_PIXELS:
                    picture = _eight_bits(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has too many pixels; {MAX_PIXELS} are allowed: {error}") from None
    except UnidentifiedImageError:
        if not has_heif and _is_heic(path):
            raise ValueError(
                f"{path} is a HEIC file, which needs the package pillow-heif; "
                "install it with `pip install 'jaxmnist[heic]'`, or convert the file to JPEG or PNG"
            ) from None
        raise ValueError(f"{path} is no picture that can be read; {', '.join(FORMATS)} are") from None
    except Exception as error:  # Of a broken file, pillow's decoders raise whatever their parsing ran into.
        raise ValueError(
            f"{path} is no picture that can be read: {str(error).strip() or type(error).__name__}"
        ) from None
    if not allowed:
        raise ValueError(f"{path} has {width} x {height} pixels; {MAX_PIXELS} are allowed")
    # Dithering: many dots of two colours, whose local density is the shade.
    dotted = picture.getcolors(2) and np.mean(np.diff(np.asarray(picture.convert("L"))) != 0) > DOTS
    side = max(math.sqrt(width * height), max(width, height) / MAX_STRETCH)
    pixels = _flat(picture.reduce(math.ceil(side / WORKING_SIDE)))
    sigma = math.sqrt(pixels[..., 0].size) / 120
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0)) if dotted else pixels


def _add_heif() -> bool:
    """Returns whether the plugin for HEIC files is installed, which pillow is told of."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[4:] in HEIC_BRANDS


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

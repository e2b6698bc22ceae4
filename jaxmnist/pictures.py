"""A person's own pictures, brought to the form of MNIST's: white on black, in a box of 20, centred by mass in 28."""

from pathlib import Path

import numpy as np

SIZE = 28
BOX = 20
MAX_PIXELS = 50_000_000
# Ink is what stands out from the paper by more than this share of the picture's contrast.
INK_THRESHOLD = 0.3
MIN_CONTRAST = 0.08


def read_digit(path: str | Path) -> np.ndarray:
    """Returns one digit as the network expects it: `[28, 28]` uint8, light on dark.

    Any size, colour or grey, dark on light or light on dark: the border tells which is the paper. As in MNIST, the ink
    is scaled, keeping its proportions, to fit a box of 20 pixels, and its centre of mass is put in the middle
    (LeCun et al. 1998, section III.A).

    Args:
      path: of a picture in a format that pillow reads.

    Raises:
      ValueError: the file is no picture, is larger than 50 million pixels, or shows nothing.
    """
    return centre(_read_grey(Path(path)), str(path))


def _read_grey(path: Path) -> np.ndarray:
    """Returns a picture as `[height, width]` float in `[0, 1]`; transparent pixels are white."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{path} has {opened.width} x {opened.height} pixels; {MAX_PIXELS} are allowed")
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except FileNotFoundError:
        raise ValueError(f"{path} is not there") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no picture that can be read: {error}") from None
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("L"), np.float32) / 255


def centre(grey: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Returns `[28, 28]` uint8 as `read_digit` does, from `[height, width]` float in `[0, 1]`.

    Raises:
      ValueError: there is no contrast.
    """
    from PIL import Image

    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    if ink.max() < MIN_CONTRAST:
        raise ValueError(f"{name} shows nothing: all of it is of one shade")
    ink = np.clip((ink / ink.max() - INK_THRESHOLD / 2) / (1 - INK_THRESHOLD / 2), 0, 1)
    rows, columns = (np.flatnonzero((ink > INK_THRESHOLD).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(round(extent * scale), 1) for extent in cut.shape)
    picture = Image.fromarray((255 * cut).astype(np.uint8))
    resampled = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    mass = resampled.sum()
    y = round((SIZE - 1) / 2 - (resampled.sum(axis=1) @ np.arange(height)) / mass)
    x = round((SIZE - 1) / 2 - (resampled.sum(axis=0) @ np.arange(width)) / mass)
    # A lopsided digit's centre of mass may ask for more room than there is on one side.
    y, x = int(np.clip(y, 0, SIZE - height)), int(np.clip(x, 0, SIZE - width))
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[y : y + height, x : x + width] = resampled.round().astype(np.uint8)
    return image

import numpy as np
import pytest
from PIL import Image

import jaxmnist as jm
from jaxmnist.pictures import centre


def drawn(height=200, width=300):
    """A bar twice as high as wide, away from the middle: light on dark, in [0, 1]."""
    grey = np.zeros((height, width), np.float32)
    grey[20:100, 30:70] = 1
    return grey


def test_ink_fills_the_box_and_its_centre_of_mass_is_the_middle():
    image = centre(drawn())
    assert image.shape == (28, 28) and image.dtype == np.uint8
    rows, columns = np.nonzero(image > 100)
    assert np.ptp(rows) + 1 == 20 and np.ptp(columns) + 1 == 10
    mass = image.astype(float)
    assert abs(mass.sum(1) @ np.arange(28) / mass.sum() - 13.5) <= 0.5
    assert abs(mass.sum(0) @ np.arange(28) / mass.sum() - 13.5) <= 0.5


def test_dark_on_light_colour_and_another_size_give_the_same(tmp_path):
    expected = centre(drawn())
    ink = drawn()
    paper, pen = np.array([250, 240, 200]), np.array([20, 10, 90])
    colour = (paper + (pen - paper) * ink[..., None]).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray((255 * ink).astype(np.uint8)).resize((900, 600)).save(tmp_path / "large.png")
    transparent = np.zeros((*ink.shape, 4), np.uint8)
    transparent[..., 3] = 255 * ink
    Image.fromarray(transparent).save(tmp_path / "transparent.png")
    for name in ("colour", "large", "transparent"):
        image = jm.read_digit(tmp_path / f"{name}.png")
        assert np.abs(image.astype(int) - expected).mean() < 3, name


def test_a_lopsided_digit_stays_whole():
    grey = np.zeros((60, 60), np.float32)
    grey[10:50, 10:12] = 0.4
    grey[45:50, 10:50] = 1
    image = centre(grey)
    assert np.ptp(np.nonzero(image > 60)[1]) + 1 >= 19


def test_what_is_no_picture_is_one_sentence(tmp_path):
    (tmp_path / "no.png").write_text("hello")
    Image.new("L", (9, 9), 7).save(tmp_path / "flat.png")
    for name, words in (("no", "no picture"), ("flat", "shows nothing"), ("nowhere", "is not there")):
        with pytest.raises(ValueError, match=words):
            jm.read_digit(tmp_path / f"{name}.png")


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    Image.new("1", (20_000, 3_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="20000 x 3000 pixels"):
        jm.read_digit(tmp_path / "huge.png")

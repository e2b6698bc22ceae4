import functools
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

import jaxmnist as jm
from jaxmnist.networks.pictures import centred_digits


def centre(pixels):
    (digit,) = centred_digits(pixels)
    return digit


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
    grey[10:50, 10:12] = 0.5
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


@functools.cache
def three(size=280, pen=26):
    """A "3" of two arcs, away from the middle, `[size, size]` in [0, 1]; `pen` is its width at size 280."""
    picture = Image.new("L", (4 * size, 4 * size))
    draw = ImageDraw.Draw(picture)
    unit, width = 4 * size / 280, max(round(4 * size / 280 * pen), 1)
    for top, bottom, start, end in ((63, 122, 200, 90), (122, 217, 270, 160)):
        # Pillow draws an arc inwards from its box; these are around the same line for every pen.
        box = (83 - pen / 2, top - pen / 2, 177 + pen / 2, bottom + pen / 2)
        draw.arc([unit * side for side in box], start, end, fill=255, width=width)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def eight_bits(shades):
    return Image.fromarray((255 * np.clip(shades, 0, 1)).round().astype(np.uint8))


def coloured(ink, pen, paper):
    return Image.fromarray((ink[..., None] * pen + (1 - ink[..., None]) * np.array(paper)).astype(np.uint8))


def with_specks(ink):
    page = 1 - ink
    page[3:7, 3:7] = page[-9:-5, -6:-2] = 0
    return eight_bits(page)


def white_ink(ink):
    pixels = np.full((*ink.shape, 4), 255, np.uint8)
    pixels[..., 3] = 255 * ink
    return Image.fromarray(pixels)


def in_falling_light(ink, loss, radial=False):
    y, x = np.mgrid[0 : 1 : ink.shape[0] * 1j, 0 : 1 : ink.shape[1] * 1j]
    light = 1 - loss * (((x - 0.4) ** 2 + (y - 0.4) ** 2) / 0.72 if radial else (x + y) / 2)
    return eight_bits(light * (0.95 - 0.85 * ink) + np.random.default_rng(0).normal(0, 0.02, ink.shape))


def on_a_table(ink, angle, table=0.35, pen=0.1):
    upright = eight_bits(0.95 - (0.95 - pen) * ink)
    sheet = upright.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    picture = Image.new("L", (420, 400), round(255 * table))
    picture.paste(sheet, (20, 20), Image.new("L", upright.size, 255).rotate(angle, expand=True))
    return picture


def beside_the_table(ink):
    return eight_bits(np.pad(1 - ink, ((0, 0), (60, 0)), constant_values=0.4))


def not_finite(ink):
    shades = -3 * ink
    shades[0, 0], shades[1, 1] = np.nan, np.inf
    return Image.fromarray(shades)


@pytest.mark.parametrize(
    ("picture", "suffix"),
    [
        pytest.param(eight_bits(three()), "png", id="light on dark"),
        pytest.param(Image.fromarray((65535 * (1 - three())).astype(np.uint16)), "png", id="16 bits"),
        pytest.param(Image.fromarray((9000 - 3000 * three()).astype(np.uint16)), "png", id="12 of 16 bits"),
        pytest.param(Image.fromarray((1e6 * (1 - three())).astype(np.int32)), "tiff", id="32 bits"),
        pytest.param(Image.fromarray(1 - three()), "tiff", id="float"),
        pytest.param(not_finite(three()), "tiff", id="float, not all finite"),
        pytest.param(white_ink(three()), "png", id="white ink on nothing"),
        pytest.param(coloured(three(), [255, 0, 0], [0, 130, 0]), "png", id="red on green of the same luminance"),
        pytest.param(with_specks(three(112)), "png", id="specks"),
        pytest.param(in_falling_light(three(), 0.35), "jpg", id="light falls by 35 %", marks=pytest.mark.slow),
        pytest.param(in_falling_light(three(), 0.55), "jpg", id="light falls by 55 %"),
        pytest.param(in_falling_light(three(), 0.55, radial=True), "jpg", id="light falls around a lamp"),
        pytest.param(on_a_table(three(), 0), "jpg", id="table"),
        pytest.param(on_a_table(three(), 8, table=0.1), "jpg", id="dark table", marks=pytest.mark.slow),
        pytest.param(on_a_table(three(), 8, pen=0.6), "jpg", id="table and pencil", marks=pytest.mark.slow),
        pytest.param(beside_the_table(three()), "png", id="edge of the table"),
        pytest.param(eight_bits(1 - three(3000, pen=1.1)), "png", id="thin pen, large picture"),
        pytest.param(eight_bits(1 - three()).convert("1"), "png", id="1 bit"),
        pytest.param(eight_bits(0.8 - 0.6 * three()).convert("1"), "png", id="dithered"),
        pytest.param(
            eight_bits(0.8 - 0.6 * three(112)).convert("1"), "png", id="dithered, small", marks=pytest.mark.slow
        ),
        pytest.param(
            eight_bits(0.25 + 0.5 * three(900)).convert("1"),
            "png",
            id="dithered, large, light on dark",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_three_is_the_same_however_it_was_pictured(picture, suffix, tmp_path):
    eight_bits(1 - three()).save(tmp_path / "plain.png")
    picture.save(tmp_path / f"hard.{suffix}")
    expected = jm.read_digit(tmp_path / "plain.png")
    image = jm.read_digit(tmp_path / f"hard.{suffix}")
    assert image.max() == 255
    assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.8


def test_a_thin_pen_is_broadened_to_the_usual_one():
    image = centre(three(3000, pen=1.1)[::5, ::5])
    assert (image > 200).sum() > 60 and np.ptp(np.nonzero(image > 100)[0]) + 1 == 20


def test_a_bold_digit_is_no_sheet_of_paper():
    picture = Image.new("L", (100, 120))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([10, 10, 90, 110], fill=255)
    draw.ellipse([38, 40, 62, 80], fill=0)
    zero = centre(np.asarray(picture) / 255)
    assert zero[14, 14] < 50 and zero[14, 8] > 200 and zero[14, 19] > 200
    one = np.zeros((120, 100))
    one[10:110, 30:70] = 1
    assert (centre(one) > 200).sum() >= 18 * 6


def test_refusals_name_the_file_and_come_without_warnings(tmp_path):
    (tmp_path / "broken.ppm").write_bytes(b"P6\n# no size\nx y\n255\n")
    (tmp_path / "short.ppm").write_bytes(b"P3 2 2 255 1 2 3 999")
    Image.new("1", (9_500, 10_000)).save(tmp_path / "large.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    Image.fromarray(np.full((20, 20), 700, np.uint16)).save(tmp_path / "flat.png")
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(tmp_path / "nothing.tiff")
    Image.new("RGBA", (20, 20), (255, 255, 255, 0)).save(tmp_path / "transparent.png")
    for name, words in (
        ("broken.ppm", "no picture that can be read"),
        ("short.ppm", "no picture that can be read"),
        ("large.png", "9500 x 10000 pixels; 50000000 are allowed"),
        ("bomb.png", "too many pixels; 50000000 are allowed"),
        ("flat.png", "shows nothing"),
        ("nothing.tiff", "shows nothing"),
        ("transparent.png", "shows nothing"),
    ):
        with warnings.catch_warnings(record=True) as seen, pytest.raises(ValueError, match=words) as refusal:
            warnings.simplefilter("always")
            jm.read_digit(tmp_path / name)
        assert not seen and str(refusal.value).startswith(str(tmp_path / name)), name


def test_a_sheet_within_a_sheet_is_refused():
    nested = np.full((200, 200), 0.2)
    nested[20:180, 20:180] = 0.9
    nested[40:160, 40:160] = 0.7
    with pytest.raises(ValueError, match="no digit that stands out"):
        centre(nested)

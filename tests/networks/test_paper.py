"""Digits on ruled, graph and coloured paper, and several in a row; simple shapes, and slowly MNIST's test digits."""

import functools
import sys

import jax
import numpy as np
import optax
import pytest
from paper_for_tests import KINDS, picture, ruling
from PIL import Image, ImageDraw
from test_pictures import coloured, eight_bits, three

import jaxmnist as jm
from jaxmnist.networks.pictures import centred_digits

NUM_STEPS = 3000


def bar(size=280, pen=26):
    """A "1", upright, in the middle."""
    return np.pad(np.ones((size // 2, pen), np.float32), [(size // 4,) * 2, ((size - pen) // 2,) * 2])


def ring(size=280, pen=26):
    """A "0", in the middle; 14 of 28 pixels wide in the end: 13 would lie between two, and noise decide."""
    drawing = Image.new("L", (size, size))
    ImageDraw.Draw(drawing).ellipse([size * 0.29, size * 0.2, size * 0.71, size * 0.8], outline=255, width=pen)
    return np.asarray(drawing, np.float32) / 255


def lined(ink, spacings=(70,), colour=(0.55, 0.7, 0.9), pen=(0.1, 0.1, 0.2), paper=(1, 1, 1), angle=3, width=4):
    """Returns `[H, W, 3]`: ink on paper with lines across, and for a second spacing with lines down."""
    shades = np.ones((*ink.shape, 3)) * paper
    for index, spacing in enumerate(spacings):
        lines = ruling(ink.shape, spacing, width, angle + 90 * index, 30)
        shades = shades * (1 - lines[..., None] * (1 - np.array(colour)))
    shades = shades * (1 - ink[..., None] * (1 - np.array(pen)))
    return np.clip(shades + np.random.default_rng(0).normal(0, 0.01, shades.shape), 0, 1)


def likeness(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize(
    "paper",
    [
        pytest.param(dict(), id="ruled"),
        pytest.param(dict(spacings=(45, 45)), id="graph"),
        pytest.param(dict(spacings=(45, 45), colour=(0.2, 0.2, 0.3)), id="graph as dark as the ink"),
        pytest.param(
            dict(spacings=(45, 45), pen=(0.45, 0.45, 0.45), colour=(0.6, 0.6, 0.6)), id="pencil on graph",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(colour=(0.9, 0.5, 0.5), paper=(1, 0.95, 0.6), pen=(0.1, 0.1, 0.6)), id="yellow, red lines",
            marks=pytest.mark.slow,
        ),
        pytest.param(dict(spacings=(90, 5000), angle=-6), id="ruled with a margin", marks=pytest.mark.slow),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [three, bar, ring])
def test_a_digit_on_ruled_paper_is_that_on_blank_paper(shape, paper):
    (expected,) = centred_digits(1 - shape())
    (image,) = centred_digits(lined(shape(), **paper))
    assert likeness(image, expected) > 0.85


def test_a_thin_stroke_goes_on_over_dark_lines():
    ink = bar(pen=10)
    (image,) = centred_digits(lined(ink, colour=(0.1, 0.1, 0.1), pen=(0.1, 0.1, 0.1), width=9))
    assert image[5:23].max(axis=1).min() > 150


def test_a_blackboard_with_lines_is_as_good_as_paper():
    assert likeness(centred_digits(1 - lined(three()))[0], centred_digits(1 - three())[0]) > 0.95


def test_digits_of_a_row_are_those_that_are_read_alone(tmp_path):
    shapes = [three(200), bar(200, 18), ring(200, 18), three(200)]
    eight_bits(1 - np.concatenate(shapes, axis=1)).save(tmp_path / "row.png")
    images = jm.read_digits(tmp_path / "row.png")
    assert images.shape == (4, 28, 28) and images.dtype == np.uint8
    for image, shape in zip(images, shapes, strict=True):
        assert likeness(image, centred_digits(1 - shape)[0]) > 0.95
    on_lines = centred_digits(lined(np.concatenate(shapes, axis=1)))
    assert min(likeness(*pair) for pair in zip(on_lines, images, strict=True)) > 0.85
    with pytest.raises(ValueError, match="shows 4 digits; read_digits reads several"):
        jm.read_digit(tmp_path / "row.png")


def test_a_thin_stroke_that_ends_on_the_paper_is_no_line_of_it():
    ink = np.zeros((280, 200), np.float32)
    ink[22:-22, 97:103] = 1
    for shades in (1 - ink, lined(ink)):
        (image,) = centred_digits(shades)
        assert np.ptp(np.nonzero(image.max(axis=1) > 100)[0]) + 1 == 20


def test_a_five_with_a_bar_of_its_own_is_one_digit():
    ink = np.zeros((300, 300), np.float32)
    ink[60:200, 100:115] = ink[185:200, 100:180] = ink[60:75, 130:190] = 1
    assert len(centred_digits(1 - ink)) == 1


def wavy(ink):
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    grid = ((y + 12 * np.sin(x / 25)) % 50 < 5) | ((x + 12 * np.sin(y / 25)) % 50 < 5)
    return 1 - np.maximum(ink, grid)


@pytest.mark.parametrize(
    ("shades", "words"),
    [
        pytest.param(lined(np.zeros((280, 280))), "nothing but the ruling", id="ruled and empty"),
        pytest.param(lined(np.zeros((280, 280)), (45, 45)), "nothing but the ruling", id="graph and empty"),
        pytest.param(1 - np.concatenate([three(), ring()]), "below each other", id="two rows"),
        pytest.param(1 - np.tile(ring()[:, 84:196], 3), "digits that touch", id="touching"),
        pytest.param(1 - bar().T, "touch, or no digits", id="dash"),
        pytest.param(wavy(three()), "lines that cannot be told from the ink", id="wavy graph"),
    ],
)
def test_what_is_no_row_of_digits_is_refused(shades, words):
    with pytest.raises(ValueError, match=words):
        centred_digits(shades)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (9, 9), (28, 28), (40, 300), (150, 120)])
def test_any_picture_is_digits_or_one_sentence(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).random(shape)
    for shades in (noise, noise < 0.02, (y % 9 < 2) | (x % 9 < 2), (y + x // 5) % 31 < 3, x == shape[1] // 2):
        try:
            images = centred_digits(shades.astype(float))
        except ValueError as refusal:
            assert str(refusal).startswith("the picture shows ") and "\n" not in str(refusal)
        else:
            assert images.shape == (len(images), 28, 28) and images.max(axis=(1, 2)).min() == 255


def test_marks_beside_a_digit_are_refused():
    ink = np.pad(three(), ((0, 0), (0, 100)))
    ink[100:130, 320:350] = 1
    with pytest.raises(ValueError, match="marks besides its digits"):
        centred_digits(1 - ink)


def test_without_its_plugin_a_heic_file_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "photo.jpg").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(100))
    with pytest.raises(
        ValueError, match=r"photo.jpg is a HEIC file.*pip install 'jaxmnist\[heic\]'.*convert"
    ) as refusal:
        jm.read_digits(tmp_path / "photo.jpg")
    assert "\n" not in str(refusal.value)


def test_with_its_plugin_a_heic_file_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(coloured(three(), [20, 20, 90], [250, 250, 240])).save(tmp_path / "photo.heic")
    assert likeness(jm.read_digit(tmp_path / "photo.heic"), centred_digits(1 - three())[0]) > 0.95
    whole = (tmp_path / "photo.heic").read_bytes()
    (tmp_path / "photo.heic").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no picture that can be read"):
        jm.read_digit(tmp_path / "photo.heic")


def counts(classifier, split, kind, seed, num_pictures, num_digits, path):
    """Returns how many pictures, each of so many of the split's digits in a row, are read rightly, wrongly and not."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    found = dict(right=0, wrong=0, refused=0)
    for _ in range(num_pictures):
        chosen = random.choice(len(split.targets), num_digits, replace=False)
        picture([split.inputs[index, ..., 0] for index in chosen], kind, random).save(path)
        try:
            outcome = classifier(jm.read_digits(path)).argmax(axis=1)
        except ValueError:
            found["refused"] += 1
            continue
        found["right" if np.array_equal(outcome, split.targets[chosen]) else "wrong"] += 1
    return found


@pytest.fixture(scope="module")
def classifier(mnist_dir):
    """A small CNN, trained on MNIST's training digits for half a minute."""
    dataset = jm.load("mnist", data_dir=mnist_dir)
    model, optimizer = jm.CNN(features=(16, 32), hidden_size=128), optax.adam(1e-3)
    fit = jax.jit(
        functools.partial(jm.fit, model, optimizer, num_steps=NUM_STEPS, augment=jm.Affine()), static_argnums=3
    )
    order = jm.example_order(len(dataset.train.targets), 0, NUM_STEPS * 100)
    state, _ = fit(jm.init_state(model, optimizer, 0, dataset.train.inputs), dataset.train, order, 100)
    return jm.Classifier(model, (state.params,), (28, 28, 1), dataset.class_names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "num_digits", "num_pictures", "num_right"),
    [("ruled", 1, 120, 110), ("graph", 1, 120, 110), ("mixture", 1, 120, 110), ("mixture", 3, 40, 34)],
)
def test_test_digits_are_read_from_any_paper(
    kind, num_digits, num_pictures, num_right, classifier, mnist_dir, tmp_path
):
    split = jm.load("mnist", data_dir=mnist_dir).test
    found = counts(classifier, split, kind, 11, num_pictures, num_digits, tmp_path / "digits.png")
    assert found["right"] >= num_right, found

import numpy as np
import pytest

from jaxmnist.studies import boundary, dimension


def sierpinski_carpet(order):
    pixels = np.ones((1, 1), bool)
    for _ in range(order):
        hole = np.zeros_like(pixels)
        pixels = np.block([[pixels] * 3, [pixels, hole, pixels], [pixels] * 3])
    return pixels


def test_dimension_of_known_fractals():
    square = np.ones((256, 256), bool)
    line = np.eye(256, dtype=bool)
    row = np.zeros((256, 256), bool)
    row[100] = True
    n = np.arange(256)
    triangle = (n[:, None] & n[None, :]) == 0
    for pixels, expected in ((square, 2), (line, 1), (row, 1), (triangle, np.log(3) / np.log(2))):
        found = dimension.box_dimension(pixels)
        assert found.dimension == pytest.approx(expected, abs=1e-9) and found.standard_error < 1e-6
        assert found.sizes == (1, 2, 4, 8, 16, 32) and found.counts[0] == pixels.sum()
    # Powers of two do not fit a carpet of powers of three.
    pixels = sierpinski_carpet(6)
    assert dimension.box_counts(pixels, (1, 3, 9, 27)) == (8**6, 8**5, 8**4, 8**3)
    carpet = dimension.box_dimension(pixels)
    assert carpet.dimension == pytest.approx(np.log(8) / np.log(3), abs=0.06)
    assert 0 < carpet.standard_error < 0.05


def test_dimension_of_a_circles_boundary_and_of_nothing():
    y, x = np.mgrid[:256, :256]
    edges = boundary.boundary(np.where(np.hypot(x - 120, y - 130) < 90, -1.0, 1.0))
    assert dimension.box_dimension(edges).dimension == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="needs a boundary"):
        dimension.box_dimension(np.zeros((64, 64), bool))
    with pytest.raises(ValueError, match="from 32 on"):
        dimension.box_dimension(np.ones((31, 31), bool))


def test_boxes_at_the_far_edges_are_counted():
    pixels = np.zeros((5, 7), bool)
    pixels[4, 6] = pixels[0, 0] = True
    assert dimension.box_counts(pixels, (1, 2, 4, 8)) == (2, 2, 2, 1)

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


def test_local_slopes_are_those_of_porespy():
    """The expected numbers are those of `porespy.metrics.boxcount`, version 3.2.0."""
    n = np.arange(128)
    triangle = (n[:, None] & n[None, :]) == 0
    y, x = np.mgrid[:100, :100]
    wave = np.abs(y - 50 - 20 * np.sin(x / 7)) < 3
    expected = [1.545428, 1.510986, 1.576453, 1.406796, 1.294021, 1.654025, 2.126052, 1.20471, 0, 0]
    np.testing.assert_allclose(dimension.local_slopes(triangle), expected, atol=1e-6)
    expected = [0.931865, 1.044211, 1.626754, 1.623864, 0.420452, 0.814757, 1.494344, 1.721088, 2.627839, 2.65203]
    np.testing.assert_allclose(dimension.local_slopes(wave), expected, atol=1e-6)
    with pytest.raises(ValueError, match="local slopes can be estimated from 32 on"):
        dimension.local_slopes(np.eye(30, dtype=bool))


def test_the_median_slope_is_over_all_pictures_and_its_interval_takes_pictures_as_wholes():
    n = np.arange(128)
    line, triangle = np.eye(128, dtype=bool), (n[:, None] & n[None, :]) == 0
    sets = [line, line, triangle]
    found = dimension.median_slope(sets)
    slopes = [dimension.local_slopes(pixels) for pixels in sets]
    assert found.mean == pytest.approx(np.median(np.concatenate(slopes)))
    # Of three pictures drawn with replacement, the triangle is each of them in 1 of 27, beyond the quantile of 2.5 %.
    assert found.low == pytest.approx(np.median(slopes[0])) and found.high == pytest.approx(np.median(slopes[2]))
    assert found.words == "95 % bootstrap interval over 3 pictures"
    alone = dimension.median_slope([line])
    assert np.isnan(alone.low) and alone.words == "1 picture, no interval"
    with pytest.raises(ValueError, match="in each picture either all runs converge or none does"):
        dimension.median_slope([])

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow

from jaxmnist.core.fast import convolution

# Patches: few channels, or a kernel that is not square. Tiles: others, with heights and widths that tiles don't divide.
SHAPES = {
    "patches": ((3, 2, 7, 6, 2), (3, 5, 3, 2, 4)),
    "tiles of size 3": ((3, 2, 7, 6, 8), (3, 3, 3, 8, 5)),
    "tiles of size 5": ((3, 2, 9, 4, 8), (3, 5, 5, 8, 3)),
}


def by_xla(images, kernel):
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.fixture(params=mostly_slow(SHAPES, "patches", "tiles of size 3"))
def images_and_kernels(request):
    images_shape, kernels_shape = SHAPES[request.param]
    return jax.random.normal(jax.random.key(0), images_shape), jax.random.normal(jax.random.key(1), kernels_shape)


def assert_near(ours, theirs):
    """Asserts that values differ by rounding: by 2e-5 of the largest, several times the error of the tiles."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * float(jnp.abs(theirs).max()))


def test_each_way_to_convolve_gives_the_same(images_and_kernels):
    images, kernels = images_and_kernels
    expected = jax.vmap(by_xla)(images, kernels)
    convolve = jax.jit(convolution.convolve)
    assert_near(np.stack([convolve(*pair) for pair in zip(images, kernels, strict=True)]), expected)
    assert_near(jax.jit(jax.vmap(convolution.convolve))(images, kernels), expected)
    shared = jax.jit(jax.vmap(convolution.convolve, in_axes=(None, 0)))(images[0], kernels)
    assert_near(shared, jax.vmap(by_xla, in_axes=(None, 0))(images[0], kernels))
    twice = jax.vmap(jax.vmap(convolution.convolve, in_axes=(None, 0)), in_axes=(0, None))
    twice = jax.jit(twice)(images, kernels)
    assert_near(twice[1, 2], by_xla(images[1], kernels[2]))


def test_gradients_are_those_of_xla_alone_and_under_vmap(images_and_kernels):
    images, kernels = images_and_kernels

    weights = jax.random.normal(jax.random.key(2), (*images.shape[1:-1], kernels.shape[-1]))

    def gradients(convolve):
        return jax.grad(lambda x, k: jnp.sum(convolve(x, k) * weights), argnums=(0, 1))

    alone = jax.jit(gradients(convolution.convolve))(images[1], kernels[1])
    mapped = jax.jit(jax.vmap(gradients(convolution.convolve)))(images, kernels)
    shared = jax.jit(jax.vmap(gradients(convolution.convolve), in_axes=(None, 0)))(images[2], kernels)
    theirs = jax.jit(jax.vmap(gradients(by_xla)))(images, kernels)
    for position in range(2):
        assert_near(alone[position], theirs[position][1])
        assert_near(mapped[position], theirs[position])
        assert_near(shared[position][2], theirs[position][2])


def test_what_lies_under_a_tile_beyond_the_image_has_no_part_in_it():
    images = jnp.ones((1, 5, 5, 8)).at[:, 2, 3].set(1e6)
    kernel = jnp.zeros((3, 3, 8, 2)).at[1, 1].set(1.0)
    outputs = jax.jit(convolution.convolve_by_tiles)(images, kernel)
    np.testing.assert_allclose(outputs, by_xla(images, kernel), rtol=0, atol=8e6 * 2e-5)
    np.testing.assert_allclose(outputs[:, 4], 8, rtol=0.1)


def test_no_convolution_of_xla_is_left_where_it_is_slow(images_and_kernels):
    images, kernels = images_and_kernels
    gradient = jax.grad(lambda kernel: convolution.convolve(images[0], kernel).sum())
    assert "conv_general_dilated" not in str(jax.make_jaxpr(gradient)(kernels[0]))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(jax.vmap(convolution.convolve))(images, kernels))
    assert "conv_general_dilated" in str(jax.make_jaxpr(convolution.convolve)(images[0], kernels[0]))


def test_tiles_are_used_where_they_are_faster():
    def uses_tiles(*kernel_shape):
        gradient = jax.grad(lambda kernel: convolution.convolve(jnp.ones((1, 6, 6, kernel_shape[2])), kernel).sum())
        return "custom_vmap" in str(jax.make_jaxpr(gradient)(jnp.ones(kernel_shape)))

    assert uses_tiles(5, 5, 32, 64) == (jax.default_backend() == "cpu")
    assert not uses_tiles(5, 5, 1, 32)
    assert not uses_tiles(7, 7, 32, 64)
    assert not uses_tiles(3, 5, 32, 64)

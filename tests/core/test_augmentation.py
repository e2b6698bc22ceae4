import jax
import jax.numpy as jnp
import numpy as np

import jaxmnist as jm
from jaxmnist.core.augmentation import sample

IMAGES = np.random.default_rng(0).random((3, 7, 9, 2)).astype(np.float32)


def grid(y=0.0, x=0.0):
    rows, columns = jnp.meshgrid(jnp.arange(7.0) + y, jnp.arange(9.0) + x, indexing="ij")
    return [jnp.broadcast_to(points, (3, 7, 9)) for points in (rows, columns)]


def test_sampling_at_the_pixels_gives_the_pixels():
    np.testing.assert_allclose(sample(jnp.asarray(IMAGES), *grid()), IMAGES, rtol=1e-6)


def test_sampling_interpolates_and_is_zero_beyond_the_border():
    shifted = sample(jnp.asarray(IMAGES), *grid(y=2.0, x=0.25))
    wide = np.concatenate([IMAGES, np.zeros((3, 7, 1, 2), np.float32)], axis=2)
    expected = 0.75 * wide[:, 2:, :-1] + 0.25 * wide[:, 2:, 1:]
    np.testing.assert_allclose(shifted[:, :5], expected, rtol=1e-5)
    assert (shifted[:, 5:] == 0).all()


def test_amounts_stay_within_their_limits_and_differ():
    image = np.zeros((200, 21, 21, 1), np.float32)
    image[:, 10, 10] = 1
    move = jax.jit(jm.Affine(rotation=0, scale=0, shift=3).__call__)
    moved = np.asarray(move(jax.random.key(0), image))[..., 0]
    mass = moved.sum((1, 2))
    np.testing.assert_allclose(mass, 1, rtol=1e-4)
    rows = (moved.sum(2) @ np.arange(21) - 10) / mass
    assert np.abs(rows).max() <= 3 and rows.std() > 1.5 and len(np.unique(rows.round(4))) > 190


def test_a_quarter_turn_turns_the_image():
    turn = jm.Affine(rotation=90, scale=0, shift=0)
    keys = jax.random.split(jax.random.key(0), 400)
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 7] = 1
    turned = np.asarray(jax.jit(jax.vmap(lambda key: turn(key, image)[0, ..., 0]))(keys))
    # All angles up to a quarter turn either way: the dot comes to the top and to the bottom, and never to the left.
    assert turned[:, 1, 4].max() > 0.9 and turned[:, 7, 4].max() > 0.9 and turned[:, :, :3].max() < 0.2

"""Noise of optimizers differs from seed to seed, and is the same whenever a run is trained again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxmnist as jm
from jaxmnist.core import optimizers

PARAMS = {"kernel": np.ones((3, 4), np.float32)}


def old_style(key):
    """Returns a transformation that keeps its key as plain numbers, as optax's estimator of the Hessian does."""
    return optax.contrib.hutchinson_estimator_diag_hessian(jax.random.PRNGKey(key))


NOISY = {
    "by number": lambda: optax.noisy_sgd(0.1, key=7),
    "by key": lambda: optax.noisy_sgd(0.1, key=jax.random.key(0)),
    "in a chain": lambda: optax.chain(optax.clip(1.0), optax.masked(optax.add_noise(0.1, 0.5, 3), {"kernel": True})),
    "private": lambda: optax.contrib.differentially_private_aggregate(1.0, 0.5, 0),
    "old style": lambda: old_style(0),
}


def keys(name, seed):
    """Returns the numbers of all leaves of the state that are, or may be, random keys."""
    leaves = jax.tree.leaves(optimizers.init(NOISY[name](), PARAMS, seed))
    is_typed = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    numbers = [jax.random.key_data(leaf) if typed else leaf for leaf, typed in zip(leaves, is_typed, strict=True)]
    return np.concatenate([np.ravel(each) for each in numbers if each.dtype == np.uint32])


@pytest.mark.parametrize("name", NOISY)
def test_keys_differ_by_seed(name):
    found = [keys(name, seed).tolist() for seed in (0, 1, 2)]
    assert len(set(map(tuple, found))) == 3
    assert found[1] == keys(name, 1).tolist() == keys(name, jnp.int32(1)).tolist()


def test_what_is_no_key_stays():
    state = optimizers.init(optax.chain(optax.adam(0.1), optax.add_noise(0.1, 0.5, 3)), PARAMS, 1)
    for ours, theirs in zip(jax.tree.leaves(state[0]), jax.tree.leaves(optax.adam(0.1).init(PARAMS)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert jax.tree.leaves(optimizers.init(optax.adam(0.1), {"key": np.arange(2, dtype=np.float32)}, 1)[0].mu)


@pytest.mark.slow
def test_two_seeds_with_equal_parameters_get_other_noise_and_each_repeats(tiny):
    """Softmax regression starts from zeros, and all runs of a batch of the whole split have the same gradients."""
    runs = jm.grid(learning_rate=[0.1], batch_size=[len(tiny.train.targets)], seed=[0, 1])

    def losses(optimizer):
        result = jm.sweep(jm.SoftmaxRegression(4), optimizer, runs, tiny, num_steps=3, progress=False)
        return result["validation_loss"].values.ravel()

    noise = functools.partial(optax.noisy_sgd, eta=0.1, key=0)
    quiet, noisy = losses(optax.sgd), losses(noise)
    np.testing.assert_allclose(*quiet, rtol=1e-5)
    assert abs(noisy[0] - noisy[1]) > 1e-3
    np.testing.assert_array_equal(noisy, losses(noise))

"""How many runs train together: as many as stay in a CPU's cache, with their states and with what they compute."""

import flax.linen as nn
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.core.state import State
from jaxmnist.host.devices import DEFAULT_BYTES
from jaxmnist.sweeps import capacity, programs, sizes
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job

HIDDEN = 64
STATE_BYTES = 4 * (2 * HIDDEN + HIDDEN)


class Wide(nn.Module):
    """A network that computes more from a batch than it has parameters."""

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(1, use_bias=False)(nn.tanh(nn.Dense(HIDDEN, use_bias=False)(inputs)))


@pytest.mark.parametrize(
    ("batch_size", "per_run"),
    [(1, STATE_BYTES), (256, 256 * 4 * (2 * HIDDEN + 1))],
    ids=["states are larger", "activations are larger"],
)
def test_a_group_stays_in_the_cache(batch_size, per_run):
    generator = np.random.default_rng(0)
    inputs, targets = (generator.normal(size=(512, size)).astype(np.float32) for size in (2, 1))
    runs = jm.grid(learning_rate=np.geomspace(1e-3, 1, 8), batch_size=[batch_size], seed=0)
    setup = make_setup(Wide(), optax.sgd, loss=jm.losses.squared_error, metrics={})
    job = make_job(setup, runs, jm.from_arrays(inputs, targets), 1)
    assert capacity.capacity(job, DEFAULT_BYTES, 1).group == capacity.CACHE_BYTES // per_run


def test_a_batch_is_shared_by_several_runs_however_large_it_is():
    inputs = np.zeros((50_000, 2), np.float32)
    dataset = jm.from_arrays(inputs, inputs[:, :1])
    runs = jm.grid(learning_rate=np.geomspace(1e-3, 1, 8), batch_size=[30_000], seed=0)
    job = make_job(make_setup(Wide(), optax.sgd, loss=jm.losses.squared_error, metrics={}), runs, dataset, 1)
    assert capacity.capacity(job, DEFAULT_BYTES, 1).group == capacity.MIN_GROUP


@pytest.mark.parametrize(
    ("example_bytes", "num_runs", "expected"),
    [(100, 10, 1000), (100, 1000, 83), (1e6, 1, 50), (1e6, 100, 5), (1e9, 1, 1)],
    ids=["all that there may be", "what stays in a cache", "but no fewer than 50", "but no more than fit", "one"],
)
def test_evaluation_takes_as_many_examples_as_suit_it(example_bytes, num_runs, expected, monkeypatch):
    monkeypatch.setattr("jaxmnist.sweeps.sizes.activation_room", lambda: 2**29)
    assert sizes.examples_at_once(example_bytes, num_runs) == expected


@pytest.mark.parametrize(
    ("num_groups", "num_weights", "expected"),
    [(16, 2**14, 16), (16, 2**16, 4), (12, 2**16, 4), (9, 2**16, 3), (7, 2**16, 1), (4, 2**18, 1), (4, 2**19, 4),
     (3, 0, 3)],
)  # fmt: skip
def test_groups_are_evaluated_in_turns_where_a_part_of_them_fits_into_the_cache(num_groups, num_weights, expected):
    params = {"kernel": np.zeros((num_groups, 1, num_weights), np.float32)}
    states = State(None, np.zeros((num_groups, 1), np.int32), params, {}, {}, None)
    assert sizes.groups_evaluated_at_once(states) == expected


def test_turns_of_evaluation_do_not_change_results(monkeypatch, tiny):
    def losses(num_bytes):
        monkeypatch.setattr(sizes, "EVALUATED_PARAMS_BYTES", num_bytes)
        programs.evaluate.clear_cache()
        runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=[8, 16], seed=range(3))
        result = jm.sweep(jm.SoftmaxRegression(num_classes=4), optax.sgd, runs, tiny, num_steps=3, progress=False)
        return result["test_loss"].values

    np.testing.assert_allclose(losses(2**11), losses(2**30), rtol=1e-6)

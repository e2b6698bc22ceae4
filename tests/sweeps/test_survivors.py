"""Runs that have ended take no time, and nothing else changes."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from conftest import run_on_devices

import jaxmnist as jm
from jaxmnist.core import optimizers
from jaxmnist.core.state import State
from jaxmnist.sweeps import planning, programs, running, survivors
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job

NUM_STEPS = 60
# Batch sizes and seeds of four groups of three runs: the first three are one stream.
PROGRAM = planning.Program(
    batch_size=np.array([8, 8, 8, 5]), seed=np.zeros(4, int), rows=np.arange(12).reshape(4, 3),
    padded_batch_sizes=(5, 8), at_once=1, static=(),
)  # fmt: skip


def ended_at(*places, shape=(4, 3)):
    ended = np.zeros(shape, bool)
    ended.ravel()[list(places)] = True
    return ended


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_runs_that_go_on_come_first_in_their_stream_evenly_on_all_devices(num_devices):
    generator = np.random.default_rng(num_devices)
    program = PROGRAM._replace(
        batch_size=np.repeat([8, 5], [14, 10]), seed=np.repeat([0, 1, 0], [7, 7, 10]), rows=np.arange(72).reshape(24, 3)
    )
    ended = generator.random((24, 3)) < 0.5
    places = survivors.places(program, ended, num_devices)
    assert sorted(places.ravel()) == [*range(72)]
    assert (places.ravel()[survivors.inverse(places).ravel()] == np.arange(72)).all()
    streams = program.batch_size * 10 + program.seed
    assert (np.repeat(streams, 3)[places] == streams[:, None]).all()
    # No stream has two groups in which some runs have ended and others have not.
    goes_on = ~ended.ravel()[places]
    is_mixed = goes_on.any(axis=1) & ~goes_on.all(axis=1)
    assert all(is_mixed[streams == stream].sum() <= 1 for stream in np.unique(streams))
    on_device = goes_on.any(axis=1).reshape(num_devices, -1).sum(axis=1)
    assert on_device.max() - on_device.min() <= 2


@pytest.mark.parametrize("ended", [(), (0,), (0, 1, 2), (0, 1, 2, 3), (0, 1, 9, 10)])
def test_runs_stay_where_moving_them_would_free_no_group(ended):
    assert survivors.places(PROGRAM, ended_at(*ended), 1) is None


def numbers():
    inputs = np.random.default_rng(0).normal(size=(60, 3))
    return jm.from_arrays(inputs, inputs @ np.arange(1.0, 4), name="numbers")


def counted_sgd(learning_rate):
    """SGD that counts the steps which were taken."""
    return optax.chain(optax.sgd(learning_rate), optax.scale_by_schedule(lambda count: 1.0))


def train(rates, mesh=None):
    """Returns the program of regressions with these learning rates, in groups of two, and what they reach."""
    setup = make_setup(nn.Dense(1), counted_sgd, loss=jm.losses.squared_error)
    runs = jm.grid(learning_rate=rates, batch_size=[4, 6], seed=0)
    job = make_job(setup, runs, numbers(), NUM_STEPS)
    mesh = mesh or programs.local_mesh()
    (program,) = planning.plan(job.arrays, max_group=2, num_devices=mesh.size, mixed=True)
    program = program._replace(at_once=1)
    spec = programs.ProgramSpec(setup, (), mesh)
    inputs, data = programs.make_inputs(spec, job.arrays, program), running.put(mesh, job.dataset)
    states = programs.init(spec, inputs, data.train.inputs)
    *_, (_, reached) = running.train(spec, inputs, program, data.train, states, range(0, NUM_STEPS + 1, 20))
    metrics = programs.evaluate(spec, inputs, reached.states, data.validation)
    return job, program, *jax.tree.map(np.asarray, (reached.states._replace(key=0), reached.losses, metrics))


WILD = [1e37 * factor for factor in range(1, 5)]


def test_runs_that_have_ended_take_no_steps(monkeypatch):
    rates = [0.01, WILD[0], 0.02, *WILD[1:3], 0.03]
    job, program, states, losses, metrics = train(rates)
    is_wild = job.arrays["learning_rate"][program.rows] > 1
    assert np.isnan(losses[is_wild]).all() and np.isfinite(losses[~is_wild]).all()
    assert (states.step == NUM_STEPS).all() and (states.diverged_step[is_wild] == 2).all()
    count = states.opt_state[1].count
    assert (count[~is_wild] == NUM_STEPS).all() and (np.sort(count[is_wild]) == [20] * 4 + [NUM_STEPS] * 2).all()

    monkeypatch.setattr(programs, "_have_ended", lambda _, states, losses: np.zeros(losses.shape, bool))
    programs.advance.clear_cache()
    _, _, plain_states, plain_losses, plain_metrics = train(rates)
    programs.advance.clear_cache()
    assert (plain_states.opt_state[1].count == NUM_STEPS).all()
    for now, plain in ((losses, plain_losses), (metrics, plain_metrics), (states.params, plain_states.params)):
        jax.tree.map(np.testing.assert_array_equal, now, plain)


@pytest.mark.parametrize("loss", [np.nan, 1.0], ids=["its own loss is nan", "another run's loss is nan"])
def test_a_run_ends_only_if_its_loss_and_a_parameter_are_nan(loss):
    params = {"kernel": np.zeros((2, 2, 3, 4)), "bias": np.zeros((2, 2, 4))}
    params["kernel"][0, 1, 2, 3] = np.nan
    params["bias"][1, 0] = np.inf
    found = ended_of(optimizers.evaluation_params, params, (), np.array([[1.0, loss], [1.0, np.nan]]))
    assert found.tolist() == [[False, np.isnan(loss)], [False, False]]


def test_a_run_whose_slow_parameters_are_not_nan_yet_goes_on():
    params = {"kernel": np.full((1, 2, 3), np.nan)}
    slow = {"kernel": np.array([[[0.0] * 3, [np.nan] * 3]])}
    opt_state = optimizers.WithSlowParams((), slow)
    assert ended_of(optimizers.evaluation_params, params, opt_state, np.nan).tolist() == [[False, True]]


def test_no_run_ends_whose_evaluation_may_depend_on_every_step():
    params = {"kernel": np.full((1, 2, 3), np.nan)}
    assert ended_of(optimizers.evaluation_params, params, (), np.nan).all()
    assert not ended_of(lambda opt_state, params: params, params, (), np.nan).any()


def ended_of(evaluation_params, params, opt_state, loss):
    """Returns which runs with these parameters `[G, P, ...]` have ended, given their batch losses or one for all."""
    shape = params["kernel"].shape[:2]
    zeros = jax.numpy.zeros(shape, int)
    states = jax.tree.map(jax.numpy.asarray, State(zeros, zeros, params, (), opt_state, zeros))
    return programs._have_ended(evaluation_params, states, jax.numpy.broadcast_to(jax.numpy.asarray(loss), shape))


@pytest.mark.slow
def test_runs_move_on_each_of_two_devices():
    out = run_on_devices(2, "import test_survivors; print(*test_survivors.train_many())")
    assert out.split() == ["True"] * 3


def train_many():
    """Returns whether runs on two devices equal those of one, whether some took no steps, and whether others did."""
    rates = [rate for pair in zip(WILD, [0.01, 0.02, 0.03, 0.04], strict=True) for rate in pair]
    one = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("runs",))
    (job, program, states, *_, metrics), (_, other, *_, expected) = train(rates), train(rates, one)
    by_row, of_one = (
        dict(zip(plan.rows.ravel().tolist(), found.loss.ravel().tolist(), strict=True))
        for plan, found in ((program, metrics), (other, expected))
    )
    is_wild = job.arrays["learning_rate"][program.rows] > 1
    counts = states.opt_state[1].count
    is_same = all(np.allclose(by_row[row], of_one[row], rtol=1e-5, equal_nan=True) for row in of_one)
    return is_same, (counts[is_wild] == 20).any(), (counts[~is_wild] == NUM_STEPS).all()

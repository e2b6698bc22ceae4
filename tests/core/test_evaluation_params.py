"""What a model is evaluated with, where an optimizer keeps other parameters than those it trains."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from conftest import make_tiny, mostly_slow

import jaxmnist as jm
from jaxmnist.networks.run import train_run

MODEL = jm.SoftmaxRegression(4)
STEPS, SIZE = 7, 5


def lookahead(learning_rate):
    return optax.chain(optax.clip(1.0), optax.lookahead(optax.sgd(learning_rate), 3, 0.5))


class Averaged(NamedTuple):
    """The state of `averaged`."""

    inner: Any
    mean: Any


def averaged(learning_rate, decay=0.9):
    """Returns SGD that also keeps an exponential moving average of the parameters."""
    sgd = optax.sgd(learning_rate)

    def update(grads, state, params):
        updates, inner = sgd.update(grads, state.inner, params)
        return updates, Averaged(
            inner, optax.incremental_update(optax.apply_updates(params, updates), state.mean, 1 - decay)
        )

    return optax.GradientTransformation(lambda params: Averaged(sgd.init(params), params), update)


def mean_of(opt_state, params):
    return opt_state.mean


OPTIMIZERS = {
    "schedule-free": (optax.contrib.schedule_free_sgd, {}),
    "schedule-free of some": (
        lambda learning_rate: optax.masked(
            optax.contrib.schedule_free_sgd(learning_rate), {"Dense_0": {"kernel": True, "bias": False}}
        ),
        {},
    ),
    "lookahead": (lookahead, {}),
    "average": (averaged, {"evaluation_params": mean_of}),
}


@functools.cache
def trained(name, num_steps=STEPS):
    """Returns the state of one run, by `jm.fit`."""
    optimizer, split = OPTIMIZERS[name][0](0.5), jax.device_put(make_tiny().train)
    order = jm.example_order(47, 0, num_steps * SIZE)
    state = jm.init_state(MODEL, optimizer, 0, split.inputs)
    return jax.jit(lambda state: jm.fit(MODEL, optimizer, state, split, order, SIZE, num_steps=num_steps)[0])(state)


def expected(name):
    """Returns the parameters to evaluate with, read from the state of the optimizer by hand."""
    state = trained(name)
    opt_state, params = state.opt_state, state.params
    if name == "schedule-free":
        return optax.contrib.schedule_free_eval_params(opt_state, params)
    if name == "schedule-free of some":
        own, z = params["Dense_0"], opt_state.inner_state.z["Dense_0"]["kernel"]
        return {"Dense_0": {"kernel": (own["kernel"] - 0.1 * z) / 0.9, "bias": own["bias"]}}
    return opt_state.slow if name == "lookahead" else opt_state.mean


def assert_close(ours, theirs):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("name", mostly_slow(OPTIMIZERS, "average"))
def test_a_sweep_evaluates_them_and_so_does_a_rerun(tiny, name):
    optimizer, given = OPTIMIZERS[name]
    runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=[SIZE], seed=[0, 1])
    result = jm.sweep(MODEL, optimizer, runs, tiny, num_steps=STEPS, progress=False, **given)
    place = dict(learning_rate=0.5, seed=0)
    ours = result.sel(place).squeeze()
    params = expected(name)
    np.testing.assert_allclose(ours["test_loss"], jm.evaluate(MODEL, params, tiny.test).loss, rtol=1e-5)
    others = jm.evaluate(MODEL, trained(name).params, tiny.test).loss
    assert abs(others - ours["test_loss"]) > 1e-3
    run = jm.rerun(result, dataset=tiny, optimizer=optimizer, **place, **given)
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6), run.params, params
    )
    np.testing.assert_allclose(run.test.loss, ours["test_loss"], rtol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(("lookahead", "average"), "average"))
def test_a_long_run_evaluates_them(tiny, tmp_path, name):
    optimizer, given = OPTIMIZERS[name]
    _, rows = train_run(
        MODEL, optimizer(0.5), tiny, 0, batch_size=SIZE, num_steps=STEPS, evaluation_steps=STEPS, folder=tmp_path,
        **given,
    )  # fmt: skip
    loss = jm.evaluate(MODEL, expected(name), tiny.validation).loss
    np.testing.assert_allclose(rows[-1]["validation_loss"], loss, rtol=1e-5)


def test_the_slow_parameters_are_those_of_optax(tiny):
    """A loop with optax alone, which keeps them beside the fast ones."""
    optimizer = lookahead(0.5)
    split = jax.device_put(tiny.train)
    order = jm.example_order(47, 0, STEPS * SIZE).reshape(STEPS, SIZE)
    params = optax.LookaheadParams.init_synced(jm.init_state(MODEL, optimizer, 0, split.inputs).params)
    opt_state = optimizer.init(params)

    def loss(params, rows):
        logits = MODEL.apply({"params": params}, split.inputs[rows].astype(jnp.float32) / 255)
        return optax.softmax_cross_entropy_with_integer_labels(logits, split.targets[rows]).mean()

    gradient = jax.jit(jax.grad(loss))
    for rows in order:
        updates, opt_state = optimizer.update(gradient(params.fast, rows), opt_state, params)
        params = optax.apply_updates(params, updates)
    state = trained("lookahead")
    for ours, theirs in (
        (state.params, params.fast),
        (jm.evaluation_params(state.opt_state, state.params), params.slow),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_lookahead_does_not_warn(caplog, tiny):
    jm.init_state(MODEL, lookahead(0.1), 0, tiny.train.inputs)
    assert not caplog.records


def test_all_others_are_evaluated_with_what_they_train(tiny):
    params = jm.init_state(MODEL, optax.sgd(0.1), 0, tiny.train.inputs).params
    for optimizer in (optax.sgd(0.1), optax.adam(0.1), optax.chain(optax.ema(0.9), optax.sgd(0.1))):
        assert jm.evaluation_params(optimizer.init(params), params) is params


def test_something_else_than_parameters_is_refused(tiny):
    runs = jm.grid(learning_rate=[0.1], batch_size=[SIZE], seed=[0])
    for wrong in (lambda opt_state, params: params["Dense_0"], lambda opt_state, params: opt_state.mean):
        with pytest.raises(ValueError, match=r"cannot be built|evaluation_params"):
            jm.check(MODEL, optax.sgd, runs, tiny, 2, evaluation_params=wrong)

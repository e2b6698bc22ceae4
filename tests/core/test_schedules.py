import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm

PEAK, STEPS, WARMUP = 0.5, 20, 6
LATER = PEAK * 0.1
CASES = {
    "constant": (jm.schedules.constant, (PEAK,), {}, optax.constant_schedule(PEAK)),
    "constant, warmed up": (
        jm.schedules.constant,
        (PEAK,),
        dict(warmup_steps=WARMUP, start=0.1),
        optax.warmup_constant_schedule(0.1, PEAK, WARMUP),
    ),
    "linear": (jm.schedules.linear, (PEAK, STEPS), dict(end=LATER), optax.linear_schedule(PEAK, LATER, STEPS)),
    "linear, warmed up": (
        jm.schedules.linear,
        (PEAK, STEPS),
        dict(warmup_steps=WARMUP, start=0.1),
        optax.join_schedules(
            [optax.linear_schedule(0.1, PEAK, WARMUP), optax.linear_schedule(PEAK, 0.0, STEPS - WARMUP)], [WARMUP]
        ),
    ),
    "cosine": (jm.schedules.cosine, (PEAK, STEPS), {}, optax.cosine_decay_schedule(PEAK, STEPS)),
    "cosine, warmed up": (
        jm.schedules.cosine,
        (PEAK, STEPS),
        dict(warmup_steps=WARMUP, start=0.1, end=LATER),
        optax.warmup_cosine_decay_schedule(0.1, PEAK, WARMUP, STEPS, LATER),
    ),
    "one cycle": (jm.schedules.one_cycle, (PEAK, STEPS, WARMUP), {}, optax.cosine_onecycle_schedule(STEPS, PEAK, 0.3)),
    "one cycle, other ends": (
        jm.schedules.one_cycle,
        (PEAK, STEPS, WARMUP),
        dict(start=PEAK / 10, end=PEAK / 200),
        optax.cosine_onecycle_schedule(STEPS, PEAK, 0.3, 10.0, 20.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_is_that_of_optax_traced_or_not(name):
    function, numbers, words, theirs = CASES[name]
    steps = range(STEPS + 4)
    wanted = [float(theirs(step)) for step in steps]
    traced = jax.jit(lambda numbers, words, step: function(*numbers, **words)(step))
    np.testing.assert_allclose([function(*numbers, **words)(step) for step in steps], wanted, rtol=1e-5, atol=1e-7)
    found = [traced(numbers, words, jnp.int32(step)) for step in steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine", "one_cycle"])
def test_a_warm_up_ends_before_the_schedule(name):
    schedule = getattr(jm.schedules, name)
    with pytest.raises(ValueError, match="warmup_steps is 20 and num_steps is 20; it is below that"):
        schedule(PEAK, STEPS, warmup_steps=STEPS)
    traced = jax.jit(lambda warmup_steps, step: schedule(PEAK, STEPS, warmup_steps=warmup_steps)(step))
    assert np.isfinite(traced(STEPS - 1, STEPS)) and np.isnan(traced(STEPS, STEPS))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "one_cycle"])
def test_peaks_and_warm_ups_are_one_program(tiny, name):
    lengths = () if name == "constant" else (8,)

    def scheduled(learning_rate, warmup_steps):
        return optax.sgd(getattr(jm.schedules, name)(learning_rate, *lengths, warmup_steps=warmup_steps))

    runs = jm.grid(learning_rate=[0.1, 0.5], warmup_steps=[0, 2, 4], batch_size=[4], seed=[0])
    assert jm.check(jm.SoftmaxRegression(4), scheduled, runs, tiny, 8).static == ()

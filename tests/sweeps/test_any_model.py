"""A model of any library in a sweep, and alone: the same numbers, and the promises that hold for ours."""

import itertools

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from conftest import mostly_slow
from flax import nnx
from models import MODELS, Plain, counting

import jaxmnist as jm
from jaxmnist.core.adapters.factory import model_factory


def alone(model, tiny, learning_rate, batch_size, seed, num_steps=4, **values):
    """Returns the metrics on validation of `jm.fit` with one run."""
    made = model_factory(model)(**values)
    optimizer = optax.sgd(learning_rate)
    order = jm.example_order(47, seed, num_steps * batch_size)

    @jax.jit
    def fit_and_evaluate():
        state = jm.init_state(made, optimizer, seed, tiny.train.inputs)
        state, _ = jm.fit(made, optimizer, state, tiny.train, order, batch_size, num_steps=num_steps)
        return jm.evaluate(made, state.params, tiny.validation, model_state=state.model_state)

    return fit_and_evaluate()


# Those with a state are among the next test's, too.
FAST = ("equinox",)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(MODELS, *FAST))
def test_every_run_of_a_sweep_equals_the_run_alone(tiny, name):
    model, axes = MODELS[name]
    runs = jm.grid(learning_rate=[0.1, 0.4], batch_size=[5, 8], seed=range(2), **axes)
    result = jm.sweep(model, optax.sgd, runs, tiny, num_steps=4, progress=False)
    losses = result["validation_loss"].values
    assert np.isfinite(losses).all() and len(np.unique(losses)) == losses.size
    corners = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for values in [corners[0], *corners[1:][-1:]]:
        chosen = dict(learning_rate=0.4, batch_size=5, seed=1, **values)
        expected = alone(model, tiny, **chosen).loss
        np.testing.assert_allclose(result["validation_loss"].sel(chosen).item(), float(expected), rtol=2e-5)


STATEFUL = ("linen", "nnx", "equinox with state", "haiku with state", "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(STATEFUL, "nnx"))
def test_what_is_not_trained_is_carried_and_returned_by_a_run_again(tiny, name):
    model, _ = MODELS[name]
    runs = jm.grid(learning_rate=0.1, batch_size=[5, 8], seed=range(2))
    result = jm.sweep(model, optax.sgd, runs, tiny, num_steps=4, progress=False)
    run = jm.rerun(result, batch_size=5, seed=1, model=model, dataset=tiny)
    assert run.is_exact and run.test.loss == result["test_loss"].sel(batch_size=5, seed=1).item()
    before = jm.init_state(model, optax.sgd(0.1), 1, tiny.train.inputs).model_state
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), before, run.model_state)
    assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize(("module", "argument"), [(nnx.Dropout(0.5), "rngs"), (eqx.nn.Identity(), "key")])
def test_a_module_in_place_of_its_class_is_named(tiny, module, argument):
    words = f"model is an instance of {type(module).__name__}, .* a function with an argument {argument} that returns"
    with pytest.raises(ValueError, match=words):
        jm.sweep(module, optax.sgd, jm.grid(learning_rate=0.1, batch_size=4, seed=0), tiny, num_steps=1)
    with pytest.raises(ValueError, match=words):
        jm.init_state(module, optax.sgd(0.1), 0, tiny.train.inputs)


def test_a_transformation_in_place_of_an_optimizer_is_told_what_is_needed(tiny):
    with pytest.raises(ValueError, match=r"optimizer is .*; a function .* such as optax.sgd and not optax.sgd\(0.1\),"):
        jm.sweep(jm.MLP(4, 4), optax.sgd(0.1), jm.grid(batch_size=4, seed=0), tiny, num_steps=1)


def test_a_counter_counts_training_steps_alone(tiny):
    state, _ = jm.fit(
        counting(), optax.sgd(0.1), jm.init_state(counting(), optax.sgd(0.1), 0, tiny.train.inputs), tiny.train,
        jm.example_order(47, 0, 20), 5, num_steps=4,
    )  # fmt: skip
    assert state.model_state["steps"] == 4


def test_constants_of_equinox_are_neither_trained_nor_decayed(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=5, seed=0, factor=[1.5, 3.0])
    optimizer = decayed
    result = jm.sweep(Plain, optimizer, runs, tiny, num_steps=4, progress=False)
    run = jm.rerun(result, factor=3.0, model=Plain, optimizer=optimizer, dataset=tiny)
    assert {leaf.shape for leaf in jax.tree.leaves(run.params)} == {(4, 30), (4,)}
    assert {leaf.item() for leaf in jax.tree.leaves(run.model_state)} == {3.0}


def decayed(learning_rate):
    return optax.adamw(learning_rate, weight_decay=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("exact", mostly_slow((True, False), True))
def test_functions_and_tuples_are_axes_and_are_found_again(tiny, exact):
    from collections.abc import Callable

    import flax.linen as nn

    class Layers(nn.Module):
        sizes: tuple = (4,)
        activation: Callable | None = None

        @nn.compact
        def __call__(self, images):
            hidden = images.reshape(images.shape[0], -1)
            for size in self.sizes:
                hidden = nn.Dense(size)(hidden)
                hidden = hidden if self.activation is None else self.activation(hidden)
            return nn.Dense(4)(hidden)

    axes = dict(sizes=[(5,), (3, 3)], activation=nn.tanh)
    runs = jm.grid(learning_rate=0.2, batch_size=5, seed=0, **axes)
    result = jm.sweep(Layers(), optax.sgd, runs, tiny, num_steps=4, progress=False)
    assert set(result["sizes"].values) == {"(5,)", "(3, 3)"} and result["activation"].item().endswith("tanh")
    run = jm.rerun(result, sizes=(3, 3), activation=nn.tanh, model=Layers(), dataset=tiny, exact=exact)
    name = next(value for value in result["activation"].values if value.endswith("tanh"))
    expected = result["test_loss"].sel(sizes="(3, 3)", activation=name).item()
    np.testing.assert_allclose(float(run.test.loss), expected, rtol=1e-5)
    np.testing.assert_allclose(expected, float(alone_loss(Layers((3, 3), nn.tanh), tiny)), rtol=1e-5)


def alone_loss(model, tiny):
    optimizer = optax.sgd(0.2)

    @jax.jit
    def fit_and_evaluate():
        state = jm.init_state(model, optimizer, 0, tiny.train.inputs)
        state, _ = jm.fit(model, optimizer, state, tiny.train, jm.example_order(47, 0, 20), 5, num_steps=4)
        return jm.evaluate(model, state.params, tiny.test)

    return fit_and_evaluate().loss

"""What a person's code reads from around it is noticed when it changes, wherever the code is."""

import functools
import types

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmnist as jm
from jaxmnist.core.adapters.factory import model_factory
from jaxmnist.values import captured

SIZE = 4
CONFIG = {"size": 4}
SPACE = types.SimpleNamespace(size=4)
MODULE = types.ModuleType("settings_of_a_person")
MODULE.size = 4
DATA = jm.from_arrays(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2)


def helper(inputs):
    return inputs * SIZE


def activation(inputs):
    return nn.relu(inputs) * SIZE


class Linen(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(2)(nn.relu(nn.Dense(SIZE)(inputs)))


class WithFunction(nn.Module):
    act: object = activation

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(2)(self.act(inputs))


class WithActivation(nn.Module):
    act: object = nn.relu

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(2)(self.act(inputs))


class Inherited(Linen):
    scale = 1.0


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.first, self.second = nnx.Linear(3, SIZE, rngs=rngs), nnx.Linear(SIZE, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.second(nnx.relu(self.first(inputs)))


def perceptron(*, key):
    return eqx.nn.MLP(3, 2, SIZE, depth=1, key=key)


def init(key, inputs):
    return {"kernel": jnp.ones((inputs.shape[1], 2))}


def apply(params, inputs):
    return inputs @ params["kernel"] / SIZE


def network(inputs):
    return hk.Linear(2)(hk.Linear(SIZE)(inputs))


def of_inner(inputs):
    def inner(each):
        return each * SIZE

    return inner(inputs)


class Scaled:
    def __init__(self):
        self.factor = 4

    def __call__(self, inputs):
        return inputs * self.factor

    def method(self, inputs):
        return inputs * self.factor


SCALED = Scaled()
MODELS = {
    "linen": Linen, "inherited": Inherited, "a function in a field": WithFunction, "nnx": lambda: Nnx,
    "equinox": lambda: perceptron, "pair": lambda: (init, apply), "haiku": lambda: hk.transform(network),
    "model": lambda: jm.Model(lambda key, inputs: (init(key, inputs), {}), applied),
}  # fmt: skip


def applied(params, state, inputs, *, training, key=None):
    return apply(params, inputs), state


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_another_one_once_a_global_of_its_code_has_changed(kind, monkeypatch):
    make = MODELS[kind]
    before, same = model_factory(make()), model_factory(make())
    if kind not in ("haiku", "model"):  # each of which has new functions, by this package's or haiku's own making
        assert before == same and hash(before) == hash(same)
    source = make()
    first = captured(source)
    monkeypatch.setitem(globals(), "SIZE", 5)
    assert captured(source) != first and model_factory(source) != before
    monkeypatch.undo()
    assert captured(source) == first


def reads_dict(inputs):
    return inputs * CONFIG["size"]


def reads_space(inputs):
    return inputs * SPACE.size


def reads_module(inputs):
    return inputs * MODULE.size


def calls_helper(inputs):
    return helper(inputs)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (reads_dict, lambda patch: patch.setitem(CONFIG, "size", 5)),
        (reads_space, lambda patch: patch.setattr(SPACE, "size", 5)),
        (reads_module, lambda patch: patch.setattr(MODULE, "size", 5)),
        (calls_helper, lambda patch: patch.setitem(globals(), "helper", lambda inputs: inputs)),
        (calls_helper, lambda patch: patch.setitem(globals(), "SIZE", 5)),
        (of_inner, lambda patch: patch.setitem(globals(), "SIZE", 5)),
        (jax.jit(of_inner), lambda patch: patch.setitem(globals(), "SIZE", 5)),
        (functools.partial(jnp.where, True, of_inner), lambda patch: patch.setitem(globals(), "SIZE", 5)),
        (SCALED, lambda patch: patch.setattr(SCALED, "factor", 5)),
        (SCALED.method, lambda patch: patch.setattr(SCALED, "factor", 5)),
        (Inherited(), lambda patch: patch.setattr(Inherited, "scale", 2.0)),
        (Scaled, lambda patch: patch.setattr(Scaled, "__call__", helper)),
    ],
    ids=["dict", "namespace", "module", "helper", "helper's global", "inner function", "jit", "partial", "object",
         "method", "class attribute", "method of a class"],
)  # fmt: skip
def test_what_code_reads_is_noticed_when_it_changes(code, change, monkeypatch):
    before = captured(code)
    assert captured(code) == before and hash(captured(code)) == hash(before)
    change(monkeypatch)
    assert captured(code) != before
    monkeypatch.undo()
    assert captured(code) == before


def even(count):
    return count == 0 or odd(count - 1)


def odd(count):
    return count != 0 and even(count - 1)


def test_functions_that_call_each_other_and_libraries_are_looked_into_once():
    assert captured(even) == captured(even)
    assert captured(nn.relu) is None and captured(optax.sgd) is None and captured(nn.Dense) is None
    assert captured(np.zeros(3)) is None and captured("text") is None and captured(3) is None


def test_a_sweep_trains_the_network_that_its_code_describes_now(monkeypatch, tmp_path):
    def train(size, **more):
        monkeypatch.setitem(globals(), "SIZE", size)
        runs = jm.grid(learning_rate=0.1, batch_size=8, seed=0)
        return jm.sweep(Linen(), optax.sgd, runs, DATA, num_steps=3, progress=False, **more)

    small, large, again = (train(size) for size in (4, 16, 4))
    assert small["test_loss"].item() == again["test_loss"].item() != large["test_loss"].item()
    train(4, folder=tmp_path)
    with pytest.raises(ValueError, match="computation"):
        train(16, folder=tmp_path)


def test_a_function_on_an_axis_may_read_something_else_later(monkeypatch):
    def train(size):
        monkeypatch.setitem(globals(), "SIZE", size)
        runs = jm.grid(act=[activation], learning_rate=0.1, batch_size=8, seed=0)
        return jm.sweep(WithActivation(), optax.sgd, runs, DATA, num_steps=3, progress=False)["test_loss"].item()

    assert train(4) != train(16)

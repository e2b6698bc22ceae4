"""Linen modules train as their own library would train them; what cannot be right is refused before it trains."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import mostly_slow
from models import Integers

import jaxmnist as jm
from jaxmnist.core.adapters.factory import model_factory
from jaxmnist.core.adapters.flags import FLAGS

LINEN_FLAGS = [flag for flag in FLAGS if flag != "inference"]

RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=8, seed=range(2))


def flat(images):
    return images.reshape(images.shape[0], -1)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, images, train: bool = False):
        return nn.Dense(4)(nn.BatchNorm(use_running_average=not train, momentum=0.8)(nn.Dense(6)(flat(images))))


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, images, train: bool = False):
        return nn.SpectralNorm(nn.Dense(4))(flat(images), update_stats=train)


class Constants(nn.Module):
    @nn.compact
    def __call__(self, images):
        scale = self.variable("constants", "scale", lambda: jnp.float32(2.0))
        count = self.variable("constants", "count", lambda: jnp.int32(7))
        return nn.Dense(4)(flat(images)) * scale.value + (count.value - 7)


def with_argument(flag, default):
    """Returns a module that drops out as an argument of its call says."""

    class Flagged(nn.Module):
        @nn.compact
        def __call__(self, images, **given):
            is_trained = bool(given.get(flag, default)) == FLAGS[flag]
            return nn.Dense(4)(nn.Dropout(0.5)(flat(images), deterministic=not is_trained))

    # The signature that a person would write by hand.
    namespace = {"body": Flagged.__call__}
    exec(f"def call(self, images, {flag}={default}): return body(self, images, {flag}={flag})", namespace)
    Flagged.__call__ = namespace["call"]
    return Flagged()


class Field(nn.Module):
    training: bool = False

    @nn.compact
    def __call__(self, images):
        return nn.Dense(4)(nn.Dropout(0.5)(flat(images), deterministic=not self.training))


class Required(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(4)(nn.Dropout(0.5)(flat(images), deterministic=not train))


class Block(nn.Module):
    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dropout(0.5)(nn.Dense(5)(inputs), deterministic=not train)


class Within(nn.Module):
    """A flag of a part of it is never set, be it an argument, a field, or one of another method."""

    kind: str

    @nn.compact
    def __call__(self, images):
        hidden = flat(images)
        if self.kind == "argument":
            hidden = Block()(hidden)
        elif self.kind == "field":
            hidden = nn.Dropout(0.5, deterministic=True)(hidden)
        elif self.kind == "second call":
            drop = nn.Dropout(0.5)
            hidden = drop(drop(hidden, deterministic=not self.has_rng("dropout")), deterministic=True)
        return nn.Dense(4)(hidden)


class Asks(nn.Module):
    """Drops out where it has a key to do so."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, images):
        hidden = Block()(flat(images), train=self.has_rng("dropout"))
        return nn.Dense(4)(hidden)


def by_hand(model, tiny, batch_size, seed, num_steps=6, learning_rate=0.2):
    """Returns params and batch statistics of a loop as flax's guide writes it."""
    variables = model.init(jax.random.key(seed), jnp.zeros((1, 6, 5, 1)))
    params, statistics = variables["params"], variables["batch_stats"]

    def loss(params, statistics, images, labels):
        logits, updates = model.apply(
            {"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
        )
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), updates["batch_stats"]

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    for images, labels in itertools.islice(jm.batches(tiny.train, batch_size, seed), num_steps):
        grads, statistics = gradient(params, statistics, images / np.float32(255), labels)
        params = jax.tree.map(lambda param, grad: param - learning_rate * grad, params, grads)
    return params, statistics


def test_a_sweep_of_batch_normalisation_is_the_loop_of_flaxs_guide_whatever_the_batch_sizes(tiny):
    runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=[5, 7], seed=range(2))
    result = jm.sweep(Normalised(), optax.sgd, runs, tiny, num_steps=6, progress=False)
    for batch_size in (5, 7):
        params, statistics = by_hand(Normalised(), tiny, batch_size, seed=1)
        run = jm.rerun(result, learning_rate=0.2, batch_size=batch_size, seed=1, dataset=tiny, model=Normalised())
        found = jax.tree.leaves((run.params, run.model_state["batch_stats"]))
        for ours, theirs in zip(found, jax.tree.leaves((params, statistics)), strict=True):
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2e-4, atol=2e-5)
        ours = result.sel(learning_rate=0.2, batch_size=batch_size, seed=1)
        logits = Normalised().apply({"params": params, "batch_stats": statistics}, tiny.test.inputs / np.float32(255))
        assert ours["test_accuracy"] == pytest.approx(
            float(np.mean(logits.argmax(axis=1) == tiny.test.targets)), abs=1e-6
        )
        assert run.is_exact and run.test.loss == ours["test_loss"]


@pytest.mark.parametrize("model", [Spectral(), Constants()])
def test_other_collections_are_carried_and_constants_do_not_move(tiny, model):
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    before = jm.init_state(model, optimizer, 0, tiny.train.inputs)
    state, _ = jm.fit(model, optimizer, before, tiny.train, jm.example_order(47, 0, 40), 8, num_steps=5)
    assert set(state.params) == {"Dense_0"} or set(state.params) == {"SpectralNorm_0", "Dense_0"}
    if isinstance(model, Constants):
        assert state.model_state["constants"]["scale"] == 2.0 and state.model_state["constants"]["count"] == 7
    else:
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before.model_state, state.model_state)
        assert any(jax.tree.leaves(moved))


def test_whole_numbers_and_booleans_among_the_parameters_do_not_move(tiny):
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    before = jm.init_state(Integers(), optimizer, 0, tiny.train.inputs)
    assert set(before.params["Dense_0"]) == {"kernel", "bias"} and before.params["order"] is None
    state, _ = jm.fit(Integers(), optimizer, before, tiny.train, jm.example_order(47, 0, 40), 8, num_steps=5)
    wanted = Integers().init(jax.random.key(0), tiny.train.inputs[:1] / np.float32(255))["params"]
    found = state.model_state.integers
    np.testing.assert_array_equal(found["order"], wanted["order"])
    np.testing.assert_array_equal(found["is_seen"], wanted["is_seen"])
    assert not np.array_equal(state.params["Dense_0"]["kernel"], wanted["Dense_0"]["kernel"])


def is_dropped_in_training_alone(model, tiny):
    """Returns whether outputs differ by key in training, and not at all in evaluation."""
    made = model_factory(model)()
    inputs = jnp.asarray(tiny.train.inputs, jnp.float32) / 255
    params, state = made.init(jax.random.key(0), inputs[:1])
    first, second = (made.apply(params, state, inputs, training=True, key=jax.random.key(key))[0] for key in (1, 2))
    kept, again = (made.apply(params, state, inputs, training=False, key=None)[0] for _ in range(2))
    return not np.allclose(first, second) and np.array_equal(kept, again) and not np.allclose(kept, first)


@pytest.mark.parametrize(
    "model",
    [
        *(with_argument(flag, default) for flag in LINEN_FLAGS for default in (False, True, None)),
        Field(),
        Field(training=True),
        Required(),
        Asks(),
        nn.Sequential([flat, nn.Dense(9), nn.Dropout(0.5), nn.Dense(4)]),
    ],
)
def test_a_training_flag_reaches_a_module_under_whatever_name_it_has(tiny, model):
    assert is_dropped_in_training_alone(model, tiny)


@pytest.mark.parametrize("kind", ["argument", "field", "second call"])
def test_a_flag_within_a_module_that_nobody_sets_is_refused_by_name(tiny, kind):
    flag = "train" if kind == "argument" else "deterministic"
    message = rf"model Within has the flag {flag} of \w+ alike in training and in evaluation"
    with pytest.raises(ValueError, match=message):
        jm.check(Within(kind), optax.sgd, RUNS, tiny, 2)
    with pytest.raises(ValueError, match=message):
        jm.init_state(Within(kind), optax.sgd(0.1), 0, tiny.train.inputs)


@pytest.mark.slow
def test_a_swept_rate_of_dropout_changes_what_is_learned(tiny):
    class Dropped(nn.Module):
        rate: float = 0.0

        @nn.compact
        def __call__(self, images, deterministic: bool = True):
            return nn.Dense(4)(nn.Dropout(self.rate, deterministic=deterministic)(flat(images)))

    runs = jm.grid(rate=[0.0, 0.5, 0.95], learning_rate=0.1, batch_size=8, seed=0)
    result = jm.sweep(Dropped(), optax.sgd, runs, tiny, num_steps=4, progress=False)
    assert len(np.unique(result["validation_loss"])) == 3


def test_a_module_that_can_be_trained_but_not_evaluated_is_refused_before_it_trains(tiny):
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, images):
            noise = jax.random.normal(self.make_rng("dropout"), (1, 1))
            return nn.Dense(4)(flat(images) + noise)

    with pytest.raises(ValueError, match=r"(?s)model Noisy cannot be evaluated.*PRNG for \"dropout\""):
        jm.check(Noisy(), optax.sgd, RUNS, tiny, 2)


def test_examples_that_influence_each_other_in_evaluation_are_refused(tiny):
    class Centred(nn.Module):
        @nn.compact
        def __call__(self, images):
            hidden = flat(images)
            return nn.Dense(4)(hidden - hidden.mean(axis=0, keepdims=True))

    with pytest.raises(ValueError, match="model Centred gives an example outputs that depend on the others"):
        jm.check(Centred(), optax.sgd, RUNS, tiny, 2)


@pytest.mark.parametrize("first", mostly_slow(("layer", "batch"), "layer"))
@pytest.mark.slow
def test_whether_examples_interact_may_depend_on_a_swept_field(tiny, first):
    class Chosen(nn.Module):
        norm: str = "layer"

        @nn.compact
        def __call__(self, images, train: bool = False):
            norm = nn.LayerNorm() if self.norm == "layer" else nn.BatchNorm(use_running_average=not train)
            return nn.Dense(4)(norm(flat(images)))

    def losses(model, runs):
        return jm.sweep(model, optax.sgd, runs, tiny, num_steps=4, progress=False)["validation_loss"]

    norms = sorted(["batch", "layer"], reverse=first == "layer")
    together = losses(Chosen(), jm.grid(norm=norms, learning_rate=0.1, batch_size=[5, 8], seed=0))
    for norm in norms:
        alone = losses(Chosen(norm), jm.grid(learning_rate=0.1, batch_size=5, seed=0))
        np.testing.assert_allclose(together.sel(norm=norm, batch_size=5).item(), alone.item(), rtol=1e-5)


def labels(params):
    return {name: "trained" if name == "Dense_1" else "frozen" for name in params}


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda learning_rate: optax.multi_transform(
            {"trained": optax.sgd(learning_rate), "frozen": optax.set_to_zero()}, labels
        ),
        pytest.param(
            lambda learning_rate: optax.chain(
                optax.sgd(learning_rate),
                optax.masked(optax.set_to_zero(), lambda params: {name: name != "Dense_1" for name in params}),
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_optimizer_sees_the_parameters_by_layer(tiny, optimizer):
    model = jm.MLP(6, 4)
    result = jm.sweep(model, optimizer, RUNS, tiny, num_steps=3, progress=False)
    run = jm.rerun(result, learning_rate=0.5, seed=0, dataset=tiny, model=model, optimizer=optimizer)
    initial = jm.init_state(model, optax.sgd(0.1), 0, tiny.train.inputs).params
    assert set(initial) == set(run.params) == {"Dense_0", "Dense_1"}
    for layer, moves in (("Dense_0", False), ("Dense_1", True)):
        # Compiled together with what follows, initial parameters may differ by rounding.
        difference = np.abs(np.asarray(initial[layer]["kernel"]) - np.asarray(run.params[layer]["kernel"])).max()
        assert (difference > 1e-4) if moves else (difference < 1e-6)

"""What training would get wrong about a module is refused before anything trains."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.core.model import FLAGS, apply

RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=8, seed=range(2))


def flat(images):
    return images.reshape(images.shape[0], -1)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(4)(nn.BatchNorm(use_running_average=not self.has_rng("dropout"))(flat(images)))


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.SpectralNorm(nn.Dense(4))(flat(images), update_stats=False)


class Constants(nn.Module):
    @nn.compact
    def __call__(self, images):
        scale = self.variable("constants", "scale", lambda: jnp.float32(2.0))
        return nn.Dense(4)(flat(images)) * scale.value


def with_argument(flag, default):
    """Returns a module that drops out as an argument of its call says."""

    class Flagged(nn.Module):
        @nn.compact
        def __call__(self, images, **given):
            value = given.get(flag, default)
            return nn.Dense(4)(nn.Dropout(0.5)(flat(images), deterministic=value))

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
    """Drops out as this version asks of a module."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, images):
        hidden = Block()(flat(images), train=self.has_rng("dropout"))
        return nn.Dense(4)(hidden)


@pytest.mark.parametrize(
    ("model", "collection"), [(Normalised(), "batch_stats"), (Spectral(), "batch_stats"), (Constants(), "constants")]
)
def test_a_collection_that_would_be_trained_is_refused_by_name(tiny, model, collection):
    message = rf"model {type(model).__name__} has the collection '{collection}', .* only 'params'"
    with pytest.raises(ValueError, match=message):
        jm.sweep(model, optax.sgd, RUNS, tiny, num_steps=2, progress=False)
    with pytest.raises(ValueError, match=message):
        jm.init_state(model, optax.sgd(0.1), 0, tiny.train.inputs)


@pytest.mark.parametrize(
    ("model", "flag"),
    [
        *((with_argument(flag, default), flag) for flag in FLAGS for default in (False, True, None)),
        (Field(), "training"),
        (Field(training=True), "training"),
        (Required(), "train"),
        (Within("argument"), "train"),
        (Within("field"), "deterministic"),
        (Within("second call"), "deterministic"),
    ],
)
def test_a_flag_that_would_never_be_set_is_refused_by_name(tiny, model, flag):
    message = rf"model \w+ has the .*\b{flag}\b.*has_rng\(\"dropout\"\)"
    with pytest.raises(ValueError, match=message):
        jm.check(model, optax.sgd, RUNS, tiny, 2)
    with pytest.raises(ValueError, match=message):
        jm.init_state(model, optax.sgd(0.1), 0, tiny.train.inputs)


def test_a_module_that_can_be_trained_but_not_evaluated_is_refused_before_it_trains(tiny):
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, images):
            noise = jax.random.normal(self.make_rng("dropout"), (1, 1))
            return nn.Dense(4)(flat(images) + noise)

    with pytest.raises(ValueError, match=r"(?s)model Noisy .*PRNG for \"dropout\""):
        jm.check(Noisy(), optax.sgd, RUNS, tiny, 2)


def test_what_is_refused_may_depend_on_a_swept_field(tiny):
    class Chosen(nn.Module):
        norm: str = "layer"

        @nn.compact
        def __call__(self, images):
            norm = nn.LayerNorm() if self.norm == "layer" else nn.BatchNorm(use_running_average=False)
            return nn.Dense(4)(norm(flat(images)))

    jm.check(Chosen(), optax.sgd, RUNS | {"norm": np.array(["layer"] * 4)}, tiny, 2)
    for norms in (["layer", "batch"], ["batch", "layer"]):
        with pytest.raises(ValueError, match="batch_stats"):
            jm.check(Chosen(), optax.sgd, jm.grid(norm=norms, learning_rate=0.1, batch_size=8, seed=0), tiny, 2)


def test_a_module_that_asks_for_its_key_drops_out_in_training_alone(tiny):
    result = jm.sweep(Asks(), optax.sgd, RUNS, tiny, num_steps=3, progress=False)
    run = jm.rerun(result, learning_rate=0.5, seed=1, dataset=tiny, model=Asks())
    np.testing.assert_allclose(run.validation.loss, result["validation_loss"].sel(learning_rate=0.5, seed=1), rtol=1e-5)
    images = jnp.asarray(tiny.train.inputs, jnp.float32) / 255
    kept, dropped = (apply(Asks(), run.params, images, **keys) for keys in ({}, {"dropout": jax.random.key(0)}))
    assert not np.allclose(kept, dropped)


def labels(params):
    return {name: "trained" if name == "Dense_1" else "frozen" for name in params}


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda learning_rate: optax.multi_transform(
            {"trained": optax.sgd(learning_rate), "frozen": optax.set_to_zero()}, labels
        ),
        lambda learning_rate: optax.chain(
            optax.sgd(learning_rate),
            optax.masked(optax.set_to_zero(), lambda params: {name: name != "Dense_1" for name in params}),
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
        assert np.array_equal(initial[layer]["kernel"], run.params[layer]["kernel"]) == (not moves)

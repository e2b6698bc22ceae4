"""What a newcomer gives by mistake is told what to do instead, before anything is trained."""

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

TOKENS = np.random.default_rng(0).integers(0, 20, (60, 7)).astype(np.int32)
LABELS = TOKENS.sum(axis=1) % 2
RUNS = jm.grid(learning_rate=0.1, batch_size=8, seed=0)


class OfTokens(nn.Module):
    """A classifier of tokens below 20."""

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(2)(nn.Embed(20, 3)(tokens).mean(axis=1))


@pytest.mark.parametrize(
    ("model", "inputs", "labels", "words"),
    [
        (nn.Dense(2), TOKENS / 20, LABELS + 1, r"labels from 1 to 2 belong to 3 classes: subtract 1 from them, or set"),
        (nn.Dense(3), TOKENS / 20, LABELS, r"labels from 0 to 1 belong to 2 classes: set num_classes=2"),
        (OfTokens(), TOKENS.astype(np.uint8), LABELS, r"inputs uint8\[7\]: .*; give whole numbers as int32\)"),
        (OfTokens(), TOKENS + 1, LABELS, r"infinity for inputs that are .*numbers from 1 to 20: an embedding"),
        (nn.Dense(2), TOKENS.astype(np.float32)[..., None], LABELS, r"returns a .* \(2, 7, 2\); logits \[B, K\]"),
        (
            hk.transform(lambda inputs: hk.Linear(2)(inputs) + jnp.ones((1, 5))), TOKENS / 20, LABELS,
            r"inputs float64\[7\]: add got incompatible shapes",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_what_is_right(model, inputs, labels, words):
    with pytest.raises(ValueError, match=words):
        jm.check(model, optax.sgd, RUNS, jm.from_arrays(inputs, labels), 3)


def test_tokens_of_every_row_of_an_embedding_are_taken():
    jm.check(OfTokens(), optax.sgd, RUNS, jm.from_arrays(TOKENS, LABELS), 3)


REALS = np.random.default_rng(1).normal(size=(60, 7))
DATA = jm.from_arrays(REALS, LABELS)
MODEL = nn.Dense(2)


def of_inputs(inputs):
    return hk.Linear(2)(inputs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(augment=lambda key, inputs: inputs.astype(int)), r"augment returns an int32 .* inputs float32\[2, 7\]"),
        (dict(augment=lambda key, inputs: inputs[:, :3]), r"augment returns .* shape \(2, 3\) for inputs"),
        (dict(augment=lambda key, inputs: None), r"augment returns None for inputs"),
        (dict(augment=lambda inputs: inputs), r"augment cannot change inputs .* takes 1 positional"),
        (dict(augment=jm.Affine()), r"augment cannot change .*: jm.Affine moves images \[B, H, W, C\].* \[2, 7\]"),
        (dict(augment=lambda key, inputs, by: by * inputs, by=2.0, dtype="float64"), None),
        (dict(evaluation_params=lambda opt_state, params: opt_state.average), "evaluation_params cannot .*'average'"),
        (dict(evaluation_params=lambda _, params: params["kernel"]), "evaluation_params does not return a tree"),
        (dict(momentun=0.9), "hyperparameter momentun: optimizer sgd takes learning_rate, momentum, .* Dense takes"),
        (dict(momentun=0.9, decay=0.1, augment=jm.Affine()), "momentun or decay: .*; augment takes rotation, scale"),
        (dict(optimizer=optax.trace), r"the hyperparameter learning_rate: optimizer trace takes decay, "),
        (dict(optimizer=lambda learning_rate, beta: optax.sgd(beta)), "needs a value of beta, such as an axis"),
        (dict(model=of_inputs), r"of_inputs needs a value of inputs, .*, or give hk.transform of it if"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(given, words):
    given = dict(given)
    more = {name: given.pop(name) for name in list(given) if name in ("augment", "evaluation_params", "dtype")}
    model, optimizer = given.pop("model", MODEL), given.pop("optimizer", optax.sgd)
    runs = jm.grid(learning_rate=0.1, batch_size=8, seed=0, **given)
    if words is None:
        jm.check(model, optimizer, runs, DATA, 3, **more)
        return
    with pytest.raises(ValueError, match=words) as caught:
        jm.check(model, optimizer, runs, DATA, 3, **more)
    assert "cannot be built" not in str(caught.value)


def test_an_augmentation_is_named_in_a_single_run_too(tmp_path):
    def halved(key, inputs):
        return inputs[:, ::2]

    optimizer, batch = optax.sgd(0.1), jm.Batch(*(array[:4] for array in DATA.train), np.ones(4, np.float32))
    state = jm.init_state(MODEL, optimizer, 0, DATA.train.inputs)
    with pytest.raises(ValueError, match="augment returns"):
        jm.train_step(MODEL, optimizer, state, batch, augment=halved)
    with pytest.raises(ValueError, match="augment returns"):
        jm.fit(MODEL, optimizer, state, DATA.train, np.arange(8), 4, num_steps=2, augment=halved)
    with pytest.raises(ValueError, match="augment returns"):
        jm.train_run(
            MODEL, optimizer, DATA, 0, batch_size=4, num_steps=2, evaluation_steps=1, folder=tmp_path, augment=halved
        )


@pytest.mark.parametrize("field", ["inputs", "targets"])
@pytest.mark.parametrize(("large", "words"), [(1e300, r"1e\+300, .* float32"), (2**40, "1099511627776, .* int32")])
def test_numbers_beyond_the_type_that_is_computed_with_are_named(tmp_path, field, large, words):
    def outputs(inputs):
        return nn.Dense(7)(inputs.astype(jnp.float32))

    given = {"inputs": np.ones((8, 7)), "targets": np.ones((8, 7))}
    given[field] = np.full((8, 7), large)
    split, model = jm.Split(**given), nn.Sequential([outputs])
    data, optimizer = jm.Dataset("large", (), split, split, split), optax.sgd(0.1)
    state = jm.init_state(model, optimizer, 0, np.ones((1, 7), np.float32))
    calls = {
        f"dataset.train.{field}": [
            lambda: jm.check(model, optax.sgd, RUNS, data, 1, loss=jm.losses.squared_error),
            lambda: jm.train_run(
                model, optimizer, data, 0, batch_size=4, num_steps=2, evaluation_steps=1, folder=tmp_path,
                loss=jm.losses.squared_error,
            ),
        ],
        f"split.{field}": [
            lambda: jm.evaluate(model, state.params, split, loss=jm.losses.squared_error),
            lambda: jm.fit(
                model, optimizer, state, split, np.arange(8), 4, num_steps=2, loss=jm.losses.squared_error
            ),
        ],
    }  # fmt: skip
    for name, each in calls.items():
        for call in each:
            with pytest.raises(ValueError, match=rf"{name} has numbers from \S+ to {words} holds"):
                call()
    jm.check(model, optax.sgd, RUNS, data, 1, loss=jm.losses.squared_error, dtype="float64")


def switched(inputs, use_dropout=False):
    return hk.Linear(2)(inputs * 2 if use_dropout else inputs)


class Masked(nn.Module):
    @nn.compact
    def __call__(self, inputs, mask):
        return nn.Dense(2)(inputs * mask)


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(7, 2, rngs=rngs)

    def __call__(self, inputs, enable_dropout: bool = True):
        return self.layer(inputs)


class Equinox(eqx.Module):
    layer: eqx.nn.Linear

    def __init__(self, *, key):
        self.layer = eqx.nn.Linear(7, 2, key=key)

    def __call__(self, inputs, in_training):
        return self.layer(inputs)


def zeros(key, inputs):
    return jnp.zeros((7, 2))


def product(kernel, inputs, dropout=True):
    return inputs @ kernel


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (hk.transform(switched), "model hk.transform takes use_dropout"),
        (Masked(), "model Masked takes mask"),
        (Nnx, "model Nnx takes enable_dropout"),
        (Equinox, "model Equinox takes in_training"),
        ((zeros, product), "model product takes dropout"),
    ],
)
def test_a_training_flag_of_another_name_is_told_the_names_that_are_known(model, words):
    with pytest.raises(ValueError, match=rf"the call of {words}, which nothing sets: .* train, training, .* eval_mode"):
        jm.check(model, optax.sgd, RUNS, DATA, 3)


def test_a_required_flag_of_haiku_is_set():
    def dropped(inputs, is_train):
        return hk.Linear(2)(hk.dropout(hk.next_rng_key(), 0.5, inputs) if is_train else inputs)

    model, inputs = model_factory(hk.transform(dropped))(), jnp.ones((8, 7))

    @jax.jit
    def outputs(keys):
        params, state = model.init(keys[0], inputs)
        trained = [model.apply(params, state, inputs, training=True, key=key)[0] for key in keys]
        return *trained, model.apply(params, state, inputs, training=False, key=None)[0], inputs @ params["linear"]["w"]

    first, second, kept, expected = outputs(jax.random.split(jax.random.key(0)))
    assert not np.allclose(first, second)
    np.testing.assert_allclose(kept, expected, rtol=1e-5)

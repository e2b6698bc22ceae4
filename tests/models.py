"""Networks of every library, on images `[B, 6, 5, 1]` of 4 classes; and functions that return others."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import jaxmnist as jm


def flat(inputs):
    return inputs.reshape(inputs.shape[0], -1)


class Linen(nn.Module):
    """A linen network with batch normalisation and dropout."""

    hidden: int = 6
    rate: float = 0.2

    @nn.compact
    def __call__(self, images, train: bool = False):
        hidden = nn.BatchNorm(use_running_average=not train, momentum=0.8)(nn.Dense(self.hidden)(flat(images)))
        return nn.Dense(4)(nn.Dropout(self.rate, deterministic=not train)(nn.relu(hidden)))


class Integers(nn.Module):
    """A linen network with whole numbers and booleans among its parameters, which are no parameters."""

    @nn.compact
    def __call__(self, images):
        order = self.param("order", lambda key: jax.random.permutation(key, 30))
        is_seen = self.param("is_seen", lambda key: jax.random.bernoulli(key, 0.8, (1, 30)))
        return nn.Dense(4)(jnp.where(is_seen, flat(images)[:, order], 0.0))


class Narrow(nn.Module):
    """Softmax regression with parameters in bfloat16."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(4, param_dtype=jnp.bfloat16)(flat(images)).astype(jnp.float32)


class Nnx(nnx.Module):
    """The same of NNX, which `train()` and `eval()` switch."""

    def __init__(self, hidden: int = 6, rate: float = 0.2, *, rngs):
        self.first = nnx.Linear(30, hidden, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, momentum=0.8, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.second = nnx.Linear(hidden, 4, rngs=rngs)

    def __call__(self, images):
        return self.second(self.drop(nnx.relu(self.norm(self.first(flat(images))))))


class Equinox(eqx.Module):
    """The same of Equinox, for one image; its state is batch statistics."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    second: eqx.nn.Linear

    def __init__(self, hidden: int = 6, rate: float = 0.2, *, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(30, hidden, key=keys[0])
        self.norm = eqx.nn.BatchNorm(hidden, axis_name="batch", momentum=0.8, mode="batch")
        self.drop = eqx.nn.Dropout(rate)
        self.second = eqx.nn.Linear(hidden, 4, key=keys[1])

    def __call__(self, image, state, *, key):
        hidden, state = self.norm(self.first(image.reshape(-1)), state)
        return self.second(self.drop(jax.nn.relu(hidden), key=key)), state


class Plain(eqx.Module):
    """An Equinox network without state, of which a factor and a count are not trained."""

    layer: eqx.nn.Linear
    factor: float
    count: jax.Array

    def __init__(self, factor: float = 2.0, *, key):
        self.layer = eqx.nn.Linear(30, 4, key=key)
        self.factor, self.count = factor, jnp.int32(3)

    def __call__(self, image):
        return self.layer(image.reshape(-1)) * self.factor * (self.count / 3)


@hk.transform_with_state
def haiku_with_state(images, is_training):
    """The same network as a Haiku transform."""
    hidden = hk.BatchNorm(True, True, 0.8)(hk.Linear(6)(flat(images)), is_training)
    hidden = jax.nn.relu(hidden)
    return hk.Linear(4)(hk.dropout(hk.next_rng_key(), 0.2, hidden) if is_training else hidden)


@hk.transform
def haiku(images):
    """A Haiku transform without state."""
    return hk.Linear(4)(flat(images))


def pair():
    """Returns softmax regression as a pair of functions."""

    def init(key, inputs):
        return {"weights": jnp.zeros((flat(inputs).shape[1], 4)), "bias": jnp.zeros(4)}

    def apply(params, inputs):
        return flat(inputs) @ params["weights"] + params["bias"][None]

    return init, apply


def counting():
    """Returns softmax regression as a `Model` that counts its training steps."""
    init, apply = pair()

    def apply_and_count(params, state, inputs, *, training, key):
        return apply(params, inputs), {"steps": state["steps"] + 1} if training else state

    return jm.Model(lambda key, inputs: (init(key, inputs), {"steps": jnp.int32(0)}), apply_and_count)


def normal(shift: float = 0.0, size: int = 4):
    """A factory of linen modules with hyperparameters of its own, one traced and one that decides a shape."""
    return nn.Sequential([flat, lambda inputs: inputs + shift, nn.Dense(size), nn.Dense(4)])


# Each with axes of its own.
MODELS = {
    "linen": (Linen(), dict(rate=[0.1, 0.5])),
    "integers": (Integers(), {}),
    "nnx": (Nnx, dict(rate=[0.1, 0.5])),
    "equinox with state": (Equinox, dict(rate=[0.1, 0.5])),
    "equinox": (Plain, dict(factor=[1.0, 3.0])),
    "haiku with state": (haiku_with_state, {}),
    "haiku": (haiku, {}),
    "haiku without keys": (hk.without_apply_rng(haiku), {}),
    "pair": (pair(), {}),
    "model": (counting(), {}),
    "factory": (normal, dict(shift=[0.0, 0.5], size=[3, 4])),
    "list": (nn.Sequential([flat, nn.Dense(5), nn.relu, nn.Dense(4)]), {}),
}

"""The original CNN as users of four libraries would write it: plainly, with their own layers."""

import importlib.util

import flax.linen as nn
import jax
from flax import nnx


class Linen(nn.Module):
    """In flax linen."""

    @nn.compact
    def __call__(self, images, train: bool = False):
        for features in (32, 64):
            images = nn.max_pool(nn.relu(nn.Conv(features, (5, 5))(images)), (2, 2), (2, 2))
        hidden = nn.relu(nn.Dense(1024)(images.reshape(images.shape[0], -1)))
        return nn.Dense(10)(nn.Dropout(0.5, deterministic=not train)(hidden))


class Nnx(nnx.Module):
    """In flax NNX."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first, self.second = nnx.Conv(1, 32, (5, 5), rngs=rngs), nnx.Conv(32, 64, (5, 5), rngs=rngs)
        self.hidden, self.last = nnx.Linear(7 * 7 * 64, 1024, rngs=rngs), nnx.Linear(1024, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images):
        for convolution in (self.first, self.second):
            images = nnx.max_pool(nnx.relu(convolution(images)), (2, 2), (2, 2))
        hidden = nnx.relu(self.hidden(images.reshape(images.shape[0], -1)))
        return self.last(self.dropout(hidden))


def equinox_network():
    """Returns a class of Equinox modules, for one image whose channel comes last."""
    import equinox as eqx

    class Network(eqx.Module):
        """In Equinox, whose images have their channels first."""

        convolutions: list
        pool: eqx.nn.MaxPool2d
        hidden: eqx.nn.Linear
        dropout: eqx.nn.Dropout
        last: eqx.nn.Linear

        def __init__(self, *, key):
            keys = jax.random.split(key, 4)
            sizes = ((1, 32), (32, 64))
            self.convolutions = [
                eqx.nn.Conv2d(*size, 5, padding="SAME", key=key) for size, key in zip(sizes, keys[:2], strict=True)
            ]
            self.pool = eqx.nn.MaxPool2d(2, 2)
            self.hidden, self.last = eqx.nn.Linear(7 * 7 * 64, 1024, key=keys[2]), eqx.nn.Linear(1024, 10, key=keys[3])
            self.dropout = eqx.nn.Dropout(0.5)

        def __call__(self, image, *, key):
            image = image.transpose(2, 0, 1)
            for convolution in self.convolutions:
                image = self.pool(jax.nn.relu(convolution(image)))
            return self.last(self.dropout(jax.nn.relu(self.hidden(image.ravel())), key=key))

    return Network


def haiku_network():
    """Returns a Haiku transform."""
    import haiku as hk

    def network(images, is_training):
        for features in (32, 64):
            images = hk.max_pool(jax.nn.relu(hk.Conv2D(features, 5)(images)), (2, 2, 1), (2, 2, 1), "VALID")
        hidden = jax.nn.relu(hk.Linear(1024)(hk.Flatten()(images)))
        hidden = hk.dropout(hk.next_rng_key(), 0.5, hidden) if is_training else hidden
        return hk.Linear(10)(hidden)

    return hk.transform(network)


def networks() -> dict:
    """Returns the network of each library that is installed, by its name."""
    found: dict = {"flax linen": Linen(), "flax NNX": Nnx}
    for name, module, make in (
        ("Equinox", "equinox", equinox_network), ("Haiku", "haiku", haiku_network),
    ):  # fmt: skip
        if importlib.util.find_spec(module) is not None:
            found[name] = make()
    return found

"""A class or factory of flax NNX modules as a model: it is called with its hyperparameters and `rngs`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmnist.core.adapters.flags import call_flags
from jaxmnist.core.inputs import random_key
from jaxmnist.core.model import Model


def adapt(make: Callable[..., nnx.Module]) -> Model:
    """Returns a factory of NNX modules as a model.

    Variables of type `nnx.Param` are its parameters; all others are its state, except those of random streams, which
    are keyed anew at each step. Modules within it are switched as NNX itself does it.

    Args:
      make: is called with `rngs`.
    """

    def build(key) -> Any:
        return nnx.split(make(rngs=nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)

    def init(key, inputs):
        _, params, _, state = build(key)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(params, state, inputs, *, training, key=None):
        key = random_key(0) if key is None else key
        # The structure alone: its numbers are replaced, and the compiler leaves out what computes them. (`eval_shape`
        # would keep the structure, with any traced hyperparameter in it, and later compare others with it.)
        graph, params_like, streams, state_like = build(key)
        own = _filled(params_like, params), _keyed(streams, key), _filled(state_like, state)
        module = nnx.merge(graph, *own)
        (module.train if training else module.eval)()
        outputs = module(inputs, **call_flags(type(module).__name__, module.__call__, training))
        parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return outputs, nnx.to_pure_dict(parts[-1])

    return Model(init, apply)


def _filled(like: nnx.State, values) -> nnx.State:
    """Returns a state of the given structure with the given values."""
    nnx.replace_by_pure_dict(like, values)
    return like


def _keyed(streams: nnx.State, key: jax.Array) -> nnx.State:
    """Returns the random streams at their start, each with a key of its own."""
    leaves, structure = jax.tree.flatten(streams)
    is_key = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    fresh = [
        jax.random.fold_in(key, place) if leaf_is_key else jnp.zeros(leaf.shape, leaf.dtype)
        for place, (leaf, leaf_is_key) in enumerate(zip(leaves, is_key, strict=True))
    ]
    return jax.tree.unflatten(structure, fresh)

"""A class or factory of Equinox modules as a model: it is called with its hyperparameters and `key`.

Shapes: B examples of a batch.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxmnist.core.adapters.flags import argument_names, call_flags
from jaxmnist.core.inputs import random_key
from jaxmnist.core.model import Model

# The name that Equinox's own examples give to the axis of a batch, which `eqx.nn.BatchNorm` is told.
AXIS = "batch"


def adapt(make: Callable[..., eqx.Module], make_plain: Callable[..., eqx.Module]) -> Model:
    """Returns a factory of Equinox modules as a model.

    A module maps one example; it is mapped over the batch, along an axis named `"batch"`. Its floating-point arrays
    are its parameters; other arrays, and what its `eqx.nn.State` holds, are its state. It is given `key` and `state`
    if its call has arguments of these names.

    Args:
      make: is called with `key`.
      make_plain: the same with a number in place of each traced hyperparameter, so that it can be told which arrays
        are parameters: a traced dropout rate is not.
    """

    def build(key):
        return eqx.nn.make_with_state(make)(key=key)

    def split(module):
        """Returns the floating-point arrays of a module, its other arrays, and the rest."""
        plain, _ = eqx.filter_eval_shape(lambda key: eqx.nn.make_with_state(make_plain)(key=key), random_key(0))
        is_param = jax.tree.map(_is_floating, plain)
        params, rest = eqx.partition(module, is_param)
        constants, static = eqx.partition(rest, _is_array)
        return params, constants, static

    def init(key, inputs):
        module, state = build(key)
        params, constants, _ = split(module)
        remembered = {"constants": constants, "state": jax.tree.leaves(state)}
        return params, remembered if jax.tree.leaves(remembered) else {}

    def apply(params, state, inputs, *, training, key=None):
        skeleton, like = eqx.filter_eval_shape(build, random_key(0))
        _, nothing, static = split(skeleton)
        constants, leaves = (state["constants"], state["state"]) if state else (nothing, [])
        module = eqx.nn.inference_mode(eqx.combine(params, constants, static), value=not training)
        memory = jax.tree.unflatten(jax.tree.structure(like), leaves)
        takes = argument_names(module.__call__)
        call = functools.partial(module, **call_flags(type(module).__name__, module.__call__, training))

        def one(example, memory, place):
            keywords: dict = {"key": None if key is None else jax.random.fold_in(key, place)} if "key" in takes else {}
            if "state" in takes:
                return call(example, memory, **keywords)
            return call(example, **keywords), memory

        places = jnp.arange(inputs.shape[0], dtype=jnp.uint32)
        mapped = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name=AXIS)
        outputs, memory = mapped(inputs, memory, places)
        return outputs, {"constants": constants, "state": jax.tree.leaves(memory)} if state else {}

    return Model(init, apply)


def _is_array(leaf) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) or eqx.is_array(leaf)


def _is_floating(leaf) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)

"""Flax linen modules as the two functions that training needs, `init` and `apply`.

Training knows parameters alone. A module that needs more (running statistics, a flag that says whether it is being
trained) would be trained wrongly without a word, so it is refused.
"""

import dataclasses
import functools
import inspect
import operator
from typing import Any

import flax.linen as nn
import jax
import optax

FLAGS = ("train", "training", "is_training", "deterministic", "use_running_average")
INSTEAD = 'have the module ask self.has_rng("dropout"), which is true in training alone'


class UnsupportedModel(ValueError):  # noqa: N818 (it is a limit of this version, not a mistake of the model's)
    """A model that would be trained wrongly."""


def init_params(model: nn.Module, key: jax.Array, inputs: jax.Array) -> optax.Params:
    """Returns the parameters of a module, the collection `params` itself.

    Args:
      model: the module.
      key: decides the parameters.
      inputs: `[B, H, W, C]` float32; only their shape is used.

    Raises:
      UnsupportedModel: the module has another collection, or a training flag.
    """
    check_signature(model)
    variables = model.init(key, inputs)
    others = sorted(set(variables) - {"params"})
    if others:
        raise UnsupportedModel(
            f"model {named(model)} has the collection {others[0]!r}, which would be trained as if it were parameters; "
            "only 'params' is allowed, as of nn.LayerNorm or nn.GroupNorm in place of nn.BatchNorm"
        )
    return variables.get("params", {})


def apply(model: nn.Module, params: optax.Params, inputs: jax.Array, **keys: jax.Array) -> Any:
    """Returns the outputs of a module: in training with a key named `dropout`, in evaluation without any key."""
    return model.apply({"params": params}, inputs, rngs=keys)


def check_signature(model: nn.Module) -> None:
    """Raises UnsupportedModel if a module itself has a training flag, as an argument of its call or as a field."""
    fields = {field.name for field in dataclasses.fields(model)}
    arguments = set(inspect.signature(model).parameters) if callable(model) else set()
    for flag in FLAGS:
        if flag in fields | arguments:
            kind = "argument" if flag in arguments else "field"
            raise UnsupportedModel(f"model {named(model)} has the {kind} {flag}, which is never set here: {INSTEAD}")


def check_flags(model: nn.Module, params: optax.Params, inputs: jax.Array, key: jax.Array) -> None:
    """Raises UnsupportedModel if a flag somewhere in a module has the same value in training and in evaluation.

    Nothing is computed: both calls are traced, of any values.

    Args:
      model: the module.
      params: its parameters.
      inputs: `[B, H, W, C]` float32.
      key: of dropout.

    Raises:
      UnsupportedModel: there is such a flag, or the module cannot be evaluated as it can be trained.
    """
    in_training = _flags(model, params, inputs, dropout=key)
    try:
        in_evaluation = _flags(model, params, inputs)
    except Exception as error:  # flax raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModel(
            f"model {named(model)} can be trained but not evaluated, where no key is given: {reason}"
        ) from error
    for (path, flag), values in in_training.items():
        if any(map(operator.eq, values, in_evaluation.get((path, flag), []))):
            raise UnsupportedModel(
                f"model {named(model)} has the flag {flag} of {path} alike in training and in evaluation: {INSTEAD}"
            )


def _flags(model, params, inputs, **keys) -> dict[tuple[str, str], list[bool]]:
    """Returns the training flags of all modules within a module: (path, flag) to its values, call by call."""
    found: dict[tuple[str, str], list[bool]] = {}

    def record(call, args, kwargs, context):
        given = inspect.signature(context.orig_method).bind(*args, **kwargs)
        given.apply_defaults()
        for flag in FLAGS:
            value = given.arguments.get(flag)
            value = getattr(context.module, flag, None) if value is None else value
            # A flag of None says nothing: flax itself raises if it needs one.
            if isinstance(value, bool):
                found.setdefault(("/".join(context.module.path), flag), []).append(value)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(functools.partial(apply, model, **keys), params, inputs)
    return found


def named(model: nn.Module) -> str:
    """Returns what a model is called in a sentence."""
    return type(model).__name__

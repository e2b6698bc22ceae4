"""The contract between a model and its training, and the adapter that makes a flax linen module keep it.

Training knows two pure functions of a model, `init_params` and `apply`, and parameters alone. A module that needs more
(running statistics, a flag that says whether it is being trained) would be trained wrongly without a word, so it is
refused.

Shapes: B examples of a batch, H x W x C an image, K classes.
"""

import dataclasses
import inspect
import operator
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist import checks
from jaxmnist.core.models import CNN

Shaped = jax.Array | jax.ShapeDtypeStruct
FLAGS = ("train", "training", "is_training", "deterministic", "use_running_average")
INSTEAD = 'have the module ask self.has_rng("dropout"), which is true in training alone'


class UnsupportedModel(ValueError):  # noqa: N818 (it is a limit of this version, not a mistake of the model's)
    """A model that would be trained wrongly."""


def init_params(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> optax.Params:
    """Returns the initial parameters of a module: its collection `params` itself.

    Args:
      model: the module.
      key: decides the parameters.
      image_shape: `(H, W, C)`.

    Raises:
      UnsupportedModel: the module has another collection, or a training flag.
      ValueError: the module does not take such images.
    """
    check_signature(model)
    try:
        if isinstance(model, CNN):
            _check_cnn(model, image_shape)
        variables = model.init(key, jnp.zeros((1, *image_shape), jnp.float32))
    except Exception as error:  # flax raises many kinds
        raise ValueError(
            f"model {named(model)} cannot be initialised for images of shape {image_shape}: {checks.reason(error)}"
        ) from error
    others = sorted(set(variables) - {"params"})
    if others:
        raise UnsupportedModel(
            f"model {named(model)} has the collection {others[0]!r}, which would be trained as if it were parameters; "
            "only 'params' is allowed, as of nn.LayerNorm or nn.GroupNorm in place of nn.BatchNorm"
        )
    return variables.get("params", {})


def apply(model: nn.Module, params: optax.Params, inputs: jax.Array, **keys: jax.Array) -> jax.Array:
    """Returns the logits of a module: in training with a key named `dropout`, in evaluation without any key.

    Args:
      model: the module.
      params: its parameters.
      inputs: `[B, H, W, C]` float32 in `[0, 1]`.
      **keys: random keys by name.

    Returns:
      `[B, K]` float32.

    Raises:
      ValueError: the module does not take these parameters and images, or does not return logits.
    """
    try:
        logits = cast(jax.Array, model.apply({"params": params}, inputs, rngs=keys))
    except Exception as error:  # flax raises many kinds
        raise ValueError(
            f"model {named(model)} does not take these params for images of shape {inputs.shape[1:]}: "
            f"{checks.reason(error)}"
        ) from error
    if getattr(logits, "ndim", None) != 2 or logits.shape[0] != inputs.shape[0]:
        raise ValueError(f"model {named(model)} returns {checks.shown(logits)}; logits [B, K] are needed")
    return logits


def _check_cnn(model: CNN, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError if the kernel sizes are not one for each of the features, or pooling leaves no pixel."""
    if len(model.kernel_sizes) != len(model.features):
        raise ValueError(f"kernel_sizes {model.kernel_sizes} are not one for each of features {model.features}")
    height, width = image_shape[:2]
    if min(height, width) < 2 ** len(set(model.pool_after) & set(range(1, len(model.features) + 1))):
        raise ValueError(f"pool_after {model.pool_after} leaves no pixel of images of {height} x {width}")


def check_signature(model: nn.Module) -> None:
    """Raises UnsupportedModel if a module itself has a training flag, as an argument of its call or as a field."""
    fields = model_fields(model)
    arguments = set(inspect.signature(model).parameters) if callable(model) else set()
    for flag in FLAGS:
        if flag in arguments or flag in fields:
            kind = "argument" if flag in arguments else "field"
            raise UnsupportedModel(f"model {named(model)} has the {kind} {flag}, which is never set here: {INSTEAD}")


def check_flags(model: nn.Module, params: optax.Params, inputs: Shaped, key: Shaped) -> None:
    """Raises UnsupportedModel if a flag somewhere in a module has the same value in training and in evaluation.

    Nothing is computed: both calls are traced.

    Args:
      model: the module.
      params: its parameters.
      inputs: `[B, H, W, C]` float32.
      key: of dropout.

    Raises:
      UnsupportedModel: there is such a flag, or the module can be trained but not evaluated.
    """
    in_training = _flags(model, params, inputs, dropout=key)
    try:
        in_evaluation = _flags(model, params, inputs)
    except Exception as error:  # flax raises many kinds
        raise UnsupportedModel(
            f"model {named(model)} can be trained but not evaluated, where no key is given: "
            f"{checks.reason(error.__cause__ or error)}"
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
            value: Any = given.arguments.get(flag)
            value = getattr(context.module, flag, None) if value is None else value
            # A flag of None says nothing: flax itself raises if it needs one.
            if isinstance(value, bool):
                found.setdefault(("/".join(context.module.path), flag), []).append(value)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda params, inputs, keys: apply(model, params, inputs, **keys), params, inputs, keys)
    return found


def model_fields(model: nn.Module) -> list[str]:
    """Returns the names of a module's own fields."""
    return [field.name for field in dataclasses.fields(model) if field.name not in ("name", "parent")]


def named(model: nn.Module) -> str:
    """Returns what a model is called in a sentence."""
    return type(model).__name__

"""A flax linen module as a model: any collections, and its training flags set wherever they are.

Shapes: B examples of a batch.
"""

import dataclasses
import inspect
import operator
from typing import Any

import flax.linen as nn
import jax

from jaxmnist import checks
from jaxmnist.core.adapters.flags import FLAGS, NAMES, call_flags, flags
from jaxmnist.core.model import Model, UnsupportedModel
from jaxmnist.core.models import CNN

# What modules `sow` for a caller who asks for it, which training does not.
NOT_CARRIED = "intermediates"
Shaped = jax.Array | jax.ShapeDtypeStruct


def fields(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of a module's own fields, without the training flags."""
    names = [field.name for field in dataclasses.fields(module) if field.name not in ("name", "parent")]
    return tuple(name for name in names if name not in FLAGS)


def adapt(module: nn.Module) -> Model:
    """Returns a linen module as a model.

    Its parameters are the collection `params` itself; all other collections are its state. In training it is given a
    random key named `dropout`, and streams of other names take theirs from another one.
    """
    own = [field.name for field in dataclasses.fields(module)]
    name, call = type(module).__name__, module if callable(module) else lambda inputs: inputs

    def run(method: str, training: bool, *given, **keywords):
        set_fields = flags(own, training)
        configured = module.clone(**set_fields) if set_fields else module  # type: ignore[arg-type]
        with nn.intercept_methods(_set_flags(training)):
            return getattr(configured, method)(*given, **keywords, **call_flags(name, call, training))

    def init(key, inputs):
        if isinstance(module, CNN):
            _check_cnn(module, inputs.shape[1:])
        variables = dict(run("init", False, key, inputs))
        variables.pop(NOT_CARRIED, None)
        params = variables.pop("params", {})
        _check_flags(module, apply, params, variables, inputs, key)
        return params, variables

    def apply(params, state, inputs, *, training, key=None):
        variables = {"params": params, **state}
        rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)} if training else {}
        if not (training and state):
            return run("apply", training, variables, inputs, rngs=rngs), state
        outputs, after = run("apply", training, variables, inputs, rngs=rngs, mutable=list(state))
        return outputs, {**state, **after}

    return Model(init, apply)


def _set_flags(training: bool):
    """Returns an interceptor that sets the training flags that a module asks for and nobody has set."""

    def set_flags(call, args, kwargs, context):
        if context.method_name == "__call__":
            signature = inspect.signature(context.orig_method)
            given = signature.bind_partial(*args, **kwargs).arguments
            for flag, value in flags(signature.parameters, training).items():
                is_unset = signature.parameters[flag].default is None and given.get(flag) is None
                if is_unset and getattr(context.module, flag, None) is None:
                    kwargs = {**kwargs, flag: value}
        return call(*args, **kwargs)

    return set_flags


def _check_flags(module: nn.Module, apply, params, state, inputs: Shaped, key: Shaped) -> None:
    """Raises UnsupportedModel if a flag within a module has the same value in training and in evaluation.

    Such a flag was left at its default where a module calls another. Nothing is computed: both calls are traced.
    """
    in_training, in_evaluation = (
        _values_of_flags(module, apply, (params, state, inputs, key), training) for training in (True, False)
    )
    for (path, flag), values in in_training.items():
        if any(map(operator.eq, values, in_evaluation.get((path, flag), []))):
            raise UnsupportedModel(
                f"model {type(module).__name__} has the flag {flag} of {path} alike in training and in evaluation: "
                f"have the module that calls it pass its own training flag on, which is called one of {NAMES}"
            )


def _values_of_flags(module, apply, given, training: bool) -> dict[tuple[str, str], list[bool]]:
    """Returns the training flags of all modules within a module: (path, flag) to its values, call by call."""
    found: dict[tuple[str, str], list[bool]] = {}

    def record(call, args, kwargs, context):
        bound = inspect.signature(context.orig_method).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        for flag in FLAGS:
            value: Any = bound.arguments.get(flag)
            value = getattr(context.module, flag, None) if value is None else value
            # A flag of None says nothing: it is set where it is asked for.
            if isinstance(value, bool):
                found.setdefault(("/".join(context.module.path), flag), []).append(value)
        return call(*args, **kwargs)

    def call(params, state, inputs, key):
        return apply(params, state, inputs, training=training, key=key if training else None)

    try:
        with nn.intercept_methods(record):
            jax.eval_shape(call, *given)
    except Exception as error:  # flax raises many kinds
        way = "trained" if training else "evaluated, where no key is given"
        raise UnsupportedModel(f"model {type(module).__name__} cannot be {way}: {checks.reason(error)}") from error
    return found


def _check_cnn(model: CNN, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError if layers are no tuples, kernel sizes are not one for each, or pooling leaves no pixel."""
    for name in ("features", "kernel_sizes", "pool_after"):
        if not checks.is_sequence(getattr(model, name)):
            checks.raise_invalid(name, getattr(model, name), "a tuple of whole numbers, one for each convolution,")
    if len(model.kernel_sizes) != len(model.features):
        raise ValueError(f"kernel_sizes {model.kernel_sizes} are not one for each of features {model.features}")
    height, width = image_shape[:2]
    if min(height, width) < 2 ** len(set(model.pool_after) & set(range(1, len(model.features) + 1))):
        raise ValueError(f"pool_after {model.pool_after} leaves no pixel of images of {height} x {width}")

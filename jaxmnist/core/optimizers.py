"""The optimizers that can be named: on the command line, and by a result that says what it used."""

from collections.abc import Callable

import jax
import optax

from jaxmnist import checks

OptimizerFactory = Callable[..., optax.GradientTransformation]


def update(
    optimizer: optax.GradientTransformation, grads: optax.Updates, opt_state: optax.OptState, params: optax.Params
) -> tuple[optax.Params, optax.OptState]:
    """Returns parameters and state after one update of an optimizer.

    Raises:
      ValueError: the state is not one of this optimizer and these parameters.
    """
    try:
        # Adam's bias correction would otherwise be of 64 bits if JAX_ENABLE_X64 is set, and runs would differ.
        with jax.enable_x64(False):
            updates, opt_state = optimizer.update(grads, opt_state, params)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"state.opt_state is not one of this optimizer and params: {checks.reason(error)}") from error
    return optax.apply_updates(params, updates), opt_state


def momentum(learning_rate: jax.typing.ArrayLike, momentum: jax.typing.ArrayLike) -> optax.GradientTransformation:
    """Returns SGD with momentum, under a name of its own."""
    return optax.sgd(learning_rate, momentum)


def named(
    learning_rate: jax.typing.ArrayLike,
    optimizer: str,
    momentum: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
) -> optax.GradientTransformation:
    """Returns the optimizer of a name, so that a sweep can have an axis of optimizers.

    Args:
      learning_rate: of every optimizer.
      optimizer: name of one of `OPTIMIZERS`.
      momentum: of momentum alone.
      weight_decay: of AdamW alone.
    """
    given = {"momentum": momentum, "weight_decay": weight_decay}
    return OPTIMIZERS[optimizer](learning_rate, **{name: given[name] for name in given if OWNERS[name] == optimizer})


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": optax.sgd,
    "momentum": momentum,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "named": named,
}
# What `named` passes to one of them alone.
OWNERS = {"momentum": "momentum", "weight_decay": "adamw"}

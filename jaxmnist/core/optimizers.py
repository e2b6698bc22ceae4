"""The optimizers that can be named: on the command line, and by a result that says what it used."""

from collections.abc import Callable

import jax
import optax

OptimizerFactory = Callable[..., optax.GradientTransformation]


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

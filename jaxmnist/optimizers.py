"""The optimizers that can be named: on the command line, and by a result that says what it used."""

import jax
import optax

from jaxmnist.programs import OptimizerFactory


def momentum(learning_rate: jax.typing.ArrayLike, momentum: jax.typing.ArrayLike) -> optax.GradientTransformation:
    """Returns SGD with momentum, under a name of its own."""
    return optax.sgd(learning_rate, momentum)


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": optax.sgd,
    "momentum": momentum,
    "adam": optax.adam,
    "adamw": optax.adamw,
}

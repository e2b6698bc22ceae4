"""Optimizers that can be named, on the command line and in results, and how they are made from options."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxmnist import checks
from jaxmnist.core.inputs import precision
from jaxmnist.core.state import State

OptimizerFactory = Callable[..., optax.GradientTransformation]


def update(
    optimizer: optax.GradientTransformation,
    state: State,
    value: jax.Array,
    grads: optax.Updates,
    value_fn: Callable[[optax.Params], jax.Array],
) -> tuple[optax.Params, optax.OptState]:
    """Returns parameters and optimizer state after one update, which is told whatever optimizers ask for.

    Args:
      optimizer: an optax gradient transformation.
      state: what is updated.
      value: `[]` float32, the batch loss.
      grads: its gradients.
      value_fn: the batch loss as a function of the parameters, of which line searches take further values.

    Raises:
      ValueError: the state does not belong to this optimizer and these parameters.
    """
    gradient = jax.grad(value_fn)

    def value_at(params, obj_fn=None, grad_fn=None):
        """Returns the batch loss at other parameters; line searches pass on whatever they were told."""
        return value_fn(params)

    told: dict = dict(
        value=value, grad=grads, value_fn=value_at, obj_fn=value_fn, grad_fn=lambda params, step: gradient(params)
    )
    try:
        # Adam's bias correction would otherwise have 64 bits if JAX_ENABLE_X64 is set, and runs would differ.
        with jax.enable_x64(precision(state.params) == jnp.float64):
            updates, opt_state = optax.with_extra_args_support(optimizer).update(
                grads, state.opt_state, state.params, **told
            )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"state.opt_state is not one of this optimizer and params: {checks.reason(error)}") from error
    return optax.apply_updates(state.params, updates), opt_state


def momentum(learning_rate: jax.typing.ArrayLike, momentum: jax.typing.ArrayLike) -> optax.GradientTransformation:
    """Returns SGD with momentum, under a name of its own."""
    return optax.sgd(learning_rate, momentum)


def named(
    learning_rate: jax.typing.ArrayLike,
    optimizer: str,
    momentum: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
) -> optax.GradientTransformation:
    """Returns the optimizer with a given name, so that a sweep can have an axis of optimizers.

    Args:
      learning_rate: used by every optimizer.
      optimizer: a name in `OPTIMIZERS`.
      momentum: used by `"momentum"` only.
      weight_decay: used by `"adamw"` only.
    """
    given = {"momentum": momentum, "weight_decay": weight_decay}
    return OPTIMIZERS[optimizer](learning_rate, **{name: given[name] for name in given if OWNERS[name] == optimizer})


def from_settings(
    name: str, learning_rate: optax.ScalarOrSchedule, settings: Mapping[str, float]
) -> optax.GradientTransformation:
    """Returns the optimizer with a given name, made from those of the settings that it has; AdamW decays kernels only.

    Args:
      name: a key of `KEYWORDS`.
      learning_rate: a number or a schedule.
      settings: keyword to value; may hold keywords of other optimizers.
    """
    keywords: dict = {keyword: settings[keyword] for keyword in KEYWORDS[name]}
    if name == "adamw":
        keywords["mask"] = are_kernels
    return OPTIMIZERS[name](learning_rate=learning_rate, **keywords)


def are_kernels(params: optax.Params) -> optax.Params:
    """Returns a tree of bool like `params`: True for kernels, which weight decay is for; not for biases and gains."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def one_cycle(learning_rate: float, num_steps: int, warmup: float, final_div: float) -> optax.Schedule:
    """Returns a learning rate that rises and then falls, each along a cosine (Smith & Topin 2017, arXiv:1708.07120).

    Args:
      learning_rate: the highest one; the schedule starts at a 25th of it.
      num_steps: length of the cycle.
      warmup: share of the steps in which it rises, in [0, 1).
      final_div: the schedule ends at `learning_rate / 25 / final_div`.
    """
    return optax.cosine_onecycle_schedule(num_steps, learning_rate, warmup, final_div_factor=final_div)


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": optax.sgd,
    "momentum": momentum,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "named": named,
}
# The keywords of each optimizer besides the learning rate.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "adam": ("b1", "b2", "eps"),
    "adamw": ("b1", "b2", "eps", "weight_decay"),
}
# The one optimizer to which `named` passes each of these.
OWNERS = {"momentum": "momentum", "weight_decay": "adamw"}

"""Optimizers that can be named, on the command line and in results, and how any optimizer begins and updates."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jaxmnist import checks
from jaxmnist.checks import Choice, Number, Where, checked_by, is_mapping
from jaxmnist.core.arguments import ARRAYS, PARAMS
from jaxmnist.core.inputs import KEY_IMPLEMENTATION, precision

# Keeps the keys of optimizers apart from those of a run, which are folded with other numbers.
OPTIMIZER_KEYS = 2
# The keywords of each optimizer besides the learning rate.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "adam": ("b1", "b2", "eps"),
    "adamw": ("b1", "b2", "eps", "weight_decay"),
}
NAME, NUMBER = Choice(tuple(KEYWORDS)), Number(traced=True)
RATE = Where("a finite number or a schedule", lambda value: callable(value) or NUMBER.accepts(value))
SETTINGS = Where("a mapping of keywords to values", is_mapping)
OptimizerFactory = Callable[..., optax.GradientTransformation]
EvaluationParams = Callable[[Any, optax.Params], optax.Params]


class WithSlowParams(NamedTuple):
    """The state of an optimizer with `optax.lookahead` in it, which has two sets of parameters.

    The fast ones are those of training; optax expects the slow ones beside them, in place of the parameters.

    Attributes:
      opt_state: the optimizer's own state.
      slow: the slow parameters.
    """

    opt_state: optax.OptState
    slow: optax.Params


def init(optimizer: optax.GradientTransformation, params: optax.Params, seed: jax.typing.ArrayLike) -> optax.OptState:
    """Returns the state of an optimizer before the first update.

    Args:
      optimizer: an optax gradient transformation.
      params: the parameters that it will update.
      seed: `[]` int, of the run; random keys in the state, which are those of all runs, are folded with it.
    """
    # The implementation of keys that are made in here would otherwise be whatever JAX_DEFAULT_PRNG_IMPL says.
    with _without_advice(), jax.default_prng_impl(KEY_IMPLEMENTATION):
        opt_state = optimizer.init(params)
    if _found(opt_state, optax.LookaheadState):
        opt_state = WithSlowParams(opt_state, params)
    # Some states begin as the parameters themselves: copied, so that the memory of each can be reused.
    opt_state = jax.tree.map(jnp.copy, opt_state)
    return jax.tree_util.tree_map_with_path(functools.partial(_of_run, seed), opt_state)


def _of_run(seed: jax.typing.ArrayLike, path: tuple, leaf: jax.Array) -> jax.Array:
    """Returns a leaf of an optimizer's state, folded with the run's seed if it is a random key."""

    def folded(key):
        return jax.random.fold_in(jax.random.fold_in(key, OPTIMIZER_KEYS), seed)

    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.vmap(folded)(leaf.ravel()).reshape(leaf.shape)
    # Keys of the old style are plain numbers, and only their name tells.
    name = str(getattr(path[-1], "name", getattr(path[-1], "key", ""))) if path else ""
    if leaf.dtype == jnp.uint32 and leaf.shape == (2,) and name.endswith(("key", "rng")):
        return jax.random.key_data(folded(jax.random.wrap_key_data(leaf, impl=KEY_IMPLEMENTATION)))
    return leaf


def update(
    optimizer: optax.GradientTransformation,
    opt_state: optax.OptState,
    params: optax.Params,
    value: jax.Array,
    grads: optax.Updates,
    value_fn: Callable[[optax.Params], jax.Array],
) -> tuple[optax.Params, optax.OptState]:
    """Returns parameters and optimizer state after one update, which is told whatever optimizers ask for.

    Args:
      optimizer: an optax gradient transformation.
      opt_state: its state, from `init`.
      params: the parameters.
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
    has_slow = isinstance(opt_state, WithSlowParams)
    before = (optax.LookaheadParams(params, opt_state.slow), opt_state.opt_state) if has_slow else (params, opt_state)
    try:
        # Adam's bias correction would otherwise have 64 bits if JAX_ENABLE_X64 is set, and runs would differ.
        with jax.enable_x64(precision(params) == jnp.float64), jax.default_prng_impl(KEY_IMPLEMENTATION):
            updates, after = _told(optimizer, grads, *before, told)
        if _shapes(updates) != _shapes(before[0]):
            # Added to the parameters, they might be broadcast.
            raise ValueError("its updates do not have the shapes of the parameters")
        if _structure(after) != _structure(before[1]):
            raise ValueError("its state changes its structure, so that no loop can carry it")
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"state.opt_state is not one of this optimizer and params: {checks.reason(error)}") from error
    updated = optax.apply_updates(before[0], updates)
    return (updated.fast, WithSlowParams(after, updated.slow)) if has_slow else (updated, after)


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _told(optimizer: optax.GradientTransformation, grads: optax.Updates, params: Any, opt_state: Any, told: dict):
    """Returns updates and state, after telling an optimizer as much as it takes."""
    # Those with an `update` of their own, such as `optax.MultiSteps`, are told by it whatever they take.
    if isinstance(optimizer, optax.GradientTransformation):
        optimizer = optax.with_extra_args_support(optimizer)
    while True:
        try:
            return optimizer.update(grads, opt_state, params, **told)
        except TypeError as error:
            # Most ignore what they do not need, but SAM refuses it, even within a chain.
            refused = {name for name in told if f"unexpected keyword argument '{name}'" in str(error)}
            if not refused:
                raise
            told = {name: given for name, given in told.items() if name not in refused}


@checked_by(opt_state=ARRAYS, params=PARAMS)
def evaluation_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """Returns the parameters to evaluate a model with, which some of optax's optimizers keep apart from those trained.

    These are the averages of `optax.contrib.schedule_free` and the slow parameters of `optax.lookahead`, wherever they
    are in a chain; for all others, the parameters that are trained.

    Args:
      opt_state: the optimizer's state, from `State.opt_state`.
      params: the parameters that are trained, from `State.params`.
    """
    for state in _found(opt_state, (optax.contrib.ScheduleFreeState, WithSlowParams)):
        params = state.slow if isinstance(state, WithSlowParams) else _averages(state, params)
    return params


def _averages(state: optax.contrib.ScheduleFreeState, params: optax.Params) -> optax.Params:
    """Returns the averages of a schedule-free optimizer, and the parameters that are masked from it as they are."""

    def is_masked(node):
        return isinstance(node, optax.MaskedNode)

    def average(z, trained):
        return trained if is_masked(z) else optax.contrib.schedule_free_eval_params(state._replace(z=z), trained)

    return jax.tree.map(average, state.z, params, is_leaf=is_masked)


def _found(opt_state: optax.OptState, kinds: type | tuple[type, ...]) -> list:
    """Returns the outermost parts of an optimizer's state that are of one of these kinds."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kinds))
    return [part for part in parts if isinstance(part, kinds)]


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps `optax.lookahead` from warning that it is given the fast parameters alone: the slow ones follow."""

    def is_kept(record):
        return "no attribute `fast`" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_kept)
    try:
        yield
    finally:
        logger.removeFilter(is_kept)


def momentum(learning_rate: jax.typing.ArrayLike, momentum: jax.typing.ArrayLike) -> optax.GradientTransformation:
    """Returns SGD with momentum, under a name of its own."""
    return optax.sgd(learning_rate, momentum)


@checked_by(learning_rate=RATE, optimizer=NAME, momentum=NUMBER, weight_decay=NUMBER)
def named(
    learning_rate: optax.ScalarOrSchedule,
    optimizer: str,
    momentum: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
) -> optax.GradientTransformation:
    """Returns the optimizer with a given name, so that a sweep can have an axis of optimizers.

    Args:
      learning_rate: `[]` float or a schedule, used by every optimizer.
      optimizer: a key of `KEYWORDS`.
      momentum: `[]` float, used by `"momentum"` only.
      weight_decay: `[]` float, used by `"adamw"` only.

    Raises:
      ValueError: an argument is not as described above.
    """
    given = {"momentum": momentum, "weight_decay": weight_decay}
    return OPTIMIZERS[optimizer](learning_rate, **{name: given[name] for name in given if OWNERS[name] == optimizer})


def _check_settings(given: SimpleNamespace) -> None:
    for keyword in KEYWORDS[given.name]:
        if keyword not in given.settings:
            raise ValueError(f"settings lack {keyword}, which the optimizer {given.name} needs")
        NUMBER.check(keyword, given.settings[keyword])


@checked_by(_check_settings, name=NAME, learning_rate=RATE, settings=SETTINGS)
def from_settings(
    name: str, learning_rate: optax.ScalarOrSchedule, settings: Mapping[str, float]
) -> optax.GradientTransformation:
    """Returns the optimizer with a given name, made from those of the settings that it has; AdamW decays kernels only.

    Args:
      name: a key of `KEYWORDS`.
      learning_rate: `[]` float or a schedule.
      settings: keyword to value, `[]` float; may hold anything else as well.

    Raises:
      ValueError: an argument is not as described above, or the settings lack a keyword of the optimizer.
    """
    keywords: dict = {keyword: settings[keyword] for keyword in KEYWORDS[name]}
    if name == "adamw":
        keywords["mask"] = are_kernels
    return OPTIMIZERS[name](learning_rate=learning_rate, **keywords)


def are_kernels(params: optax.Params) -> optax.Params:
    """Returns a tree of bool like `params`: True for kernels, which weight decay is for; not for biases and gains."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": optax.sgd,
    "momentum": momentum,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "named": named,
}
# The one optimizer to which `named` passes each of these.
OWNERS = {"momentum": "momentum", "weight_decay": "adamw"}

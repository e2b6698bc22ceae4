"""What a person calls a model, as a function of its hyperparameters that returns a `Model`."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist import checks
from jaxmnist.core.adapters import linen
from jaxmnist.core.adapters.flags import FLAGS, argument_names, call_flags, parameters
from jaxmnist.core.fast.replacement import with_fast_operations
from jaxmnist.core.model import Model, UnsupportedModel
from jaxmnist.values import captured, described, frozen, is_traced

WORDS = "a flax module, an NNX or Equinox class, a Haiku transform, a pair of functions (init, apply) or a Model"


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFactory:
    """A function of hyperparameters that returns a `Model`; equal ones share what is compiled.

    Attributes:
      name: what a sentence calls it.
      arguments: the names of its hyperparameters.
      defaults: name to the value of each that has one unless it is given another.
      make: the function.
      identity: hashable; equal for factories that make the same.
      source: what a person gave.
    """

    name: str
    arguments: tuple[str, ...]
    defaults: dict[str, Any]
    make: Callable[..., Model]
    identity: Hashable
    source: Any

    def __call__(self, **values: Any) -> Model:
        """Returns the model with these hyperparameters; a fault in it is reported in one sentence that names it."""
        self.check_values(values)
        try:
            model = self.as_written(**values)
        except Exception as error:  # whatever a person's own function raises
            raise ValueError(f"model {self.name} cannot be made: {checks.reason(error)}") from error
        return _reported(self.name, model)

    def check_values(self, names: Collection[str]) -> None:
        """Raises ValueError unless each hyperparameter that has no default is among the names."""
        missing = [name for name in self.arguments if name not in self.defaults and name not in names]
        if missing:
            advice = "hk.transform of it" if "haiku" in sys.modules else "a pair (init, apply)"
            advice = "" if isinstance(self.source, type) else f", or give {advice} if it is a function of inputs"
            raise ValueError(f"model {self.name} needs a value of {missing[0]}, such as an axis of the runs{advice}")

    def as_written(self, **values: Any) -> Model:
        """Returns the same model, with its own operations in place of fast ones and its own errors."""
        return _with_integers_apart(self.make(**values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelFactory) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __reduce__(self):
        # What identifies it in this process need not exist in another, which makes the factory again.
        return model_factory, (self.source,)

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={described(value)}" for name, value in sorted(self.defaults.items()))
        return f"{self.name}({fields})"


def model_factory(source: Any) -> ModelFactory:
    """Returns what a person calls a model as a factory.

    Raises:
      ValueError: `source` is not a model of any known kind.
    """
    if isinstance(source, ModelFactory):
        return source
    identity = frozen(source), captured(source)
    if isinstance(source, nn.Module):
        defaults = {name: getattr(source, name) for name in linen.fields(source)}

        def make(**values):
            return linen.adapt(source.clone(**values) if values else source)

        return ModelFactory(type(source).__name__, tuple(defaults), defaults, make, identity, source)
    adapted = _without_values(source)
    if adapted is not None:
        return ModelFactory(_name(source), (), {}, lambda: adapted, identity, source)
    if not callable(source):
        checks.raise_invalid("model", source, WORDS)
    return _from_function(source, identity)


@functools.lru_cache(maxsize=64)
def default_model(factory: ModelFactory) -> Model:
    """Returns the model of a factory without further values: the same one each time, so that programs are shared."""
    return factory()


def is_model(source: Any) -> bool:
    """Returns whether something can be trained, as far as can be told without calling it."""
    return isinstance(source, ModelFactory | nn.Module) or _without_values(source) is not None or callable(source)


def argument_of_instance(source: Any) -> str:
    """Returns the argument that makes an NNX or Equinox module if `source` is one (`rngs`, `key`), and else ""."""
    for library, argument in (("flax.nnx", "rngs"), ("equinox", "key")):
        if library in sys.modules and isinstance(source, sys.modules[library].Module):
            return argument
    return ""


def _without_values(source: Any) -> Model | None:
    """Returns the model of what has no hyperparameters; None of anything else."""
    if isinstance(source, Model):
        return source
    if "haiku" in sys.modules:
        import haiku as hk

        if isinstance(source, hk.Transformed | hk.TransformedWithState):
            from jaxmnist.core.adapters import haiku

            return haiku.adapt(source)
    if isinstance(source, tuple) and len(source) == 2 and all(map(callable, source)):
        return _from_pair(*source)
    return None


def _from_pair(init: Callable, apply: Callable) -> Model:
    """Returns a model without state: `init(key, inputs) -> params`, and `apply(params, inputs) -> outputs`.

    `apply` is told a training flag, and `key`, if it has arguments of these names.
    """
    takes_key = "key" in argument_names(apply)

    def apply_pair(params, state, inputs, *, training, key=None):
        keywords: dict = call_flags(_name(apply), apply, training, num_inputs=2) | ({"key": key} if takes_key else {})
        return apply(params, inputs, **keywords), state

    return Model(lambda key, inputs: (init(key, inputs), {}), apply_pair)


def _from_function(source: Callable, identity: Hashable) -> ModelFactory:
    """Returns the factory of a class or function that returns what can be trained."""
    found = parameters(source)
    names = tuple(name for name in argument_names(source) if name not in ("rngs", "key", "parent", "name", *FLAGS))
    defaults = {name: found[name].default for name in names}
    defaults = {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}

    def make(**given: Any) -> Model:
        if "rngs" in found:
            from jaxmnist.core.adapters import nnx

            return nnx.adapt(lambda rngs: source(**given, rngs=rngs))
        if "key" in found:
            from jaxmnist.core.adapters import equinox

            plain = {name: 0.5 if is_traced(value) else value for name, value in given.items()}
            return equinox.adapt(lambda key: source(**given, key=key), lambda key: source(**plain, key=key))
        return model_factory(source(**given)).make()

    return ModelFactory(_name(source), names, defaults, make, identity, source)


def _name(source: Any) -> str:
    """Returns what a person calls the source of a model."""
    if isinstance(source, Model):
        return "jm.Model"
    if isinstance(source, tuple):
        # The functions of a Haiku transform keep no name of a person's; those of a pair do.
        return "hk.transform" if hasattr(source, "_fields") else _name(source[1])
    return getattr(source, "__name__", None) or type(source).__name__


class WithIntegers(NamedTuple):
    """The state of a model that has whole numbers or booleans among its parameters, which are not trained.

    Attributes:
      integers: a tree like the parameters, with None in place of floats, as there in place of these.
      state: the model's own.
    """

    integers: Any
    state: Any


def _with_integers_apart(model: Model) -> Model:
    """Returns a model whose parameters are floats alone: whole numbers and booleans among them become state."""

    def init(key, inputs):
        params, state = model.init(key, inputs)
        is_integer = jax.tree.map(_is_integer, params)
        if not any(jax.tree.leaves(is_integer)):
            return params, state
        floats = jax.tree.map(lambda leaf, apart: None if apart else leaf, params, is_integer)
        integers = jax.tree.map(lambda leaf, apart: leaf if apart else None, params, is_integer)
        return floats, WithIntegers(integers, state)

    def apply(params, state, inputs, *, training, key=None):
        if not isinstance(state, WithIntegers):
            return model.apply(params, state, inputs, training=training, key=key)
        whole = jax.tree.map(_filled, params, state.integers, is_leaf=lambda leaf: leaf is None)
        outputs, after = model.apply(whole, state.state, inputs, training=training, key=key)
        return outputs, WithIntegers(state.integers, after)

    return Model(init, apply)


def _is_integer(leaf: Any) -> bool:
    dtype = jnp.asarray(leaf).dtype
    return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def _filled(leaf: Any, other: Any) -> Any:
    return other if leaf is None else leaf


def _reported(name: str, model: Model) -> Model:
    """Returns a model whose errors are sentences that name it, with the library's own as their cause."""

    def init(key, inputs):
        try:
            return model.init(key, inputs)
        except UnsupportedModel:
            raise
        except Exception as error:
            raise ValueError(
                f"model {name} cannot be initialised for inputs of shape {inputs.shape[1:]}: {checks.reason(error)}"
            ) from error

    def apply(params, state, inputs, *, training, key=None):
        def call(params, state, inputs, key):
            return model.apply(params, state, inputs, training=training, key=key)

        try:
            outputs, after = with_fast_operations(call)(params, state, inputs, key)
        except UnsupportedModel:
            raise
        except Exception as error:
            raise ValueError(
                f"model {name} does not take these params for inputs of shape {inputs.shape[1:]}: "
                f"{checks.reason(error)}"
            ) from error
        if getattr(outputs, "shape", ())[:1] != inputs.shape[:1]:
            raise ValueError(f"model {name} returns {checks.shown(outputs)}; outputs [B, ...] are needed")
        return outputs, after

    return Model(init, apply)

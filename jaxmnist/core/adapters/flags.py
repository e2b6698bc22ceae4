"""The names under which libraries and people tell a module whether it is being trained."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping

from jaxmnist.core.model import UnsupportedModel

# Each with its value in training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "is_train": True,
    "train_mode": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
    "eval_mode": False,
    "is_eval": False,
}
NAMES = ", ".join(FLAGS)
# A switch whose name has one of these words is meant to be set in training or in evaluation.
WORDS = re.compile(r"(^|_)(train|training|eval|evaluate|evaluation|test|testing|inference|dropout|deterministic)(_|$)")

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def flags(names: Iterable[str], training: bool) -> dict[str, bool]:
    """Returns those of the names that are such flags, each with its value in training or in evaluation."""
    return {name: FLAGS[name] == training for name in names if name in FLAGS}


def call_flags(name: str, call: Callable, training: bool, num_inputs: int = 1) -> dict[str, bool]:
    """Returns the training flags of a model's call, each with its value in training or in evaluation.

    Args:
      name: that of the model in a sentence.
      call: takes inputs, and perhaps flags, `key` and `state`.
      training: whether the model is trained or evaluated.
      num_inputs: how many arguments come before the flags.

    Raises:
      UnsupportedModel: the call has another argument that is required, or that is meant to be a training flag.
    """
    names = argument_names(call)
    for argument in names[num_inputs:]:
        default = parameters(call)[argument].default
        is_switch = isinstance(default, bool) and WORDS.search(argument)
        if (default is inspect.Parameter.empty or is_switch) and argument not in ("key", "state", *FLAGS):
            raise UnsupportedModel(
                f"the call of model {name} takes {argument}, which nothing sets: a training flag is called one of "
                f"{NAMES}, and any other argument needs a default"
            )
    return flags(names, training)


def argument_names(function: Callable) -> tuple[str, ...]:
    """Returns the names of a function's arguments that can be given by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(name for name, each in parameters(function).items() if each.kind in by_name)


def parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a function or of a class, by name; none if Python does not know them."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions are written in C
        return {}
    # The metaclass of NNX modules hides what their `__init__` takes.
    made = function if isinstance(function, functools.partial) else functools.partial(function)
    if not isinstance(made.func, type) or not all(each.kind in VARIADIC for each in found.values()):
        return found
    unmade = None  # in the place of the object
    initialised = functools.partial(made.func.__init__, unmade, *made.args, **made.keywords)  # type: ignore[misc]
    return inspect.signature(initialised).parameters

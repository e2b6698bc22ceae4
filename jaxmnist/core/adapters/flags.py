"""The names under which libraries and people tell a module whether it is being trained."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping

# Each with its value in training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def flags(names: Iterable[str], training: bool) -> dict[str, bool]:
    """Returns those of the names that are such flags, each with its value in training or in evaluation."""
    return {name: FLAGS[name] == training for name in names if name in FLAGS}


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

"""What a command line says of a sweep, in words: axes, what settings are drawn from, and a person's own code."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmnist.checks import is_number, reason, shown
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.optimizers import OptimizerFactory
from jaxmnist.data.order import SEEDS
from jaxmnist.sweeps.configure import called, loss_arguments, make_setup
from jaxmnist.sweeps.runs import Distribution, checked_axis, loguniform, uniform

CONSTANTS = {"true": True, "false": False, "none": None}
BRACKETS = {"(": 1, "[": 1, ")": -1, "]": -1}
VALUES = "numbers, true, false, none, words, or tuples such as (64,32) or (64,)"
SHAPES = "LOW:HIGH, log:LOW:HIGH, int:LOW:HIGH of whole numbers, or values to choose from such as 64,128"


def axes(option: str, texts: Iterable[str]) -> dict[str, list]:
    """Returns axes as `grid` takes them, name to distinct values.

    Args:
      option: what sentences call these texts.
      texts: such as `"hidden_size=64,128"`, `"nesterov=true,false"` or `"features=(32,64),(64,)"`.

    Raises:
      ValueError: a text is not of this form, two have the same name, or `grid` would reject an axis.
    """
    return {name: _values(option, name, text) for name, text in _pairs(option, texts)}


def space(option: str, texts: Iterable[str]) -> dict[str, Distribution | range | list]:
    """Returns what settings are drawn from, as `sample` and `search` take it.

    Args:
      option: what sentences call these texts.
      texts: `"momentum=0:0.99"` for a uniform distribution, `"learning_rate=log:1e-4:1"` for one whose logarithm is
        uniform, `"hidden_size=int:16:512"` for whole numbers from the first to the second, and values to choose from
        as for `axes`.

    Raises:
      ValueError: as for `axes`, or the bounds are not two numbers that the distribution can have.
    """
    return {name: _drawn_from(option, name, text) for name, text in _pairs(option, texts)}


def _pairs(option: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the name and the values of each text."""
    names: set[str] = set()
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"{option} has {shown(text)}; NAME=VALUES, such as hidden_size=64,128, is needed")
        if name in names:
            raise ValueError(f"{option} has {name} twice; give all of its values at once, such as {name}=64,128")
        names.add(name)
        yield name, values


def _values(option: str, name: str, text: str) -> list:
    """Returns the values of an axis, checked."""
    try:
        values = [_value(part) for part in _parts(text)]
    except ValueError:
        raise ValueError(f"{option} has {shown(f'{name}={text}')}; its values are {VALUES}") from None
    try:
        checked_axis(name, values)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    return values


def _parts(text: str) -> list[str]:
    """Returns what the commas separate that are in neither brackets nor quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote or character in "'\"":
            quote = "" if character == quote else quote or character
        else:
            depth += BRACKETS.get(character, 0)
    return parts


def _value(text: str) -> Any:
    """Returns the value that a text stands for, or raises ValueError if it stands for none."""
    text = text.strip()
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text and not set(text) & {*BRACKETS, "'", '"'}:
        return text
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError from None
    if not isinstance(found, tuple | list | str):
        raise ValueError
    return tuple(found) if isinstance(found, list) else found


def _drawn_from(option: str, name: str, text: str) -> Distribution | range | list:
    """Returns a distribution, a range of whole numbers, or values to choose from."""
    first = text.lstrip()[:1]
    if ":" not in text or first in {"(", "[", "'", '"'}:
        return _values(option, name, text)
    kind, _, bounds = text.partition(":")
    if kind not in ("log", "int"):
        bounds = text
    try:
        low, high = map(int if kind == "int" else float, bounds.split(":"))
        if not is_number(low) or not is_number(high):
            raise ValueError
    except ValueError:
        raise ValueError(f"{option} has {shown(f'{name}={text}')}; {SHAPES}, is needed") from None
    try:
        if kind == "int":
            whole = range(int(low), int(high) + 1)
            checked_axis(name, whole)
            return whole
        return (loguniform if kind == "log" else uniform)(low, high)
    except ValueError as error:
        raise ValueError(f"{option} has {name}={text}: {error}") from None


def check_names(option: str, names: Iterable[str], model: ModelLike, optimizer: OptimizerFactory, loss: Loss) -> None:
    """Raises an error if a hyperparameter belongs to none of model, optimizer and loss.

    Args:
      option: that has these names.
      names: of hyperparameters.
      model: as `sweep`.
      optimizer: as `sweep`.
      loss: as `sweep`.

    Raises:
      ValueError: a name belongs to none of them, or `model` is not a model.
    """
    if not callable(optimizer) or not callable(loss):
        return  # `check` says what is needed
    setup = make_setup(model, optimizer, loss)
    found = inspect.signature(optimizer).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in found):
        return
    known = {
        f"the model {setup.model.name}": setup.model.arguments,
        f"the optimizer {called(optimizer)}": tuple(each.name for each in found),
        f"the loss {called(loss)}": loss_arguments(loss),
    }
    allowed = {"batch_size", *SEEDS, *(name for names in known.values() for name in names)}
    for name in names:
        if name not in allowed:
            words = "; ".join(f"{part} has {', '.join(held) or 'none'}" for part, held in known.items())
            raise ValueError(f"{option} has {name}, which is not a hyperparameter here: {words}")


def chosen(option: str, text: str, named: Mapping[str, Any]) -> Any:
    """Returns what has a name here, or what a person calls `module:name`, from the current folder or installed.

    Args:
      option: what sentences call it.
      text: a name, or `"module:name"`, which the person must have typed: a module that is imported runs its code.
      named: what has a name.

    Raises:
      ValueError: there is no such name or module, or the module cannot be imported.
    """
    if text in named:
        return named[text]
    module, _, name = text.partition(":")
    if not module or not name:
        raise ValueError(
            f"{option} is {shown(text)}; {', '.join(named)}, or MODULE:NAME of a module in the current folder, such as "
            f"my_module:my_{option}, is needed"
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return pkgutil.resolve_name(text)
    except Exception as error:  # whatever a person's own module raises
        raise ValueError(f"{option} is {text}, but {_missing(module, name, error)}") from error


def _missing(module: str, name: str, error: Exception) -> str:
    """Returns why there is no such name in a module, in words."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return f"there is no module {error.name}, neither in the current folder, {Path.cwd()}, nor installed"
    if isinstance(error, AttributeError) and module in sys.modules:
        found = vars(sys.modules[module])
        own = [each for each, value in found.items() if getattr(value, "__module__", "") == module]
        return f"{module} has no {name}; it has {', '.join(own) or 'nothing'}"
    return f"{module} cannot be imported: {reason(error)}"

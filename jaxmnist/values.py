"""What a value is, whatever library it comes from, and how a sentence shows it."""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import math
import numbers
import os
import re
import sys
import sysconfig
import types
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

MAX_SHOWN = 80
# Values that are compared by what they hold.
PLAIN = (bool, int, float, str, type(None), tuple, list, dict, np.ndarray)
BUILT_IN = "<built in>"
# Values that hold no code.
NOTHING_INSIDE = (type(None), str, bytes, int, float, np.ndarray, types.ModuleType)
# Where installed code is: Python's own, this package, and in folders of these names.
LIBRARIES = (f"{sysconfig.get_path('stdlib')}{os.sep}", f"{os.path.dirname(__file__)}{os.sep}", "<frozen")
INSTALLED = re.compile(r"\b(site|dist)-packages\b")


def shown(value: object) -> str:
    """Returns a value in a few words; arrays by dtype and shape, since all of their numbers say less."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None and not isinstance(value, type):
        article = "an" if str(dtype).startswith("int") else "a"
        return f"{article} {dtype} array of shape {tuple(shape)}"
    if isinstance(value, int) and not -(10**30) < value < 10**30:
        # Python refuses to print the longest ones, in other values too.
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        text = f"a {type(value).__name__} with a number too long to print"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def is_traced(value: object) -> bool:
    """Returns whether a value is known only once the compiled program runs."""
    import jax

    return isinstance(value, jax.core.Tracer)


def as_scalar(value: Any) -> Any:
    """Returns the number in an array without dimensions; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def is_whole(value: object) -> TypeGuard[int]:
    """Returns whether a value is a whole number of Python or numpy; a boolean is not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value is a finite real number; a boolean is not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def is_sequence(value: object) -> TypeGuard[Sequence]:
    """Returns whether a value is a sequence of several things, as strings and bytes are not meant to be."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_floating(value: object) -> bool:
    """Returns whether a value is an array of floats, those of types that numpy does not have (bfloat16) among them."""
    dtype = getattr(value, "dtype", None)
    return getattr(dtype, "kind", "") == "f" or str(dtype).startswith(("bfloat16", "float8"))


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values that were read from JSON, which knows no tuples, with tuples in place of lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def described(value: Any) -> str:
    """Returns a value as a string that is the same in every process: functions by module and name, arrays by digest."""
    if isinstance(value, functools.partial):
        given = [*map(described, value.args), *(f"{name}={described(each)}" for name, each in value.keywords.items())]
        return f"{described(value.func)}({', '.join(given)})"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(described, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{described(key)}: {described(each)}' for key, each in value.items())}}}"
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        digest = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:16]
        return f"{value.dtype}{list(value.shape)} of digest {digest}"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value) if field.repr}
        given = [f"{name}={described(each)}" for name, each in fields.items() if name not in ("name", "parent")]
        return f"{type(value).__name__}({', '.join(given)})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def restored(text: str) -> Any:
    """Returns the value that `described` wrote if it is a literal, or a function of a module that is imported already.

    Anything else is returned as it is: nothing is imported or called for a string, which may come from a stranger.
    """
    module, _, name = text.rpartition(".")
    if module in sys.modules and hasattr(sys.modules[module], name):
        return getattr(sys.modules[module], name)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def captured(value: Any, seen: dict[int, Any] | None = None) -> Hashable:
    """Returns something hashable that changes if a person's code reads other values, of closures, globals or classes.

    A compiled program keeps the values that it was traced with: in a notebook, a cell may have changed them since. The
    code is that of a function, or of the methods of a class or an object, and whatever this code uses in turn. Of
    libraries, only the closures are looked into, where they keep a person's functions.

    Args:
      value: anything.
      seen: what has been looked into already, by its id.
    """
    seen = {} if seen is None else seen
    if id(value) in seen or isinstance(value, NOTHING_INSIDE):
        return None
    seen[id(value)] = value
    if isinstance(value, functools.partial):
        value = value.func, value.args, value.keywords
    if isinstance(value, list | tuple | dict):
        parts = [captured(each, seen) for each in (value.values() if isinstance(value, dict) else value)]
        return tuple(parts) if any(part is not None for part in parts) else None
    if isinstance(value, type):
        return _read(_of_class(value), seen) if not _is_of_library(_file_of(value)) else None
    function = inspect.unwrap(value) if callable(value) else value
    if hasattr(function, "__code__"):
        return _captured_by_function(function, seen)
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        held = {name: each for name, each in held.items() if name not in ("parent", "name")}
    else:
        is_own = isinstance(value, types.SimpleNamespace) or not _is_of_library(_file_of(type(value)))
        held = vars(value) if is_own and hasattr(value, "__dict__") else {}
    return _read(held, seen), captured(type(value), seen)


def _captured_by_function(function: Any, seen: dict[int, Any]) -> Hashable:
    """Returns what is captured by a function with code of Python's, or by a method and its object."""
    code, cells = function.__code__, {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell is empty until its variable is assigned
            cells[name] = cell.cell_contents
    if _is_of_library(code.co_filename):
        return captured(cells, seen)
    names = _names(code)
    read = {name: function.__globals__[name] for name in names if name in function.__globals__} | cells
    for name, module in list(read.items()):
        if isinstance(module, types.ModuleType) and not _is_of_library(getattr(module, "__file__", None)):
            read |= {f"{name}.{each}": getattr(module, each) for each in names if hasattr(module, each)}
    return _read(read, seen), captured(getattr(function, "__self__", None), seen)


def _read(values: Mapping[str, Any], seen: dict[int, Any]) -> Hashable:
    return tuple((name, _held(value), captured(value, seen)) for name, value in values.items())


def _names(code: types.CodeType) -> list[str]:
    """Returns the names that code reads from around it, and those of the functions defined within it."""
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return list(dict.fromkeys([*code.co_names, *(name for each in inner for name in _names(each))]))


def _of_class(given: type) -> dict[str, Any]:
    """Returns the functions and the plain values of a person's class, and of the bases that are a person's too."""
    found: dict[str, Any] = {}
    for base in given.__mro__:
        if _is_of_library(_file_of(base)):
            continue
        for name, value in vars(base).items():
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if callable(value) or (isinstance(value, PLAIN) and not name.startswith("__")):
                found.setdefault(f"{base.__qualname__}.{name}", value)
    return found


def _file_of(given: type) -> str | None:
    module = sys.modules.get(given.__module__)
    return BUILT_IN if given.__module__ == "builtins" else getattr(module, "__file__", None)


def _is_of_library(file: str | None) -> bool:
    """Returns whether code is installed, and not a person's own; that of a notebook or the REPL has no file."""
    return file is not None and (file == BUILT_IN or file.startswith(LIBRARIES) or bool(INSTALLED.search(file)))


def _held(value: Any) -> Hashable:
    """Returns something hashable that equals that of another value if both are the same data, or one and the same."""
    return frozen(value) if isinstance(value, PLAIN) else _Itself(value)


@dataclasses.dataclass(frozen=True, eq=False)
class _Itself:
    """A value that cannot be compared: it equals itself alone."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def frozen(value: Any) -> Hashable:
    """Returns something hashable that equals that of another value exactly if the two are alike in all their parts."""
    if isinstance(value, functools.partial):
        return functools.partial, frozen(value.func), frozen(value.args), frozen(value.keywords)
    if isinstance(value, list | tuple):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, Mapping):
        return type(value), tuple((key, frozen(each)) for key, each in value.items())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).digest()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return type(value), tuple((name, frozen(each)) for name, each in fields.items() if name != "parent")
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    # 1 and True are equal, and make different programs.
    return type(value), value

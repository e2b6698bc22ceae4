"""What a value is, whatever library it comes from, and how a sentence shows it."""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import math
import numbers
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

MAX_SHOWN = 80
# Values that are compared by what they hold.
PLAIN = (bool, int, float, str, type(None), tuple, list, dict, np.ndarray)


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


def captured(function: Any, depth: int = 3) -> Hashable:
    """Returns something hashable that changes if a function reads other values, of its closure or its globals.

    A compiled program keeps the values that it was traced with: in a notebook, a cell may have changed them since. The
    functions that a person's function calls are looked into as well, a few levels deep; those of libraries are not.
    None for what is no function of Python's, which reads nothing.
    """
    if isinstance(function, functools.partial):
        return captured(function.func, depth)
    code = getattr(function, "__code__", None)
    if code is None or depth == 0 or "site-packages" in code.co_filename:
        return None
    read = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell is empty until its variable is assigned
            read[name] = cell.cell_contents
    return tuple((name, _held(value), captured(value, depth - 1)) for name, value in read.items())


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
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return type(value), tuple((name, frozen(each)) for name, each in fields.items() if name != "parent")
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    # 1 and True are equal, and make different programs.
    return type(value), value

"""What callers give, checked: what is wrong ends in a ValueError that names argument, value, and what is allowed.

Inside `jit` and `vmap` an argument may be traced; of such a one only shape and dtype can be, and are, checked.
"""

import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeGuard

import numpy as np

MAX_SEED = 2**31 - 1
MAX_STEPS = 2**31 - 1
MAX_SHOWN = 80


def refuse(name: str, value: object, allowed: str) -> NoReturn:
    """Raises ValueError: `name` is `value`, and `allowed` is needed."""
    raise ValueError(f"{name} is {shown(value)}; {allowed} is needed")


def shown(value: object) -> str:
    """Returns a value in a few words; arrays by dtype and shape, since all of their numbers say less."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        return f"a {dtype} array of shape {tuple(shape)}"
    if isinstance(value, int) and not -(10**30) < value < 10**30:
        # Python refuses to print the longest ones, in other values too.
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        text = f"a {type(value).__name__} with a number too long to print"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def reason(error: BaseException) -> str:
    """Returns the first line of what another package says is wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_traced(value: object) -> bool:
    """Returns whether a value is known only once the compiled program runs."""
    import jax

    return isinstance(value, jax.core.Tracer)


def is_whole(value: object) -> TypeGuard[int]:
    """Returns whether a value is a whole number, of Python or numpy; booleans are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value is a finite real number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def whole(name: str, value: object, low: int, high: int | None = None, words: str = "") -> None:
    """Raises ValueError where a value is no whole number from `low` to `high`, which `words` say in other words."""
    if not is_whole(value) or value < low or (high is not None and value > high):
        end = "on" if high is None else f"to {words or high}"
        refuse(name, value, f"a whole number from {low} {end}")


def is_sequence(value: object) -> TypeGuard[Sequence]:
    """Returns whether a value is a sequence of several things, as strings and bytes are not meant to be."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def number(name: str, value: object, allowed: str, is_allowed: Callable[[float], bool] = lambda value: True) -> None:
    """Raises ValueError where a value is no finite number, or not one for which `is_allowed`."""
    if not is_number(value) or not is_allowed(value):
        refuse(name, value, allowed)


def seed(value: object, name: str = "seed") -> None:
    """Raises ValueError where a value is no seed; beyond 31 bits, two seeds could be one."""
    whole(name, value, 0, MAX_SEED, "2**31 - 1")


def flag(name: str, value: object) -> None:
    """Raises ValueError where a value is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        refuse(name, value, "True or False")


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ValueError where a value is none of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        refuse(name, value, f"one of {', '.join(map(repr, allowed))}")


def choices(name: str, value: object, allowed: Sequence[str], least: int = 1) -> None:
    """Raises ValueError where a value is no sequence of distinct ones of those allowed."""
    if (
        not is_sequence(value)
        or len(value) < least
        or not all(isinstance(each, str) and each in allowed for each in value)
        or len(set(value)) < len(value)
    ):
        refuse(name, value, f"a sequence of distinct ones of {', '.join(map(repr, allowed))}")


def text(name: str, value: object) -> None:
    """Raises ValueError where a value is no string."""
    if not isinstance(value, str):
        refuse(name, value, "a string")


def texts(name: str, value: object, count: int | None = None) -> None:
    """Raises ValueError where a value is no sequence of strings, `count` of them or one and more."""
    if not is_sequence(value) or not len(value) or not all(isinstance(each, str) for each in value):
        refuse(name, value, "a sequence of strings")
    if count is not None and len(value) != count:
        refuse(name, value, f"a sequence of {count} strings")


def path(name: str, value: object) -> None:
    """Raises ValueError where a value is no path."""
    if not isinstance(value, str | os.PathLike) or "\0" in str(value) or not str(value):
        refuse(name, value, "a path")


def function(name: str, value: object) -> None:
    """Raises ValueError where a value cannot be called."""
    if not callable(value):
        refuse(name, value, "a function")


def mapping(name: str, value: object, allowed: str) -> None:
    """Raises ValueError where a value is no mapping with strings as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        refuse(name, value, allowed)


def numbers_of(name: str, values: Any, allowed: str, is_allowed: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Returns `[N]` float64 numbers, N from 1 on, or raises ValueError where they are not all as `is_allowed` says."""
    try:
        given = np.asarray(values)
    except ValueError:  # rows of different lengths
        given = np.empty(0)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iuf" or not np.all(is_allowed(given)):
        refuse(name, values, allowed)
    return given.astype(np.float64)


def array(
    name: str, value: Any, allowed: str, kinds: str, *shape: int | None, is_allowed: Callable[[Any], bool] | None = None
) -> None:
    """Raises ValueError where a value is no array as wanted.

    Args:
      name: of the argument.
      value: an array of numpy or jax, traced or not.
      allowed: what is wanted, in words.
      kinds: letters of the dtypes that are wanted, as numpy's `dtype.kind`.
      *shape: an extent for each dimension, None for any from 1 on.
      is_allowed: of a non-empty numpy array, whether its values are as wanted; not asked where they are traced.
    """
    extents, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if not isinstance(extents, tuple) or getattr(dtype, "kind", "O") not in kinds or len(extents) != len(shape):
        refuse(name, value, allowed)
    if any(found != wanted if wanted is not None else found < 1 for found, wanted in zip(extents, shape, strict=True)):
        refuse(name, value, allowed)
    if is_allowed is not None and math.prod(extents) and not is_traced(value) and not is_allowed(np.asarray(value)):
        values = np.asarray(value)
        raise ValueError(
            f"{name} is {shown(value)}, its values from {values.min()} to {values.max()}; {allowed} is needed"
        )

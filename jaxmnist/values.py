"""What a value is, whatever library it comes from, and how a sentence shows it."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

MAX_SHOWN = 80


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


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values that were read from JSON, which knows no tuples, with tuples in place of lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

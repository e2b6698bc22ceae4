"""What a public argument may be, declared as data, and the one decorator that enforces it.

A public function says next to its name what each of its arguments may be: `@checked_by(num_steps=Whole(1))`. The
outermost public call is checked; what the package calls on its way is not. Of an array that is traced, inside `jit` or
`vmap`, shape and dtype alone are known and checked. The tests of bad input are made from the same declarations.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn, ParamSpec, TypeGuard, TypeVar

import numpy as np

from jaxmnist.limits import MAX_SEED
from jaxmnist.values import as_scalar, is_number, is_sequence, is_traced, is_whole, shown

P = ParamSpec("P")
R = TypeVar("R")


class Kind:
    """What an argument may be: `words` say it in an error, `accepts` decides it."""

    words: str

    def accepts(self, value: Any) -> bool:
        """Returns whether a value is allowed."""
        raise NotImplementedError

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError, naming the argument, the value and what is allowed, unless the value is allowed."""
        if not self.accepts(value):
            raise_invalid(name, value, self.words)

    def convert(self, value: Any) -> Any:
        """Returns what the function is given in place of an allowed value."""
        return value


class _Outermost(threading.local):
    """Whether a public function is running that has checked its arguments."""

    is_checked = False


_outermost = _Outermost()


def checked_by(
    together: Callable[[SimpleNamespace], object] | None = None, /, **kinds: Kind
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that checks the arguments of a public function, unless another public function calls it.

    Args:
      together: is called with all arguments by name, once each is allowed by itself, and raises ValueError if they do
        not fit together.
      **kinds: what each argument may be, by its name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if _outermost.is_checked:
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            with unchecked():
                for name, kind in kinds.items():
                    kind.check(name, bound.arguments[name])
                    bound.arguments[name] = kind.convert(bound.arguments[name])
                if together is not None:
                    together(SimpleNamespace(**bound.arguments))
                return function(*bound.args, **bound.kwargs)

        checked.kinds = kinds  # type: ignore[attr-defined]
        return checked

    return decorate


def kinds(function: Callable) -> dict[str, Kind]:
    """Returns what each argument of a public function may be."""
    return function.kinds  # type: ignore[attr-defined]


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Lets public functions within the block take their arguments as they are."""
    before, _outermost.is_checked = _outermost.is_checked, True
    try:
        yield
    finally:
        _outermost.is_checked = before


@dataclasses.dataclass(frozen=True)
class Whole(Kind):
    """A whole number from `low` to `high`.

    Attributes:
      low: the least one.
      high: the largest one; None for no bound.
      high_words: the bound in other words.
      traced: whether it may be an array without dimensions, traced or not.
    """

    low: int = 0
    high: int | None = None
    high_words: str = ""
    traced: bool = False

    @property
    def words(self) -> str:  # type: ignore[override]
        end = "on" if self.high is None else f"to {self.high_words or self.high}"
        return f"a whole number from {self.low} {end}"

    def accepts(self, value: Any) -> bool:
        if self.traced:
            if is_traced(value):
                return value.shape == () and value.dtype.kind in "iu"
            value = as_scalar(value)
        return is_whole(value) and value >= self.low and (self.high is None or value <= self.high)


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A finite number for which `is_allowed`.

    Attributes:
      words: say what is allowed.
      is_allowed: of a finite number.
      traced: whether it may be an array without dimensions, traced or not.
    """

    words: str = "a finite number"
    is_allowed: Callable[[float], bool] = lambda value: True
    traced: bool = False

    def accepts(self, value: Any) -> bool:
        if self.traced:
            if is_traced(value):
                return value.shape == () and value.dtype.kind in "iuf"
            value = as_scalar(value)
        return is_number(value) and bool(self.is_allowed(value))


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of several strings."""

    choices: tuple[str, ...]

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"one of {', '.join(map(repr, self.choices))}"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.choices


@dataclasses.dataclass(frozen=True)
class Choices(Kind):
    """A sequence of distinct ones of several strings.

    Attributes:
      choices: the strings.
      least: how many there are at least.
      single: whether one of them may be given by itself.
    """

    choices: tuple[str, ...]
    least: int = 1
    single: bool = False

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"a sequence of distinct ones of {', '.join(map(repr, self.choices))}"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return self.single and value in self.choices
        return (
            is_sequence(value)
            and len(value) >= self.least
            and all(isinstance(each, str) and each in self.choices for each in value)
            and len(set(value)) == len(value)
        )


@dataclasses.dataclass(frozen=True)
class Optional(Kind):
    """What another kind allows, or None."""

    kind: Kind

    @property
    def words(self) -> str:  # type: ignore[override]
        return self.kind.words

    def check(self, name: str, value: Any) -> None:
        if value is not None:
            self.kind.check(name, value)

    def accepts(self, value: Any) -> bool:
        return value is None or self.kind.accepts(value)

    def convert(self, value: Any) -> Any:
        return None if value is None else self.kind.convert(value)


@dataclasses.dataclass(frozen=True)
class Where(Kind):
    """A value for which `is_allowed`.

    Attributes:
      words: say what is allowed.
      is_allowed: of any value.
    """

    words: str
    is_allowed: Callable[[Any], object]

    def accepts(self, value: Any) -> bool:
        return bool(self.is_allowed(value))


@dataclasses.dataclass(frozen=True)
class Array(Kind):
    """An array of numpy or jax, traced or not.

    Attributes:
      words: say what is allowed.
      kinds: letters of the dtypes that are allowed, as numpy's `dtype.kind`.
      shape: an extent for each dimension, None for any from 1 on.
      dtype: the name of the only dtype that is allowed; empty for any of these kinds.
      is_allowed: whether the values of an array that is not empty and not traced are allowed.
    """

    words: str
    kinds: str
    shape: tuple[int | None, ...]
    dtype: str = ""
    is_allowed: Callable[[np.ndarray], Any] | None = None

    def check(self, name: str, value: Any) -> None:
        if not self.fits(value):
            raise_invalid(name, value, self.words)
        if self.is_allowed is not None and not is_traced(value):
            values = np.asarray(value)
            if values.size and not self.is_allowed(values):
                raise ValueError(
                    f"{name} is {shown(value)}, its values from {values.min()} to {values.max()}; {self.words} is "
                    "needed"
                )

    def fits(self, value: Any) -> bool:
        """Returns whether shape and dtype are allowed."""
        extents, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        return (
            isinstance(extents, tuple)
            and getattr(dtype, "kind", "O") in self.kinds
            and self.dtype in ("", str(dtype))
            and len(extents) == len(self.shape)
            and all(
                found == wanted if wanted is not None else found >= 1
                for found, wanted in zip(extents, self.shape, strict=True)
            )
        )


@dataclasses.dataclass(frozen=True)
class Numbers(Kind):
    """A flat sequence of numbers, one or more, for all of which `is_allowed`.

    Attributes:
      words: say what is allowed.
      is_allowed: of a numpy array `[N]`.
    """

    words: str
    is_allowed: Callable[[np.ndarray], Any]

    def accepts(self, value: Any) -> bool:
        try:
            given = np.asarray(value)
        except ValueError:  # rows of different lengths
            return False
        return given.ndim == 1 and len(given) > 0 and given.dtype.kind in "iuf" and bool(np.all(self.is_allowed(given)))


@dataclasses.dataclass(frozen=True)
class Strings(Kind):
    """A sequence of strings, `count` of them or one and more."""

    count: int | None = None

    @property
    def words(self) -> str:  # type: ignore[override]
        return "a sequence of strings" if self.count is None else f"a sequence of {self.count} strings"

    def accepts(self, value: Any) -> bool:
        return (
            is_sequence(value)
            and len(value) > 0
            and all(isinstance(each, str) for each in value)
            and self.count in (None, len(value))
        )


FLAG = Where("True or False", lambda value: isinstance(value, bool | np.bool_))
STRING = Where("a string", lambda value: isinstance(value, str))
PATH = Where(
    "a path", lambda value: isinstance(value, str | os.PathLike) and "\0" not in str(value) and bool(str(value))
)
FUNCTION = Where("a function", callable)
SEED = Whole(0, MAX_SEED, "2**31 - 1")
SEED_OR_ARRAY = Whole(0, MAX_SEED, "2**31 - 1", traced=True)


def raise_invalid(name: str, value: object, allowed: str) -> NoReturn:
    """Raises ValueError: `name` is `value`, and `allowed` is needed."""
    raise ValueError(f"{name} is {shown(value)}; {allowed} is needed")


def reason(error: BaseException) -> str:
    """Returns the first line of what another package says is wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_ascending(value: object) -> TypeGuard[Sequence[int]]:
    """Returns whether a value is a sequence of whole numbers, one or more, each larger than the one before."""
    return is_sequence(value) and len(value) > 0 and all(map(is_whole, value)) and list(value) == sorted(set(value))


def is_mapping(value: object) -> TypeGuard[Mapping]:
    """Returns whether a value is a mapping with strings as keys."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)

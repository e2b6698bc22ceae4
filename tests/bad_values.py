"""Bad values by kind, as strategies, and the one property of all of them: a sentence of this package refuses them."""

import math
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import jaxmnist as jm
from jaxmnist import checks

PACKAGE = Path(jm.__file__).parent
MAX_WORDS = 400
# The same examples each time: a test that fails now and then helps nobody.
few = settings(
    derandomize=True, database=None, deadline=None, max_examples=12, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

THINGS = [None, object(), "", "x", b"x", [], {}, (), 1j, [None], {"a": 1}, np.array(["x"]), np.array([None]), print]
LESS_THAN_TWO = [np.nan, math.inf, -math.inf, -1e308, -1, -(2**31), -(10**400), -(10**5000)]
HUGE = [2**31, 2**63, 2**64, 10**400, 10**5000, 1e308]
ARRAYS = [np.zeros(0), np.zeros((2, 3)), np.arange(3), np.zeros((0, 0, 0, 0), np.uint8), np.full((3, 3), np.nan)]


def one_of(*groups):
    return st.sampled_from([value for group in groups for value in group])


def things_but(*allowed):
    """Returns the things without some of them, compared by their text."""
    named = {repr(value) for value in allowed}
    return [value for value in THINGS if repr(value) not in named]


def is_not(*allowed):
    """Returns a strategy for things, arrays and numbers, without some of the things."""
    return one_of(things_but(*allowed), ARRAYS, [1.5, math.nan])


NOT_WHOLE = one_of(THINGS, ARRAYS, [True, 1.5, "1", np.float32(1), math.nan, math.inf])
NOT_FROM_1 = NOT_WHOLE | one_of(LESS_THAN_TWO, [0]) | st.integers(max_value=0)
NOT_FROM_0 = NOT_WHOLE | one_of(LESS_THAN_TWO) | st.integers(max_value=-1)
NOT_31_BITS = one_of(HUGE) | st.integers(min_value=2**31)
NOT_A_SEED = NOT_FROM_0 | NOT_31_BITS
NOT_STEPS = NOT_FROM_1 | NOT_31_BITS
NOT_A_NUMBER = one_of(THINGS, ARRAYS, [True, math.nan, math.inf, -math.inf, 10**400])
NOT_POSITIVE = NOT_A_NUMBER | one_of([0, -1e-300, -5]) | st.floats(max_value=0)
NOT_A_SHARE = NOT_A_NUMBER | one_of([-1e-9, 1 + 1e-6, 2, 1e308]) | st.floats(min_value=1, exclude_min=True)
NOT_A_PATH = one_of(things_but(None, "x"), ARRAYS, ["a\0b", 3, 1.5, True])
NOT_A_FLAG = one_of(THINGS, ARRAYS, [0, 1, 1.0, "yes", math.nan])
NOT_A_TEXT = one_of(things_but("", "x"), ARRAYS, [3, math.nan])
NOT_A_SPLIT_NAME = one_of(THINGS, ARRAYS, ["all", "Test", "test ", 3, True, ["test"]])
NOT_CALLABLE = one_of(things_but(print), ARRAYS, [3, math.nan])
NOT_SIZES = one_of(THINGS, ARRAYS[:2], [[1, -1], [1, 1.5], [2, 1], [1, 1], [True], ["1"], "12", 5, [math.nan]])


class Drawn:
    """A value; hypothesis prints what it draws, and Python does not print the largest whole numbers."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return checks.shown(self.value)


# What a kind that is a constant does not allow, by the constant.
BY_KIND: dict[int, st.SearchStrategy] = {}
# What a kind with attributes does not allow, by its class: a function of the kind.
BY_CLASS: dict[type, Callable[[Any], st.SearchStrategy]] = {}


def register(kind, strategy) -> None:
    """Says what a kind of argument does not allow: a constant, or a class of kinds with a function of one of them."""
    if isinstance(kind, type):
        BY_CLASS[kind] = strategy
    else:
        BY_KIND[id(kind)] = strategy


def bad(kind: checks.Kind) -> st.SearchStrategy:
    """Returns a strategy of values that a declaration does not allow, made from its attributes and not by asking it."""
    return BY_KIND[id(kind)] if id(kind) in BY_KIND else BY_CLASS[type(kind)](kind)


def not_whole(kind: checks.Whole) -> st.SearchStrategy:
    strategy = NOT_WHOLE if not kind.traced else NOT_WHOLE.filter(lambda value: getattr(value, "shape", 1) != ())
    strategy |= one_of(LESS_THAN_TWO[2:]) | st.integers(max_value=kind.low - 1)
    return strategy if kind.high is None else strategy | one_of(HUGE) | st.integers(min_value=kind.high + 1)


NUMBERS = [0, -1e-300, -1e-9, -5, 0.5, 1, 1 + 1e-6, 2, 90, 1e308]
register(checks.Whole, not_whole)
register(
    checks.Number, lambda kind: NOT_A_NUMBER | st.sampled_from([x for x in NUMBERS if not kind.is_allowed(x)] or [1j])
)
register(checks.Choice, lambda kind: one_of(THINGS, ARRAYS, [3, True, f"{kind.choices[0]} ", [kind.choices[0]], "all"]))
register(
    checks.Choices,
    lambda kind: one_of(
        things_but(*([[], (), None] if kind.least == 0 else [])),
        [("all",), (kind.choices[0],) * 2, (kind.choices[0], 3), {kind.choices[0]}, 3],
    ),
)
register(checks.Optional, lambda kind: bad(kind.kind).filter(lambda value: value is not None))
register(checks.Strings, lambda kind: one_of(things_but(np.array(["x"])), ARRAYS, ["abcd", (1, 2, 3, 4), ("a", None)]))
register(checks.Array, lambda kind: one_of(THINGS, [array for array in ARRAYS if array.ndim != len(kind.shape)]))
register(checks.FLAG, NOT_A_FLAG)
register(checks.STRING, NOT_A_TEXT)
register(checks.PATH, NOT_A_PATH | st.none())
register(checks.FUNCTION, NOT_CALLABLE)


class Case(NamedTuple):
    """A call that works, and values of one of its arguments that must not.

    Attributes:
      function: public.
      name: of the argument.
      bad: a strategy.
      valid: returns the other arguments by name, and this one too.
      word: what the message names, a regular expression, where it is not the argument.
    """

    function: Any
    name: str
    bad: st.SearchStrategy
    valid: Any
    word: str = ""

    def __repr__(self):
        return f"{self.function.__name__}-{self.name}"


# What a message names, for arguments that hold several things with names of their own.
WORDS = {"runs": "runs|batch_size|seed|learning_rate", "space": "space|batch_size|seed|learning_rate"}


def declared(function, valid, **more) -> list[Case]:
    """Returns a case for each declared argument of a function.

    Args:
      function: public.
      valid: returns arguments that it takes.
      **more: further values of an argument that do not fit the others, or of one that has no declaration of its own.
    """
    declarations = {name: bad(kind) for name, kind in function.kinds.items()}
    for name, strategy in more.items():
        declarations[name] = declarations[name] | strategy if name in declarations else strategy
    return [Case(function, name, strategy, valid, WORDS.get(name, "")) for name, strategy in declarations.items()]


def assert_refused(function, given, word):
    """Asserts that a call ends in one sentence of this package, which names what is wrong."""
    with pytest.raises((ValueError, TypeError)) as caught:
        function(**given)
    error = caught.value
    assert not isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError), error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(frame.filename).is_relative_to(PACKAGE), f"{frame.filename}:{frame.lineno}: {error!r}"
    message = str(error)
    assert re.search(word, message) and len(message) < MAX_WORDS and message.count("\n") == 0, message


def named_functions(cases):
    return {case.function.__name__ for case in cases}

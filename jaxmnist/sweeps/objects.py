"""Values that are neither numbers nor strings, in the columns of runs: tuples, functions, None.

In arrays and results, strings stand for them. Shapes: R runs.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxmnist.values import described, restored

Objects = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


def without_objects(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Objects]:
    """Returns the runs with strings in place of objects, and for each such name the objects with their strings."""
    columns = {name: [*map(described, column)] for name, column in arrays.items() if column.dtype == object}
    objects = tuple(
        (name, tuple(dict(zip(strings, arrays[name].tolist(), strict=True)).items()))
        for name, strings in columns.items()
    )
    return {name: np.array(columns[name]) if name in columns else column for name, column in arrays.items()}, objects


def restored_values(
    column: np.ndarray, known: Mapping[str, Any] = MappingProxyType({}), plain: Collection[str] = frozenset()
) -> list:
    """Returns the values of a column of a result, with objects in place of the strings that stand for them.

    Args:
      column: `[R]` values, as `without_objects` returns them.
      known: objects by their strings; others are read from their strings if that is possible.
      plain: strings that stand for nothing else.
    """
    if column.dtype.kind != "U":
        return column.tolist()
    return [text if text in plain else known[text] if text in known else restored(text) for text in column.tolist()]


def column_of(values: Sequence) -> np.ndarray:
    """Returns values as a column of runs: of numbers, of booleans or of strings if all are that, else of objects."""
    for kind in (bool, str, (int, float)):
        if all(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for value in values):
            return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column

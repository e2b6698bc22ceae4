"""Runs as a mapping that says in a few lines what it holds, instead of printing all of its numbers."""

import math
from typing import Any

import jax
import numpy as np

from jaxmnist.host.display import WRONG_FIELDS, listed, with_table


def _rows(runs: "RunTable") -> dict[str, str]:
    columns = {name: column.tolist() for name, column in runs.items()}
    (num_runs,) = set(map(len, columns.values()))
    values = {name: list(dict.fromkeys(column)) for name, column in columns.items()}
    is_grid = num_runs == math.prod(map(len, values.values())) == len(set(zip(*columns.values(), strict=True)))
    count = f"{num_runs:,}, every combination once" if is_grid else f"{num_runs:,}"
    return {"runs": count} | {name: listed(each) for name, each in values.items()}


@with_table(_rows)
class RunTable(dict[str, np.ndarray]):
    """A mapping of names to `[R]` arrays, as `grid`, `sample` and `union` return it: a `dict` in all but its `repr`."""

    def __repr__(self) -> str:
        try:
            rows = _rows(self)
        except WRONG_FIELDS:
            return super().__repr__()
        width = max(map(len, rows))
        return "\n".join([f"{type(self).__name__}:", *(f"  {name:<{width}}  {words}" for name, words in rows.items())])


def _flat(runs: RunTable) -> tuple[list, tuple]:
    return [runs[name] for name in sorted(runs)], tuple(sorted(runs))


def _with_keys(runs: RunTable) -> tuple[list, tuple]:
    leaves, names = _flat(runs)
    return [(jax.tree_util.DictKey(name), leaf) for name, leaf in zip(names, leaves, strict=True)], names


def _from_flat(names: tuple, leaves: Any) -> RunTable:
    return RunTable(zip(names, leaves, strict=True))


# To jax, a subclass of a dict would be a leaf.
jax.tree_util.register_pytree_with_keys(RunTable, _with_keys, _from_flat, _flat)

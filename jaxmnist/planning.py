"""From hyperparameter axes to runs, and from runs to the fewest padded programs.

Shapes: R runs, G groups of a program, P runs of each group.
"""

import functools
import itertools
import math
import numbers
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

MAX_PADDING = 2.0
Runs = Mapping[str, np.ndarray]


class Program(NamedTuple):
    """Runs that train together, as a `vmap` over groups of a `vmap` over the runs of a group.

    The runs of a group share batch size and seed, and with them every batch; this is what makes a sweep fast.

    Attributes:
      padded_batch_size: the largest batch size of the program.
      batch_size: `[G]` int.
      seed: `[G]` int.
      rows: `[G, P]` int, which runs these are.
    """

    padded_batch_size: int
    batch_size: np.ndarray
    seed: np.ndarray
    rows: np.ndarray


def grid(**axes: float | Iterable[float]) -> dict[str, np.ndarray]:
    """Returns the runs of a full grid: every combination of the axes' values, the last axis fastest.

    Args:
      **axes: the values of each hyperparameter, distinct and finite, in any order; or one value. `batch_size` and
        `seed` are whole numbers; every other name is a keyword of the optimizer.

    Returns:
      A mapping of name to `[R]` values.

    Raises:
      ValueError: an axis is empty, repeats a value, or holds one that is not a finite number.
    """
    values = {name: _axis(name, axis) for name, axis in axes.items()}
    if not values:
        raise ValueError("grid() needs at least one axis, such as learning_rate=[0.1, 0.5]")
    mesh = np.meshgrid(*values.values(), indexing="ij")
    return {name: points.reshape(-1) for name, points in zip(values, mesh, strict=True)}


def _axis(name: str, axis: float | Iterable[float]) -> np.ndarray:
    """Returns one axis as an array, checked."""
    given = list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]
    if not given:
        raise ValueError(f"{name} is empty: an axis needs at least one value")
    for value in given:
        if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{name} has the value {value!r}; an axis takes finite numbers")
    values = np.asarray(given)
    if len(np.unique(values)) < len(values):
        raise ValueError(f"{name} has a value twice in {given}; the values of an axis are distinct")
    return values


def check_runs(runs: Runs, num_train: int) -> dict[str, np.ndarray]:
    """Returns the runs as arrays, after checking what training relies on.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed` among the names.
      num_train: number of training images.

    Raises:
      ValueError: a name is missing, lengths differ, or a value is out of range.
    """
    arrays = {name: np.asarray(values) for name, values in runs.items()}
    for name in ("batch_size", "seed"):
        if name not in arrays:
            raise ValueError(f"{name} is missing from the runs; add it, for example {name}=[1]")
    shapes = {values.shape for values in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or 0 in next(iter(shapes)):
        raise ValueError(f"runs need one flat, non-empty array per name, all of one length, not {shapes}")
    _check_whole("batch_size", arrays["batch_size"], 1, num_train, f"the {num_train} training images")
    _check_whole("seed", arrays["seed"], 0, 2**31 - 1, "2**31 - 1")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has the value {values[~np.isfinite(values)][0]}; runs take finite numbers")
    return arrays


def _check_whole(name: str, values: np.ndarray, low: int, high: int, high_words: str) -> None:
    wrong = ~((values >= low) & (values <= high) & (values == np.floor(values)))
    if wrong.any():
        raise ValueError(f"{name} {values[wrong][0]} is not a whole number from {low} to {high_words}")


def hyperparameter_names(runs: Runs) -> list[str]:
    """Returns the names that the optimizer is called with."""
    return [name for name in runs if name not in ("batch_size", "seed")]


def plan(runs: Runs, max_padding: float = MAX_PADDING) -> list[Program]:
    """Returns the fewest programs whose padded work is at most `max_padding` times the useful work.

    Work is counted in examples per step. Batch sizes that lie next to each other are merged, and groups of
    different numbers of runs are kept apart, so only batches are padded.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed`.
      max_padding: at least 1.
    """
    groups = defaultdict(list)
    for row, key in enumerate(zip(runs["batch_size"], runs["seed"], strict=True)):
        groups[int(key[0]), int(key[1])].append(row)
    by_length = defaultdict(list)
    for (batch_size, seed), rows in sorted(groups.items()):
        by_length[len(rows)].append((batch_size, seed, rows))
    programs = []
    for same_length in by_length.values():
        batch_sizes = [batch_size for batch_size, _, _ in same_length]
        for start, stop in merge(batch_sizes, max_padding):
            sizes, seeds, members = (np.array(column) for column in zip(*same_length[start:stop], strict=True))
            programs.append(Program(int(sizes.max()), sizes, seeds, members))
    return programs


def merge(batch_sizes: list[int], max_padding: float) -> list[tuple[int, int]]:
    """Returns the fewest slices of ascending batch sizes whose padded sum is at most `max_padding` x their sum.

    Among as many slices, those of the least padded sum.
    """
    ends = [0] + [i for i in range(1, len(batch_sizes)) if batch_sizes[i] != batch_sizes[i - 1]] + [len(batch_sizes)]

    @functools.cache
    def best(first: int, num_slices: int) -> tuple[float, tuple[int, ...]]:
        """Returns the least padded sum of what begins at `ends[first]`, and where its slices begin."""
        if num_slices == 0:
            return (0.0 if first == len(ends) - 1 else math.inf), (ends[first],)
        options: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())]
        for last in range(first + 1, len(ends)):
            rest, starts = best(last, num_slices - 1)
            padded = (ends[last] - ends[first]) * batch_sizes[ends[last] - 1]
            options.append((padded + rest, (ends[first], *starts)))
        return min(options)

    for num_slices in range(1, len(ends)):
        padded, starts = best(0, num_slices)
        if padded <= max_padding * sum(batch_sizes):
            break
    return list(itertools.pairwise(starts))


def padding(programs: list[Program]) -> float:
    """Returns padded over useful work of a plan, at least 1."""
    padded = sum(program.rows.size * program.padded_batch_size for program in programs)
    useful = sum(program.rows.shape[1] * program.batch_size.sum() for program in programs)
    return padded / useful

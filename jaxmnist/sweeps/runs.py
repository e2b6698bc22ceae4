"""Runs: a mapping of hyperparameter names to arrays of equal length `[R]`, one entry per run.

Grids, random samples and unions make them; every name but `batch_size` and `seed` is a keyword of the optimizer
factory, a hyperparameter of the model, a keyword of the loss, or a field of the augmentation. Shapes: R runs.
"""

import dataclasses
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxmnist import checks
from jaxmnist.checks import SEED, Number, Where, Whole, checked_by, is_mapping, shown
from jaxmnist.data.order import SEEDS
from jaxmnist.limits import MAX_RUNS, MAX_SEED
from jaxmnist.sweeps.arguments import RUNS
from jaxmnist.sweeps.objects import column_of
from jaxmnist.sweeps.run_table import RunTable
from jaxmnist.values import described, frozen

Runs = Mapping[str, np.ndarray]
Value = Any


@dataclasses.dataclass(frozen=True)
class Distribution:
    """An interval to draw from; made by `uniform` and `loguniform`.

    Attributes:
      low: least value.
      high: largest value.
      logarithmic: whether the logarithm is uniform, not the value.
    """

    low: float
    high: float
    logarithmic: bool

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """Returns `[size]` float64 draws."""
        if not self.logarithmic:
            return generator.uniform(self.low, self.high, size)
        drawn = np.exp(generator.uniform(math.log(self.low), math.log(self.high), size))
        return np.clip(drawn, self.low, self.high)

    def at(self, share: float) -> float:
        """Returns the value below which this share, in `[0, 1)`, of all draws lies."""
        if not self.logarithmic:
            return self.low + share * (self.high - self.low)
        return min(max(self.low * (self.high / self.low) ** share, self.low), self.high)


@checked_by(low=Number(), high=Number())
def uniform(low: float, high: float) -> Distribution:
    """Returns the uniform distribution on `[low, high]`, for `sample` and `search`.

    Raises:
      ValueError: the bounds are not finite, or not in this order.
    """
    return _distribution("uniform", low, high, logarithmic=False)


@checked_by(low=Number(), high=Number())
def loguniform(low: float, high: float) -> Distribution:
    """Returns the distribution on `[low, high]` whose logarithm is uniform, for `sample` and `search`.

    Raises:
      ValueError: the bounds are not finite, not above 0, or not in this order.
    """
    return _distribution("loguniform", low, high, logarithmic=True)


def _distribution(name: str, low: float, high: float, logarithmic: bool) -> Distribution:
    least = 0.0 if logarithmic else -math.inf
    if not least < low < high:
        positive = " above 0" if logarithmic else ""
        raise ValueError(
            f"{name}(low={shown(low)}, high={shown(high)}) needs two finite numbers{positive}, the lower one first"
        )
    return Distribution(float(low), float(high), logarithmic)


@checked_by()
def grid(**axes: Value | Iterable[Value]) -> RunTable:
    """Returns the runs of a full grid: every combination of the axes' values, the last axis fastest.

    Args:
      **axes: the values of each hyperparameter, distinct, in any order and in any kind of sequence or flat array; or
        one value. `batch_size` and `seed` are whole numbers; other names are hyperparameters of the model, keywords of
        the loss, fields of the augmentation, or else keywords of the optimizer, and take finite numbers, booleans
        (`nesterov`), strings, or tuples, functions and None.

    Returns:
      A mapping of name to `[R]` values.

    Raises:
      ValueError: an axis is empty, repeats a value, mixes kinds, or holds one that is not finite.
    """
    values = {name: checked_axis(name, axis) for name, axis in axes.items()}
    if not values:
        raise ValueError("grid() needs at least one axis, such as learning_rate=[0.1, 0.5]")
    _check_count("grid", math.prod(map(len, values.values())))
    mesh = np.meshgrid(*values.values(), indexing="ij")
    return RunTable((name, points.reshape(-1)) for name, points in zip(values, mesh, strict=True))


@checked_by(num_runs=Whole(1, MAX_RUNS), seed=SEED)
def sample(num_runs: int, seed: int, /, **axes: Distribution | Value | Iterable[Value]) -> RunTable:
    """Returns runs drawn at random (random search; Bergstra & Bengio 2012, JMLR 13:281).

    Args:
      num_runs: R.
      seed: decides the draws, each axis by itself: adding an axis leaves the others as they are. It is positional,
        since `seed=` is an axis: that of the runs.
      **axes: for each hyperparameter a distribution (`loguniform`, `uniform`), values to choose from with equal
        probability, or one value.

    Raises:
      ValueError: `num_runs` or `seed` is not a whole number in range, or `grid` would reject an axis.
    """
    if not axes:
        raise ValueError("sample() needs at least one axis, such as learning_rate=loguniform(1e-4, 1)")
    runs = RunTable()
    for name, axis in axes.items():
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if isinstance(axis, Distribution):
            runs[name] = axis.draw(generator, num_runs)
        else:
            runs[name] = generator.choice(checked_axis(name, axis), num_runs)
    return runs


@checked_by()
def union(*parts: Runs) -> RunTable:
    """Returns the runs of all parts, in their order; a run that is in several parts is kept once.

    Raises:
      ValueError: no part is given, or two parts have different names.
    """
    if not parts:
        raise ValueError("union() needs at least one set of runs")
    names = list(parts[0]) if isinstance(parts[0], Mapping) else []
    for part in parts:
        check_columns("parts", part)
        if set(part) != set(names):
            raise ValueError(f"runs of {sorted(part)} cannot be united with runs of {sorted(names)}")
    joined = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in names}
    rows = distinct_rows(joined)
    return RunTable((name, column[rows]) for name, column in joined.items())


def distinct_rows(runs: Runs) -> list[int]:
    """Returns the rows of runs that are not those of an earlier row again."""
    columns = (map(frozen, column) if column.dtype == object else column.tolist() for column in runs.values())
    first: dict[tuple, int] = {}
    for index, row in enumerate(zip(*columns, strict=True)):
        first.setdefault(row, index)
    return list(first.values())


@checked_by(
    runs=RUNS,
    seeds=Where(
        "a sequence of distinct whole numbers",
        lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes),
    ),
)
def with_seeds(runs: Runs, seeds: Iterable[int]) -> RunTable:
    """Returns each run once per seed, so that settings drawn at random are compared over the same seeds.

    Args:
      runs: name to `[R]` values, without `seed`.
      seeds: S distinct whole numbers.

    Returns:
      Name to `[R * S]` values, the seed fastest.

    Raises:
      ValueError: the runs have a seed already, or `grid` would reject the seeds.
    """
    check_columns("runs", runs)
    if "seed" in runs:
        raise ValueError("the runs have a seed already; with_seeds adds seeds to runs without one")
    axis = _whole("seeds", checked_axis("seeds", seeds), 0, MAX_SEED, "2**31 - 1")
    num_runs = len(next(iter(runs.values())))
    _check_count("seeds", num_runs * len(axis))
    repeated = {name: np.repeat(np.asarray(column), len(axis)) for name, column in runs.items()}
    return RunTable(repeated, seed=np.tile(axis, num_runs))


def check_runs(runs: Runs, num_train: int) -> dict[str, np.ndarray]:
    """Returns the runs as arrays, after checking what training relies on.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed` among the names. `init_seed` decides in its place the
        initial parameters and what is dropped out, and `order_seed` the order of examples; with both of them, `seed`
        decides nothing and need not be given.
      num_train: number of training images.

    Raises:
      ValueError: a name is missing, lengths differ, or a value is out of range; or `seed` has several values that
        decide nothing.
    """
    is_decided = {"init_seed", "order_seed"} <= set(runs)
    if is_decided:
        runs = {"seed": np.zeros(len(runs["init_seed"]), int), **runs}
    for name in ("batch_size", "seed"):
        if name not in runs:
            example = {"batch_size": "[64]", "seed": "range(3)"}[name]
            raise ValueError(f"{name} is missing from the runs; add it, for example {name}={example}")
    arrays = check_columns("runs", runs)
    for name, values in arrays.items():
        if values.dtype.kind not in "biufUO":
            raise ValueError(f"{name} has values of type {values.dtype}; runs take numbers, booleans and strings")
        if values.dtype.kind == "f":
            finite = np.isfinite(_single(values))
            if not finite.all():
                raise ValueError(f"{name} has the value {values[~finite][0]}; runs take finite float32 numbers")
    arrays["batch_size"] = _whole("batch_size", arrays["batch_size"], 1, num_train, f"the {num_train} training images")
    for name in SEEDS & set(arrays):
        arrays[name] = _whole(name, arrays[name], 0, MAX_SEED, "2**31 - 1")
    seeds = np.unique(arrays["seed"])
    if is_decided and len(seeds) > 1:
        # Runs that differ in nothing else would be counted as seeds, and their interval would be of width 0.
        raise ValueError(
            f"seed has {len(seeds)} values and decides nothing, since init_seed and order_seed are both given; give "
            "it one value or none"
        )
    return arrays


def check_columns(argument: str, runs: Runs) -> dict[str, np.ndarray]:
    """Returns the runs as arrays, after checking that they are columns of equal length.

    Raises:
      ValueError: they are not.
    """
    if not is_mapping(runs):
        checks.raise_invalid(argument, runs, RUNS.words)
    arrays = {}
    for name, values in runs.items():
        try:
            arrays[name] = np.asarray(values)
        except ValueError:
            raise ValueError(f"{argument}: {name} is {shown(values)}; a flat array is needed") from None
    shapes = {values.shape for values in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or 0 in next(iter(shapes)):
        raise ValueError(f"{argument} need one flat, non-empty array per name, all of one length, not {shapes or runs}")
    return arrays


def hyperparameter_names(runs: Runs) -> list[str]:
    """Returns the names other than `batch_size` and those of seeds."""
    return [name for name in runs if name not in {"batch_size", *SEEDS}]


def checked_axis(name: str, axis: Value | Iterable[Value]) -> np.ndarray:
    """Returns one axis as an array `[N]`, after checking it.

    Raises:
      ValueError: `grid` would reject it.
    """
    given = _values(name, axis)
    _check_count(name, len(given))
    if not given:
        raise ValueError(f"{name} is empty: an axis needs at least one value")
    if name not in {"batch_size", *SEEDS} and any(map(_is_object, given)):
        return _objects(name, given)
    for kind in (bool, str):
        if all(isinstance(value, kind) for value in given) and name not in {"batch_size", *SEEDS}:
            break
    else:
        for value in given:
            if not checks.is_number(value):
                raise ValueError(
                    f"{name} has the value {shown(value)}; an axis takes finite numbers, or all booleans, or all "
                    "strings, or tuples, functions and None"
                )
    values = np.asarray(given)
    if values.dtype.kind not in "biufU":
        raise ValueError(f"{name} has a value beyond 64 bits in {shown(given)}; an axis takes smaller numbers")
    if values.dtype.kind == "f" and not np.isfinite(_single(values)).all():
        raise ValueError(f"{name} has a value beyond float32 in {shown(given)}, which training uses")
    if len(np.unique(_single(values) if values.dtype.kind == "f" else values)) < len(values):
        raise ValueError(
            f"{name} has a value twice in {shown(given)}; the values of an axis are distinct, as float32 too"
        )
    return values


def _values(name: str, axis: Any) -> list:
    """Returns the values of an axis, whatever holds them: one value, a sequence, an iterator, or an array."""
    if hasattr(axis, "__array__") and not isinstance(axis, type):
        array = np.asarray(axis)
        if array.ndim > 1:
            raise ValueError(f"{name} is {shown(axis)}; an axis is one value or a flat sequence of values")
        return np.atleast_1d(array).tolist()
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        several: list[Any] = [axis]
    else:
        # One more than allowed, because an axis could be infinite.
        several = list(itertools.islice(axis, MAX_RUNS + 1))
    return [value.item() if getattr(value, "shape", None) == () else value for value in several]


def _is_object(value: Any) -> bool:
    return value is None or isinstance(value, tuple) or callable(value)


def _objects(name: str, given: list) -> np.ndarray:
    """Returns an axis of any values, distinct by how they are described."""
    if len(set(map(described, given))) < len(given):
        raise ValueError(f"{name} has a value twice in {shown(given)}; the values of an axis are distinct")
    return column_of(given)


def _check_count(name: str, count: int) -> None:
    if count > MAX_RUNS:
        raise ValueError(f"{name} makes {count:,} runs or more; at most {MAX_RUNS:,} are allowed")


def _single(values: np.ndarray) -> np.ndarray:
    """Returns the numbers that training uses."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _whole(name: str, values: np.ndarray, low: int, high: int, high_words: str) -> np.ndarray:
    """Returns whole numbers as int64, or raises ValueError if some are fractional or out of range."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name} {shown(values.tolist()[0])} is not a whole number from {low} to {high_words}")
    wrong = ~((values >= low) & (values <= high) & (values == np.floor(values)))
    if wrong.any():
        raise ValueError(f"{name} {values[wrong][0]} is not a whole number from {low} to {high_words}")
    return values.astype(np.int64)

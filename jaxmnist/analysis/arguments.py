"""What the functions that take results accept, as data: what makes a data set a result."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.checks import (
    FLAG,
    STRING,
    Choice,
    Choices,
    Kind,
    Number,
    Optional,
    Where,
    is_mapping,
    is_sequence,
    is_whole,
    raise_invalid,
    shown,
)
from jaxmnist.data.dataset import SPLIT_NAMES
from jaxmnist.data.order import SEEDS

WORDS = ("dataset", "budget", "model", "optimizer")
NUMBERS = ("num_train", "num_validation", "num_test", "num_classes", "num_steps")
# `*` stands for each metric of the result.
SETTINGS = ("validation_*", "test_*", "diverged_step")
BEFORE_METRICS = "accuracy loss"  # what results hold that were written when there was nothing else
NEEDED = "a result as sweep returns it"


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> Any:
    return json.loads(text)


def axis_values(result: xr.Dataset) -> dict[str, list]:
    """Returns the hyperparameters of a result, and their values in the order in which they were typed."""
    return _parse(result.attrs["axes"])


def metric_names(result: xr.Dataset) -> list[str]:
    """Returns the metrics that a result holds of each split, the loss last."""
    names = result.attrs.get("metrics", BEFORE_METRICS)
    if not isinstance(names, str) or "loss" not in names.split():
        raise ValueError(
            f"result has the metrics {shown(names)} among its attributes; names are needed, with loss among them"
        )
    return names.split()


def variables_of(result: xr.Dataset, patterns: Sequence[str]) -> list[str]:
    """Returns the names of variables, with each metric of the result in place of `*`.

    Beside other metrics, the loss on the test split is not needed: no table shows it unless it is asked for.
    """
    found: list[str] = []
    for pattern in patterns:
        names = metric_names(result) if "*" in pattern else [""]
        if pattern == "test_*" and len(names) > 1:
            names = [name for name in names if name != "loss"]
        found += [pattern.replace("*", name) for name in names]
    return found


def _check_axes(result: xr.Dataset) -> dict[str, list]:
    """Returns the hyperparameters of a result and their values, or raises ValueError if it is not a result."""
    if not isinstance(result, xr.Dataset):
        raise_invalid("result", result, NEEDED)
    try:
        axes = _parse(result.attrs["axes"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"result has no axes among its attributes; {NEEDED} is needed") from None
    if not isinstance(axes, dict) or "seed" not in axes:
        raise ValueError(f"result has the axes {shown(axes)}; {NEEDED} is needed, with seed among them")
    for name, values in axes.items():
        # A dimension without a coordinate counts from 0, which is not a hyperparameter.
        coord = result[name] if name in result.coords else None
        if not isinstance(values, list) or coord is None or coord.ndim > 1 or coord.dtype.kind not in "biufUOT":
            raise ValueError(f"result has no values of its axis {name}; {NEEDED} is needed")
        if coord.dtype.kind == "O" and not all(isinstance(value, str) for value in coord.values.ravel()):
            raise ValueError(f"result has objects as values of its axis {name}; {NEEDED} is needed")
        held = set(np.atleast_1d(coord.values).tolist())
        if not all(isinstance(value, bool | int | float | str) for value in values) or not held <= set(values):
            raise ValueError(f"result has other values of its axis {name} than it says; {NEEDED} is needed")
    return axes


def varied(result: xr.Dataset) -> list[str]:
    """Returns the hyperparameters, without the seed, of which a result has several values."""
    return [name for name in axis_values(result) if name != "seed" and len(np.unique(result[name].values)) > 1]


def check_result(result: xr.Dataset, variables: Sequence[str] = (), attributes: Sequence[str] = ()) -> None:
    """Raises ValueError if a result lacks what is needed of it.

    Args:
      result: of a sweep.
      variables: names of its variables, in which `*` stands for each metric; those that begin with `recorded_` are
        curves.
      attributes: names among `WORDS` and `NUMBERS`.
    """
    axes = _check_axes(result)
    run_dims = {"run"} if "run" in result.dims else {name for name in axes if result[name].ndim}
    if "run" in result.dims and any(result[name].dims not in (("run",), ()) for name in axes):
        raise ValueError(f"result has axes of another shape than its runs; {NEEDED} is needed")
    for name in variables_of(result, variables):
        dims = run_dims | ({"step"} if name.startswith("recorded_") else set())
        if name not in result.data_vars:
            more = ": record it in a sweep with num_evaluations above 1" if name.startswith("recorded_") else ""
            raise ValueError(f"result has no {name}, which is needed{more}")
        found = result[name]
        if found.dtype.kind not in "fiub" or set(found.dims) != dims or not found.size:
            raise ValueError(f"result has a {name} of {found.dtype} over {found.dims}; numbers over {dims} are needed")
        if "step" in dims and ("step" not in result.coords or result["step"].dtype.kind not in "iuf"):
            raise ValueError(f"result has no steps at which {name} was recorded; {NEEDED} is needed")
    for name in attributes:
        value = result.attrs.get(name)
        if name in WORDS and not isinstance(value, str):
            raise ValueError(f"result has the {name} {shown(value)} among its attributes; a string is needed")
        if name in NUMBERS and not (is_whole(value) and value >= 1):
            raise ValueError(
                f"result has the {name} {shown(value)} among its attributes; a whole number from 1 on is needed"
            )


@dataclasses.dataclass(frozen=True)
class IsResult(Kind):
    """A result that holds what is needed of it.

    Attributes:
      variables: names of variables, in which `*` stands for each metric; those that begin with `recorded_` are curves.
      attributes: names among `WORDS` and `NUMBERS`.
      numbers: hyperparameters that have to be numbers, such as the axes of a figure.
      shown: the only hyperparameters, besides the seed, of which there may be several values; empty for any.
      present: names of variables that have to be valid if they are there.
      one_seed: whether the function is given a result with all seeds in one, as `with_one_seed` returns it.
    """

    variables: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    one_seed: bool = True
    words = NEEDED

    def check(self, name: str, value: Any) -> None:
        value = as_runs(value)
        check_result(value, self.variables, self.attributes)
        check_result(value, [each for each in variables_of(value, self.present) if each in value])
        value = self.convert(value)
        axes = axis_values(value)
        for each in self.numbers:
            if each not in axes or value[each].dtype.kind not in "iuf":
                raise ValueError(f"result has no numbers as {each}, which is needed")
        if self.shown:
            check_shown(value, *self.shown)

    def convert(self, value: Any) -> Any:
        value = as_runs(value)
        return with_one_seed(value) if self.one_seed else value


@dataclasses.dataclass(frozen=True)
class IsResults(Kind):
    """A result, or several by name.

    Attributes:
      each: what each of them is.
    """

    each: IsResult
    words = f"{NEEDED}, or a dictionary of several by name,"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, xr.Dataset) and not (is_mapping(value) and value):
            raise_invalid(name, value, self.words)
        for result in by_name(value).values():
            self.each.check(name, result)

    def convert(self, value: Any) -> Any:
        if isinstance(value, xr.Dataset):
            return self.each.convert(value)
        return {name: self.each.convert(result) for name, result in value.items()}


def by_name(result: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Returns results by name; the name of a single one is empty."""
    # An `xr.Dataset` is a mapping, too.
    return {"": result} if isinstance(result, xr.Dataset) else dict(result)


def as_runs(result: Any) -> Any:
    """Returns a result with one dim `run` if it was stacked, or indexed point by point; any other value as it is.

    Then several hyperparameters differ along one dim, of which each by itself would say too little.
    """
    names = _axis_names(result)
    dims = list(dict.fromkeys(dim for name in names for dim in result[name].dims))
    stacked = [dim for dim in dims if isinstance(result.indexes.get(dim), pd.MultiIndex)]
    own = (all(result[name].dims in ((), (place or name,)) for name in names) for place in ("", "run"))
    if not stacked and any(own):
        return result
    result = result.reset_index(stacked).drop_vars("run", errors="ignore")
    result = result.stack(_run=dims, create_index=False).rename_dims(_run="run")
    single = {
        name: ("run", np.full(result.sizes["run"], result[name].item())) for name in names if not result[name].ndim
    }
    return result.assign_coords(single)


def _axis_names(result: Any) -> list[str]:
    """Returns the hyperparameters of a result that it has coordinates of; none if it is not a result."""
    try:
        names = list(axis_values(result))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(result, xr.Dataset) and name in result.coords]


def with_one_seed(result: xr.Dataset) -> xr.Dataset:
    """Returns a result whose only seed is `seed`: each combination of it with `init_seed` and `order_seed`, numbered.

    Runs that differ in these alone are repetitions of one setting, like those of several seeds.
    """
    axes = axis_values(result)
    if not SEEDS & set(axes) - {"seed"}:
        return result
    names = [name for name in axes if name in SEEDS and result[name].ndim]
    fixed = [name for name in axes if name in SEEDS and not result[name].ndim]
    result = result.drop_vars(fixed)
    if "run" in result.dims:
        combinations = list(zip(*(result[name].values.tolist() for name in names), strict=True))
        numbers = {combination: number for number, combination in enumerate(dict.fromkeys(combinations))}
        one = result.drop_vars(names).assign_coords(seed=("run", [numbers[each] for each in combinations]))
    else:
        one = result.stack(_seeds=names, create_index=False).drop_vars(names).rename_dims(_seeds="seed")
        one = one.assign_coords(seed=np.arange(one.sizes["seed"]))
    others = {name: values for name, values in axes.items() if name not in SEEDS}
    return one.assign_attrs(axes=json.dumps(others | {"seed": sorted(set(one["seed"].values.tolist()))}))


def check_shown(result: xr.Dataset, *names: str) -> None:
    """Raises ValueError if settings differ in a hyperparameter that is not among those that a figure shows."""
    hidden = [name for name in varied(result) if name not in names]
    if hidden:
        raise ValueError(
            f"result has several values of {', '.join(hidden)}, but the figure shows only {' and '.join(names)}; "
            "select one value of every other hyperparameter"
        )


@dataclasses.dataclass(frozen=True)
class IsTable(Kind):
    """A table with columns of numbers.

    Attributes:
      function: the one that returns such tables.
      columns: those that are needed.
      can_be_empty: whether it may have no row.
    """

    function: str
    columns: tuple[str, ...]
    can_be_empty: bool = True

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"a table as {self.function} returns it"

    def check(self, name: str, value: Any) -> None:
        if (
            not isinstance(value, pd.DataFrame)
            or not set(self.columns) <= set(value)
            or not (self.can_be_empty or len(value))
        ):
            raise_invalid(name, value, self.words)
        for column in self.columns:
            if value[column].dtype.kind not in "iuf":
                raise ValueError(f"{name} has a {column} of {value[column].dtype}; numbers are needed")


ANY_SPLIT = Choice(SPLIT_NAMES)
CHOOSING_SPLIT = Choice(("validation", "test"))
SEVERAL_SPLITS = Choices(SPLIT_NAMES, single=True)
# Which metrics there are depends on the result: `metrics.named` and the like compare with it.
BY, LARGEST, METRIC = Optional(STRING), Optional(FLAG), Optional(STRING)
SEVERAL_METRICS = Optional(
    Where("a metric or a sequence of distinct ones", lambda value: isinstance(value, str) or is_sequence(value))
)
TARGET = Number()

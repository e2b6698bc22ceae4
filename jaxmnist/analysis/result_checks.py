"""What makes a data set a result, checked before it is read as one."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from jaxmnist import checks

WORDS = ("dataset", "budget", "model", "optimizer")
NUMBERS = ("num_train", "num_validation", "num_test", "num_classes", "num_steps")
SETTINGS = ("validation_accuracy", "validation_loss", "test_accuracy", "diverged_step")
NEEDED = "a result as sweep returns it"


def typed_axes(result: xr.Dataset) -> dict[str, list]:
    """Returns the hyperparameters of a result, and their values as they were typed.

    Raises:
      ValueError: it is no result.
    """
    if not isinstance(result, xr.Dataset):
        checks.raise_invalid("result", result, NEEDED)
    try:
        axes = json.loads(result.attrs["axes"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"result has no axes among its attributes; {NEEDED} is needed") from None
    if not isinstance(axes, dict) or "seed" not in axes:
        raise ValueError(f"result has the axes {checks.shown(axes)}; {NEEDED} is needed, with seed among them")
    for name, values in axes.items():
        # A dimension without a coordinate counts from 0, which is no hyperparameter.
        coord = result[name] if name in result.coords else None
        if not isinstance(values, list) or coord is None or coord.ndim > 1 or coord.dtype.kind not in "biufUOT":
            raise ValueError(f"result has no values of its axis {name}; {NEEDED} is needed")
        if coord.dtype.kind == "O" and not all(isinstance(value, str) for value in coord.values.ravel()):
            raise ValueError(f"result has objects as values of its axis {name}; {NEEDED} is needed")
        held = set(np.atleast_1d(coord.values).tolist())
        if not all(isinstance(value, bool | int | float | str) for value in values) or not held <= set(values):
            raise ValueError(f"result has other values of its axis {name} than it says; {NEEDED} is needed")
    return axes


def check(result: xr.Dataset, variables: Sequence[str] = (), attributes: Sequence[str] = ()) -> None:
    """Raises ValueError where a result has not what is needed of it.

    Args:
      result: of a sweep.
      variables: names of its variables; those that begin with `recorded_` are curves.
      attributes: names among `WORDS` and `NUMBERS`.
    """
    axes = typed_axes(result)
    of_runs = {"run"} if "run" in result.dims else {name for name in axes if result[name].ndim}
    if "run" in result.dims and any(result[name].dims not in (("run",), ()) for name in axes):
        raise ValueError(f"result has axes of another shape than its runs; {NEEDED} is needed")
    for name in variables:
        dims = of_runs | ({"step"} if name.startswith("recorded_") else set())
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
            raise ValueError(f"result has the {name} {checks.shown(value)} among its attributes; a string is needed")
        if name in NUMBERS and not (checks.is_whole(value) and value >= 1):
            raise ValueError(
                f"result has the {name} {checks.shown(value)} among its attributes; a whole number from 1 on is needed"
            )


def check_numbers(result: xr.Dataset, *names: str) -> None:
    """Raises ValueError where hyperparameters are missing, or no numbers, which the axes of a figure need."""
    axes = typed_axes(result)
    for name in names:
        if name not in axes or result[name].dtype.kind not in "iuf":
            raise ValueError(f"result has no numbers as {name}, which is needed")

"""Statistics of settings and of runs: dead runs, and finer grids around the best setting.

All of them use the validation split. A setting is one combination of hyperparameters; its runs
differ in the seed alone.
Shapes: S settings.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST, IsResult, check_result
from jaxmnist.analysis.metrics import check_by, judged
from jaxmnist.checks import Whole, checked_by, shown

# A loss this close to log(classes), relatively, is that of a random guess.
DEAD_TOLERANCE = 0.01


def _check_guess(given: SimpleNamespace) -> None:
    if not is_classified(given.result):
        raise ValueError(
            f"result is of the loss {shown(given.result.attrs.get('loss'))}; the cross_entropy over classes is needed, "
            "whose value for a random guess is known"
        )
    check_result(given.result, attributes=("num_classes",))


def is_classified(result: xr.Dataset) -> bool:
    """Returns whether a result's loss is the cross-entropy over a known number of classes."""
    loss = str(result.attrs.get("loss", "cross_entropy"))
    return loss.startswith("cross_entropy") and result.attrs.get("num_classes") != 0


@checked_by(_check_guess, result=IsResult(("recorded_validation_loss", "diverged_step")))
def is_dead(result: xr.Dataset) -> xr.DataArray:
    """Returns which runs are dead: their parameters have moved, but the network now gives every image the same answer.

    The validation loss of a dead run stays within 1 % of log(classes) over the last half of the training steps, and
    was outside that range at some earlier time. A run that learns slowly is not dead, nor is one whose loss never left
    that range.

    Args:
      result: with a recorded validation loss, a cross-entropy.

    Raises:
      ValueError: there is no such curve, or the result is of another loss.
    """
    curves = results.with_all_dims(result)["recorded_validation_loss"]
    guess = math.log(result.attrs["num_classes"])
    near = abs(curves - guess) <= DEAD_TOLERANCE * guess
    late = result["step"] >= result["step"].max() / 2
    return (near | ~late).all("step") & (~near).any("step") & result["diverged_step"].isnull()


@checked_by(check_by, result=results.CHOSEN, num_train=Whole(1), by=BY, largest=LARGEST)
def refined(result: xr.Dataset, num_train: int, by: str | None = None, largest: bool | None = None) -> dict[str, list]:
    """Returns the axes of a grid around the best setting: as many values, between the neighbours of the best one.

    If the best value is at the end of an axis, the new axis extends beyond it. Axes stay linear or logarithmic.

    Args:
      result: of a grid.
      num_train: number of training images, the largest possible batch size.
      by: the metric to choose by, as for `results.settings`.
      largest: whether its largest value is the best, as for `results.settings`.

    Raises:
      ValueError: no setting can be chosen, the result is not a grid, or some of its values are not numbers.
    """
    axes = {}
    for name, value in _best_of_grid("refined", result, by, largest).setting.items():
        values = np.unique(result[name].values.astype(np.float64))
        if len(values) == 1:
            axes[name] = [value]
            continue
        points, back = _evenly_spaced(values)
        place = int(np.argmin(np.abs(values - value)))
        below = points[place] - points[place - 1] if place > 0 else points[place + 1] - points[place]
        above = points[place + 1] - points[place] if place + 1 < len(points) else points[place] - points[place - 1]
        finer = back(np.linspace(points[place] - below, points[place] + above, len(points)))
        axes[name] = _allowed(result[name], finer, num_train)
    return axes


@checked_by(check_by, result=results.CHOSEN, num_train=Whole(1), by=BY, largest=LARGEST)
def widened(result: xr.Dataset, num_train: int, by: str | None = None, largest: bool | None = None) -> dict[str, list]:
    """Returns the axes of a grid, extended by half as many values beyond each edge that the best setting lies on.

    An axis whose best value is on no edge stays as it is, and so does one that cannot be extended: a batch size lies
    from 1 to `num_train`, and what has no negative value gets none. Axes stay linear or logarithmic.

    Args:
      result: of a grid.
      num_train: number of training images, the largest possible batch size.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: no setting can be chosen, the result is not a grid, or some of its values are not numbers.
    """
    chosen = _best_of_grid("widened", result, by, largest)
    axes = {}
    for name, value in chosen.setting.items():
        axes[name] = result[name].values.tolist()
        if name in chosen.edges:
            values = np.unique(result[name].values.astype(np.float64))
            points, back = _evenly_spaced(values)
            beyond = np.arange(1, len(values) // 2 + 1)
            is_first = value == values[0]
            end, gap = (points[0], points[0] - points[1]) if is_first else (points[-1], points[-1] - points[-2])
            axes[name] = sorted({*axes[name], *_allowed(result[name], back(end + gap * beyond), num_train)})
    return axes


def _best_of_grid(function: str, result: xr.Dataset, by: str | None, largest: bool | None) -> results.Best:
    """Returns the best setting of a grid of numbers.

    Raises:
      ValueError: the result is something else, or no setting can be chosen.
    """
    chosen = results.best(result, *judged(result, by, largest))
    for name in results.hyperparameters(result):
        if result[name].dtype.kind not in "iuf":
            raise ValueError(
                f"result has values of {name} that are not numbers; {function}() needs numbers, between and beyond "
                "which there are others"
            )
    if chosen is None or "run" in result.dims:
        raise ValueError(f"{function}() needs a grid with at least one setting of which no run diverged")
    return chosen


def _evenly_spaced(values: np.ndarray) -> tuple[np.ndarray, Callable]:
    """Returns ascending values on the scale on which they are more evenly spaced, and what leads back from it.

    That is the logarithm if the two are alike, as they are for two values.
    """
    if values[0] > 0 and gap_ratio(np.log(values)) <= gap_ratio(values):
        return np.log(values), np.exp
    return values, np.asarray


def _allowed(axis: xr.DataArray, points: np.ndarray, num_train: int) -> list:
    """Returns ascending points as values of an axis: whole ones stay whole, positive ones positive."""
    least = axis.values.min()
    if axis.dtype.kind in "iu":
        high = num_train if axis.name == "batch_size" else np.inf
        return np.unique(np.clip(np.round(points), min(least, 1), high).astype(int)).tolist()
    return [float(f"{number:.6g}") for number in np.unique(np.maximum(points, 0.0 if least >= 0 else -np.inf))]


def gap_ratio(points: np.ndarray) -> float:
    """Returns the largest gap between neighbouring points over the smallest; 1 if they are evenly spaced."""
    gaps = np.diff(points)
    return float(gaps.max() / gaps.min())

"""Plans and results of programs as named arrays, for files without objects."""

import json
import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxmnist.sweeps import planning

PLAN = "plan.npz"
# The numbers of the programs whose results a file holds.
PROGRAMS, RUN = "programs", "run/"
LENGTHS = dict(padded_batch_sizes="num_sizes", batch_size="num_groups", seed="num_groups", rows="num_runs")
Outcome = dict[str, np.ndarray]


def join_outcomes(finished: Mapping[int, Outcome]) -> Outcome:
    """Returns the results of several programs, by their numbers, as arrays without dimensions of programs."""
    names = next(iter(finished.values()))
    joined = {name: np.concatenate([each[name].ravel() for each in finished.values()]) for name in names}
    return {PROGRAMS: np.array([*finished])} | joined


def split_outcomes(arrays: Outcome, shapes: Callable[[int], Mapping[str, tuple[int, ...]]]) -> dict[int, Outcome]:
    """Returns the results of the programs in a file; ValueError or KeyError if these are others than expected."""
    expected = {index: shapes(index) for index in arrays.pop(PROGRAMS).tolist()}
    outcomes: dict[int, Outcome] = {index: {} for index in expected}
    if set(arrays) != set(next(iter(expected.values()), ())):
        raise ValueError("it holds other results")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{name} holds other things than numbers")
        shapes_of_it = [each[name] for each in expected.values()]
        parts = _divided(array, np.array([math.prod(shape) for shape in shapes_of_it]))
        for outcome, part, shape in zip(outcomes.values(), parts, shapes_of_it, strict=True):
            outcome[name] = part.reshape(shape)
    return outcomes


def pack_plan(runs: Mapping[str, np.ndarray], programs: list[planning.Program]) -> Outcome:
    """Returns runs and the plan of them as arrays of numbers and strings, each with the values of all programs."""
    numbers = [field for field in planning.Program._fields if field != "static"]
    # A sweep whose runs are all known has no programs.
    none = [np.empty(0, np.int64)]
    packed = {field: np.concatenate(none + [np.ravel(getattr(each, field)) for each in programs]) for field in numbers}
    packed |= {
        "static": np.array([json.dumps(program.static) for program in programs]),
        "num_sizes": np.array([len(program.padded_batch_sizes) for program in programs]),
        "num_groups": np.array([len(program.rows) for program in programs]),
        "num_runs": np.array([program.rows.size for program in programs]),
    }
    return packed | {f"{RUN}{name}": column for name, column in runs.items()}


def unpack_plan(packed: Outcome) -> tuple[dict[str, np.ndarray], list[planning.Program]]:
    """Returns what `pack_plan` was given.

    Raises:
      ValueError: it is not a plan, or not one of these runs.
    """
    runs = {name.removeprefix(RUN): column for name, column in packed.items() if name.startswith(RUN)}
    missing = [name for name in (*planning.Program._fields, *LENGTHS.values()) if name not in packed]
    missing += [name for name in ("seed", "batch_size") if name not in runs]
    if missing:
        raise ValueError(f"{PLAN} has no {missing[0]}; another version of jaxmnist began it")
    if not len(packed["num_runs"]):
        return runs, []
    parts = {name: _divided(packed[name], packed[length]) for name, length in LENGTHS.items()}
    sizes = [tuple(part.tolist()) for part in parts["padded_batch_sizes"]]
    rows = [part.reshape(number, -1) for part, number in zip(parts["rows"], packed["num_groups"], strict=True)]
    static = [tuple((name, value) for name, value in json.loads(text)) for text in packed["static"].tolist()]
    columns = zip(sizes, packed["at_once"].tolist(), parts["batch_size"], parts["seed"], rows, static, strict=True)
    programs = [planning.Program(*values) for values in columns]
    if not planning.is_plan_of(programs, runs):
        raise ValueError("its plan is not one of its runs")
    return runs, programs


def _divided(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Returns parts of some lengths; ValueError if these are not lengths, or not together that of the values."""
    ends = np.cumsum(lengths)
    if not ends.size or values.ndim != 1 or ends[-1] != len(values) or (lengths < 1).any():
        raise ValueError(f"{len(ends)} parts do not make up an array of shape {values.shape}")
    return np.split(values, ends[:-1])

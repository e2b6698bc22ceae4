"""A sweep that goes on with what its folder holds: what is finished there is not trained again.

Shapes: R runs, K runs that a folder holds, E recorded steps.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmnist.checks import shown
from jaxmnist.data.order import SEEDS
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import Setup, owners
from jaxmnist.sweeps.fingerprint import (
    COMPUTATION,
    LENGTH,
    PLAN,
    RUNS,
    combined,
    difference,
    raise_if_different,
    without,
)
from jaxmnist.sweeps.folder import Held, Outcome
from jaxmnist.sweeps.job import Job, describe, digests, make_job
from jaxmnist.values import described, restored

NONE = inspect.Parameter.empty
# Between the versions of packages with which the runs of a folder were trained.
AND = " and "


class Begun(NamedTuple):
    """A sweep that is about to train.

    Attributes:
      job: its runs are those that are asked for now, followed by others that its folder holds.
      programs: those that the folder holds, and then those of the runs that are new.
      description: what the sweep is, as numbers and strings.
      known: name to `[R, ...]` results that are known already; of a shorter sweep, its curves.
      finished: `[R]` bool, the runs that are not trained any more.
    """

    job: Job
    programs: list[planning.Program]
    description: dict
    known: Outcome
    finished: np.ndarray


def begin(job: Job, programs: list[planning.Program], description: dict) -> Begun:
    """Returns a sweep of which nothing is known."""
    return Begun(job, programs, description, {}, np.zeros(len(job.arrays["seed"]), bool))


def grow(job: Job, held: Held, description: dict, what: str, plan: Callable[[Job], list[planning.Program]]) -> Begun:
    """Returns the sweep of the runs of a job and of those that a folder holds.

    Args:
      job: what is asked for.
      held: what the folder holds.
      description: that of the job.
      what: words for what the folder holds.
      plan: returns the programs of a job.

    Raises:
      ValueError: the folder's sweep is one of another problem, has a hyperparameter without a value here, or has
        trained for another number of steps and cannot go on from there.
    """
    _check_problem(job, held, description, what)
    num_asked = len(job.arrays["seed"])
    columns = _united(job, held.runs, what)
    keys = _keys(columns)
    last_of = {key: row for row, key in enumerate(keys[num_asked:])}
    asked = set(keys[:num_asked])
    kept = [*range(num_asked), *(num_asked + row for key, row in last_of.items() if key not in asked)]
    runs = {name: column[kept] for name, column in columns.items()}
    whole = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)

    first_of = {keys[row]: index for index, row in reversed(list(enumerate(kept)))}
    places = np.array([first_of[key] for key in keys[num_asked:]])
    planned = [_moved(program, places, whole, what) for program in held.programs]
    if held.num_steps != job.num_steps:
        _check_lengthened(job, held, what)
    known, finished = _known(job, held, [keys[row] for row in kept], what)
    is_planned = np.zeros(len(kept), bool)
    for program in planned:
        is_planned[program.rows] = True
    missing = np.flatnonzero(~finished & ~is_planned)
    if len(missing):
        new = whole._replace(arrays={name: column[missing] for name, column in whole.arrays.items()})
        planned += [program._replace(rows=missing[program.rows]) for program in plan(new)]
    if difference(held.description, description) is None:
        return Begun(whole, planned, held.description, known, finished)
    # No plan of all of its runs has these programs.
    grown = without(PLAN, describe(whole))
    versions = [version for each in (held.description, grown) for version in str(each.get("versions")).split(AND)]
    return Begun(whole, planned, grown | {"versions": AND.join(dict.fromkeys(versions))}, known, finished)


def _moved(program: planning.Program, places: np.ndarray, whole: Job, what: str) -> planning.Program:
    """Returns a program of a folder with the rows, and the static values, that its runs have in a larger sweep."""
    rows, static = places[program.rows], []
    for name in whole.static:
        values = set(whole.arrays[name][rows].ravel().tolist())
        if len(values) > 1:
            raise ValueError(f"{what} has programs with several values of {name}, which now needs one each")
        static.append((name, values.pop()))
    return program._replace(rows=rows, static=tuple(static))


def _check_problem(job: Job, held: Held, description: Mapping, what: str) -> None:
    """Raises ValueError if a folder holds a sweep of another model, optimizer, loss, data or kind of curves."""
    is_longer = held.is_finished and held.num_steps != job.num_steps
    ignored = RUNS | {COMPUTATION} | (LENGTH if is_longer else frozenset())
    raise_if_different(what, without(ignored, held.description), without(ignored, description))
    runs = {name: _column(_values(job, name, column)) for name, column in held.runs.items()}
    same = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)
    names = (COMPUTATION, "versions")
    saved = {name: held.description[name] for name in names if name in held.description}
    given = {COMPUTATION: combined(digests(same).values()), "versions": description["versions"]}
    raise_if_different(what, saved, given)


def _check_lengthened(job: Job, held: Held, what: str) -> None:
    """Raises ValueError if a sweep cannot go on to more steps."""
    if held.num_steps > job.num_steps:
        raise ValueError(
            f"{what} has trained for {held.num_steps} steps, more than num_steps {job.num_steps}; choose another folder"
        )
    has_states = np.zeros(len(held.runs["seed"]), bool)
    for program in held.programs:
        has_states[program.rows] = True
    if not has_states.all():
        raise ValueError(
            f"{what} has trained for {held.num_steps} steps and has not kept its states, from which it could go on to "
            f"num_steps {job.num_steps} (keep_states=True keeps them); choose another folder"
        )
    before = planning.recorded_steps(held.num_steps, int(held.description["num_evaluations"]))
    now = planning.recorded_steps(job.num_steps, job.num_evaluations)
    if job.record and before != now[: len(before)]:
        raise ValueError(
            f"{what} has recorded the steps {shown(before)}, with which the steps {shown(now)} do not begin; choose "
            "num_evaluations so that they do"
        )


def _known(job: Job, held: Held, keys: list[tuple], what: str) -> tuple[Outcome, np.ndarray]:
    """Returns what a folder's result says of the runs with these keys, and which of them are finished."""
    from jaxmnist.analysis import results

    result = held.result
    if result is None:
        return {}, np.zeros(len(keys), bool)
    own = results.runs(result)
    values = results.by_run(result, own)
    # It may be older than the plan, and lack runs and hyperparameters of a growth that was interrupted.
    lacking = {name: _column(_defaults(job.setup, name, own, what)) for name in held.runs if name not in own}
    columns = _united(job, own | lacking, what)
    row_of = {key: row for row, key in enumerate(_keys(columns)[len(job.arrays["seed"]) :])}
    source = np.array([row_of.get(key, -1) for key in keys])
    is_old = source >= 0
    finished = values.pop("finished", np.ones(len(row_of), bool))[source].astype(bool) & is_old
    if int(result.attrs["num_steps"]) != job.num_steps:
        values = {name: column for name, column in values.items() if name.startswith("recorded_")}
        finished = np.zeros_like(finished)
    known = {}
    for name, column in values.items():
        shape = (len(source), *([job.num_evaluations + 1] if column.ndim > 1 else []))
        known[name] = np.full(shape, np.nan, column.dtype)
        steps = slice(column.shape[-1]) if column.ndim > 1 else ...
        known[name][is_old, steps] = column[source[is_old]]
    return known, finished


def _united(job: Job, held: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Returns the runs of a job followed by those of a folder, `[R + K]`; what one of them lacks has its default.

    Columns of the same names, in the same order and kind, whatever runs the folder holds.
    """
    columns = {}
    for name in dict.fromkeys((*job.arrays, *held)):
        given, found = (
            _values(job, name, runs[name]) if name in runs else _defaults(job.setup, name, runs, what)
            for runs in (job.arrays, held)
        )
        if name in job.arrays and name not in held and name not in SEEDS:
            lacking = set(map(described, found)) - set(map(described, given))
            if lacking:
                raise ValueError(
                    f"{what} was trained with {name} {min(lacking)}, which is not among the values here: add it, or "
                    "choose another folder"
                )
        columns[name] = _column([*given, *found])
    return columns


def _values(job: Job, name: str, column: np.ndarray) -> list:
    """Returns the values of a column of runs, objects in place of the strings that stand for them."""
    known = dict(dict(job.setup.objects).get(name, ()))
    own = set(job.arrays[name].tolist()) if name in job.arrays and not known else set()
    if column.dtype.kind != "U":
        return column.tolist()
    return [text if text in own else known[text] if text in known else restored(str(text)) for text in column.tolist()]


def _column(values: list) -> np.ndarray:
    """Returns values as a column of runs: of numbers, booleans or strings if all are, and otherwise of objects."""
    kinds = {"text" if isinstance(each, str) else bool if isinstance(each, bool) else "other" for each in values}
    is_plain = len(kinds) == 1 and all(isinstance(each, bool | int | float | str) for each in values)
    if is_plain:
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _defaults(setup: Setup, name: str, runs: Mapping[str, np.ndarray], what: str) -> list:
    """Returns the value that runs have of a hyperparameter that is none of their axes, once for each."""
    if name in SEEDS:
        return runs["seed"].tolist()
    value = _default(setup, name)
    if value is NONE:
        raise ValueError(f"{what} is another one: only one of the two has the axis {name}, which has no default value")
    return [value] * len(runs["seed"])


def _default(setup: Setup, name: str) -> Any:
    """Returns the value of a hyperparameter that is not given."""
    owner = owners(setup, name)[0]
    if owner == "model":
        return setup.model.defaults.get(name, NONE)
    if owner == "augmentation" and dataclasses.is_dataclass(setup.augment):
        return getattr(setup.augment, name)
    function: Any = {"loss": setup.loss, "augmentation": setup.augment, "optimizer": setup.optimizer}[owner]
    found = inspect.signature(function).parameters.get(name)
    return NONE if found is None else found.default


def _keys(columns: Mapping[str, np.ndarray]) -> list[tuple]:
    """Returns what tells runs apart: their values, numbers as training sees them."""

    def told_apart(name: str, column: np.ndarray) -> list:
        if column.dtype == object:
            return [*map(described, column)]
        is_single = column.dtype.kind in "iuf" and name not in {"batch_size", *SEEDS}
        return (column.astype(np.float32) if is_single else column).tolist()

    # Sorted, since a folder may have its axes in another order.
    return list(zip(*(told_apart(name, columns[name]) for name in sorted(columns)), strict=True))

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
from jaxmnist.sweeps.runs import with_objects
from jaxmnist.values import described

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
    columns = _united(job, held.runs, what)
    num_asked = len(job.arrays["seed"])
    keys = _keys(columns)
    last_of = {key: row for row, key in enumerate(keys[num_asked:])}
    asked = set(keys[:num_asked])
    kept = [*range(num_asked), *(num_asked + row for key, row in last_of.items() if key not in asked)]
    runs = with_objects({name: column[kept] for name, column in columns.items()}, _objects(job, held))
    whole = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)

    source = np.array([last_of.get(keys[row], -1) for row in kept])
    first_of = {keys[row]: index for index, row in reversed(list(enumerate(kept)))}
    places = np.array([first_of[key] for key in keys[num_asked:]])
    planned = [program._replace(rows=places[program.rows]) for program in held.programs]
    if held.num_steps != job.num_steps:
        _check_lengthened(job, held, what)
    known, finished = _known(job, held, source)
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


def _check_problem(job: Job, held: Held, description: Mapping, what: str) -> None:
    """Raises ValueError if a folder holds a sweep of another model, optimizer, loss, data or kind of curves."""
    is_longer = held.is_finished and held.num_steps != job.num_steps
    ignored = RUNS | {COMPUTATION} | (LENGTH if is_longer else frozenset())
    raise_if_different(what, without(ignored, held.description), without(ignored, description))
    runs = with_objects(held.runs, _objects(job, held))
    same = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)
    names = (COMPUTATION, "versions")
    saved = {name: held.description[name] for name in names if name in held.description}
    raise_if_different(
        what, saved, {COMPUTATION: combined(digests(same).values()), "versions": description["versions"]}
    )


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


def _known(job: Job, held: Held, source: np.ndarray) -> tuple[Outcome, np.ndarray]:
    """Returns what is known of runs, of which `source` says where the folder has them, and which are finished."""
    from jaxmnist.analysis import results

    if held.result is None:
        return {}, np.zeros(len(source), bool)
    values = results.by_run(held.result, held.runs)
    is_old = source >= 0
    finished = values.pop("finished", np.ones(len(held.runs["seed"]), bool))[source].astype(bool) & is_old
    if int(held.result.attrs["num_steps"]) != job.num_steps:
        values = {name: column for name, column in values.items() if name.startswith("recorded_")}
        finished = np.zeros_like(finished)
    known = {}
    for name, column in values.items():
        shape = (len(source), *([job.num_evaluations + 1] if column.ndim > 1 else []))
        known[name] = np.full(shape, np.nan, column.dtype)
        columns = slice(column.shape[-1]) if column.ndim > 1 else ...
        known[name][is_old, columns] = column[source[is_old]]
    return known, finished


def _united(job: Job, held: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Returns the runs of a job followed by those of a folder, `[R + K]`; what one of them lacks has its default."""
    columns = {}
    for name in dict.fromkeys((*job.arrays, *held)):
        given, found = (
            runs[name] if name in runs else _default_column(job.setup, name, runs, what) for runs in (job.arrays, held)
        )
        is_new = name in job.arrays and name not in held and name not in SEEDS
        if _kind(given) != _kind(found) or (is_new and not set(found.tolist()) <= set(given.tolist())):
            lacking = next(value for value in (found if name in job.arrays else given).tolist())
            raise ValueError(
                f"{what} was trained with {name} {shown(lacking)}, which is not among the values here: add it, or "
                "choose another folder"
            )
        columns[name] = np.concatenate([given, found])
    return columns


def _kind(column: np.ndarray) -> str:
    return "number" if column.dtype.kind in "iuf" else "text" if column.dtype.kind in "UO" else column.dtype.kind


def _default_column(setup: Setup, name: str, runs: Mapping[str, np.ndarray], what: str) -> np.ndarray:
    """Returns the value that runs have of a hyperparameter that is none of their axes, once for each."""
    if name in SEEDS:
        return runs["seed"]
    value, is_object_axis = _default(setup, name), name in dict(setup.objects)
    if value is NONE:
        raise ValueError(f"{what} is another one: only one of the two has the axis {name}, which has no default value")
    is_plain = isinstance(value, bool | int | float | str) and not is_object_axis
    return np.full(len(runs["seed"]), value if is_plain else described(value))


def _objects(job: Job, held: Held) -> dict[str, dict[str, Any]]:
    """Returns what the strings of runs stand for, by name; of names that only the folder has, nothing is known."""
    return {name: {} for name in held.runs if name not in job.arrays} | {
        name: dict(pairs) for name, pairs in job.setup.objects
    }


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
    values = (
        column.astype(np.float32) if _kind(column) == "number" and name not in {"batch_size", *SEEDS} else column
        for name, column in columns.items()
    )
    return list(zip(*(column.tolist() for column in values), strict=True))

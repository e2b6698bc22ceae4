"""A sweep that goes on with what its folder holds: what is finished there is not trained again.

Shapes: R runs, K runs that a folder holds, E recorded steps.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmnist.checks import is_number, shown
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
from jaxmnist.sweeps.job import Job, digests, make_job, of_runs
from jaxmnist.sweeps.objects import column_of, restored_values
from jaxmnist.values import described

if TYPE_CHECKING:
    import xarray as xr

Columns = dict[str, list]
NONE = inspect.Parameter.empty
EXACT = SEEDS | {"batch_size"}
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
    names = tuple(dict.fromkeys((*job.arrays, *held.runs)))
    asked, found = (_completed(job, runs, names, what) for runs in (job.arrays, held.runs))
    _check_defaults(job, held, asked, found, what)
    keys, held_keys = run_keys(asked), run_keys(found)
    asked_keys = set(keys)
    others = [row for row, key in enumerate(held_keys) if key not in asked_keys]
    keys += [held_keys[row] for row in others]
    runs = {name: column_of([*asked[name], *(found[name][row] for row in others)]) for name in names}
    whole = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)

    row_of = {key: row for row, key in reversed([*enumerate(keys)])}
    planned = _completed(job, held.planned, names, what) if held.programs else {}
    places = np.array([row_of[key] for key in run_keys(planned)], int)
    programs = [_moved(program, places, whole, what) for program in held.programs]
    is_planned = np.zeros(len(keys), bool)
    for program in programs:
        is_planned[program.rows] = True
    if held.num_steps != job.num_steps:
        _check_lengthened(job, held, all(is_planned[row_of[key]] for key in held_keys), what)
    known, finished = _known(job, held.result, names, keys, what)
    missing = np.flatnonzero(~finished & ~is_planned)
    if len(missing):
        new = whole._replace(arrays={name: column[missing] for name, column in whole.arrays.items()})
        programs += [program._replace(rows=missing[program.rows]) for program in plan(new)]
    if difference(held.description, description) is None:
        return Begun(whole, programs, held.description, known, finished)
    # No plan of all of its runs has these programs.
    grown = without(PLAN, description) | of_runs(whole.arrays, digests(whole))
    versions = [version for each in (held.description, grown) for version in str(each.get("versions")).split(AND)]
    return Begun(whole, programs, grown | {"versions": AND.join(dict.fromkeys(versions))}, known, finished)


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
    runs = {name: column_of(_values(job, name, column)) for name, column in held.runs.items()}
    same = make_job(job.setup, runs, job.dataset, job.num_steps, job.num_evaluations, job.record)
    names = (COMPUTATION, "versions")
    saved = {name: held.description[name] for name in names if name in held.description}
    given = {COMPUTATION: combined(digests(same).values()), "versions": description["versions"]}
    raise_if_different(what, saved, given)


def _check_defaults(job: Job, held: Held, asked: Columns, found: Columns, what: str) -> None:
    """Raises ValueError if a hyperparameter that a folder does not have has a default that is not asked for now."""
    for name in job.arrays.keys() - held.runs.keys() - SEEDS:
        lacking = set(map(described, found[name])) - set(map(described, asked[name]))
        if lacking:
            raise ValueError(
                f"{what} was trained with {name} {min(lacking)}, which is not among the values here: add it, or choose "
                "another folder"
            )


def _check_lengthened(job: Job, held: Held, has_states: bool, what: str) -> None:
    """Raises ValueError if a sweep cannot go on to more steps."""
    if held.num_steps > job.num_steps:
        raise ValueError(
            f"{what} has trained for {held.num_steps} steps, more than num_steps {job.num_steps}; choose another folder"
        )
    if not has_states:
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


def _known(
    job: Job, result: "xr.Dataset | None", names: Sequence[str], keys: list[tuple], what: str
) -> tuple[Outcome, np.ndarray]:
    """Returns what a result says of the runs with these keys, and which of them are finished.

    It may be older than the folder's plan, and lack runs and hyperparameters of a growth that was interrupted.
    """
    from jaxmnist.analysis import results

    if result is None:
        return {}, np.zeros(len(keys), bool)
    own = results.runs(result)
    values = results.by_run(result, own)
    row_of = {key: row for row, key in enumerate(run_keys(_completed(job, own, names, what)))}
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


def _completed(job: Job, runs: Mapping[str, np.ndarray], names: Sequence[str], what: str) -> Columns:
    """Returns the values of runs by name; those that they lack have their defaults."""
    return {
        name: _values(job, name, runs[name]) if name in runs else _defaults(job.setup, name, runs, what)
        for name in names
    }


def _values(job: Job, name: str, column: np.ndarray) -> list:
    """Returns the values of a column of runs, with the job's objects in place of their strings."""
    known = dict(dict(job.setup.objects).get(name, ()))
    plain = set(job.arrays[name].tolist()) if name in job.arrays and not known else ()
    return restored_values(column, known, plain)


def _defaults(setup: Setup, name: str, runs: Mapping[str, np.ndarray], what: str) -> list:
    """Returns the value that runs have of a hyperparameter that is not among their axes, once for each."""
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


def run_keys(columns: Columns) -> list[tuple]:
    """Returns what tells runs apart: their values, numbers as training sees them, whatever other runs there are."""

    def told_apart(name: str, values: list) -> list:
        column = column_of(values)
        if column.dtype.kind in "iuf":
            return (column if name in EXACT else column.astype(np.float32)).tolist()
        return [float(np.float32(value)) if is_number(value) else described(value) for value in values]

    return list(zip(*(told_apart(name, values) for name, values in columns.items()), strict=True))

"""Any run of a sweep, trained again."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.sharding import Mesh

from jaxmnist import checks
from jaxmnist.analysis import arguments, results
from jaxmnist.checks import FLAG, FUNCTION, Optional, checked_by
from jaxmnist.core import optimizers
from jaxmnist.core.arguments import AUGMENTATION, METRICS, UNCONFIGURED
from jaxmnist.core.losses import LOSSES, Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.models import MODELS
from jaxmnist.core.optimizers import OPTIMIZERS
from jaxmnist.core.training import Augmentation
from jaxmnist.data import loading
from jaxmnist.data.dataset import DATASET, DataError, Dataset
from jaxmnist.host.display import in_words, shown_by
from jaxmnist.sweeps import layout as layouts
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.arguments import OPTIMIZER
from jaxmnist.sweeps.configure import Setup, make_setup, precision
from jaxmnist.sweeps.fingerprint import COMPUTATION, combined, raise_if_different
from jaxmnist.sweeps.job import Job, describe, make_job
from jaxmnist.sweeps.objects import column_of, restored_values
from jaxmnist.sweeps.running import put, train
from jaxmnist.sweeps.sizes import step_flops
from jaxmnist.sweeps.sweep import plan
from jaxmnist.values import described, with_tuples

CHECKSUMS_OF_DATA = ("inputs_crc32", "targets_crc32")


def _rows(run: "Run") -> dict[str, str]:
    def of_metrics(found):
        return ", ".join(f"{name} {in_words(value)}" for name, value in found._asdict().items())

    return {
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(run.params)):,}",
        "steps": f"{len(run.losses):,}",
        "validation": of_metrics(run.validation),
        "test": of_metrics(run.test),
        "exact": "yes" if run.is_exact else "to rounding",
    }


@shown_by(_rows)
class Run(NamedTuple):
    """One run that was trained again.

    Attributes:
      params: the model's parameters, those with which it was evaluated.
      model_state: what else the model remembers, such as running statistics.
      losses: `[T]` float32, the batch losses before each step.
      validation: the metrics and the loss.
      test: the metrics and the loss.
      is_exact: whether it was trained in the very program that it had in the sweep, so that on the same machine its
        numbers are those of the sweep, bit for bit.
    """

    params: optax.Params
    model_state: Any
    losses: np.ndarray
    validation: Any
    test: Any
    is_exact: bool


@checked_by(
    result=arguments.IsResult((), (*arguments.WORDS, "num_steps"), one_seed=False), dataset=Optional(DATASET),
    model=Optional(UNCONFIGURED), optimizer=Optional(OPTIMIZER), loss=Optional(FUNCTION), metrics=METRICS,
    augment=AUGMENTATION, evaluation_params=FUNCTION, exact=FLAG,
)  # fmt: skip
def rerun(
    result: xr.Dataset,
    *,
    dataset: Dataset | None = None,
    model: ModelLike | None = None,
    optimizer: optimizers.OptimizerFactory | None = None,
    loss: Loss | None = None,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    exact: bool = True,
    **values: Any,
) -> Run:
    """Trains one run of a sweep again.

    Args:
      result: of `sweep`, `halve`, `merge`, or from a file.
      dataset: that of the sweep; default what `load` returns for its name.
      model: that of the sweep; default rebuilt from the result if it is a model of this package.
      optimizer: that of the sweep; default the one of that name in `optax`.
      loss: that of the sweep; default the one of that name in `jm.losses`.
      metrics: those of the sweep; default the accuracy if the loss is the cross-entropy.
      augment: that of the sweep.
      evaluation_params: that of the sweep.
      exact: whether to train the whole program that the run was part of. On the same machine, with the same number of
        devices, it then has the very numbers of the sweep; `Run.is_exact` says so. By itself a run takes less
        time, and equals the sweep's to float32 rounding, which unstable learning rates amplify. So does Adam where a
        gradient is nothing but rounding, as that of a bias before a batch normalisation. The runs of `halve`, of
        `merge` and of a folder that has grown are trained by themselves.
      **values: which run: a value for each hyperparameter that has several in the sweep, the seed among them.

    Raises:
      ValueError: no run, or more than one, has these values; what the sweep used cannot be rebuilt from its name; or
        an axis has several functions that cannot be imported by name, and `exact` needs all of them.
    """
    shown = {name: _as_shown(result, name, value) for name, value in values.items()}
    (setting, num_steps), attrs = _find(result, shown), result.attrs
    if dataset is None:
        loading.NAME.check("dataset", attrs["dataset"])
        try:
            dataset = loading.load(attrs["dataset"])
        except DataError as error:
            raise ValueError(f"the dataset of this result cannot be loaded, give dataset=: {error}") from None
    setup = make_setup(
        _model(attrs) if model is None else model,
        _named("optimizer", attrs, OPTIMIZERS) if optimizer is None else optimizer,
        _named("loss", attrs, LOSSES) if loss is None else loss,
        metrics,
        augment,
        evaluation_params,
        attrs.get("dtype", "float32"),
    )
    objects = {name: {shown[name]: value} for name, value in values.items() if shown[name] is not value}
    with precision(setup):
        return _rerun(result, setup, dataset, setting, num_steps, objects, exact)


def _rerun(
    result: xr.Dataset, setup: Setup, dataset: Dataset, setting: dict, num_steps: int, objects: dict, exact: bool
) -> Run:
    """Returns a run, trained in its program if that is wanted and the result says which it was."""
    attrs = result.attrs
    is_whole = "memory" in attrs and "shard" not in attrs and "rungs" not in attrs
    columns = results.runs(result)
    unread = {name: _unread(columns[name], known) for name, known in objects.items()}
    for name in filter(unread.get, unread):
        if exact and is_whole:
            raise ValueError(
                f"{name} has the value {unread[name]} in this result, which cannot be imported by that name, and the "
                "programs of the sweep need it; give exact=False to train the run by itself"
            )
        is_whole = False
    if is_whole:
        runs = {name: _restored(result, name, column, objects) for name, column in columns.items()}
        job = make_job(setup, runs, dataset, num_steps, int(attrs["num_evaluations"]), attrs["record"].split())
        _check_same(job, attrs, is_whole)
        if exact:
            return _in_its_program(job, attrs, setting)
    alone = {name: _restored(result, name, np.array([setting[name]]), objects) for name in columns}
    job = make_job(setup, alone, dataset, num_steps)
    if not is_whole:
        _check_same(job, attrs, is_whole)
    return _alone(job)


def _check_same(job: Job, attrs: Mapping, is_whole: bool) -> None:
    """Raises ValueError if model, loss, optimizer or data are not those of the sweep, as far as can be known here.

    Args:
      job: the whole sweep, or a run of it.
      attrs: of the result.
      is_whole: which of the two it is. Of a run, the computation is compared if the sweep has the same static values.
    """
    given = describe(job)
    # Another version or machine may trace the same thing in other operations.
    names = [*([COMPUTATION] if given["versions"] == attrs.get("versions") else []), *CHECKSUMS_OF_DATA]
    saved = {name: attrs[name] for name in names if name in attrs}
    given = {name: given[name] for name in ("computations", *saved)}
    if COMPUTATION in saved and not is_whole:
        before, now = (json.loads(each.get("computations", "{}")) for each in (attrs, given))
        both = [values for values in now if values in before]
        saved[COMPUTATION], given[COMPUTATION] = (combined(map(each.get, both)) for each in (before, now))
    raise_if_different("the sweep of this result", saved, given)


def _in_its_program(job: Job, attrs: Mapping, setting: dict[str, Any]) -> Run:
    """Returns a run of a sweep, after training the program that held it."""
    layout = layouts.read(attrs["layout"]) if "layout" in attrs else None
    planned = plan(job, float(attrs["memory"]), layout)
    if planning.fingerprint(planned) != attrs["programs_crc32"]:
        raise ValueError(
            f"the run cannot be trained exactly as in the sweep, which had other programs ({attrs['num_devices']} "
            f"devices, {len(jax.local_devices())} here); give exact=False to train it by itself"
        )
    rows = np.logical_and.reduce([job.arrays[name] == value for name, value in setting.items()])
    row = int(np.flatnonzero(rows)[0])
    return _train_program(job, next(program for program in planned if row in program.rows), row, is_exact=True)


def _alone(job: Job) -> Run:
    """Returns the only run of a sweep."""
    (program,) = planning.plan(job.arrays, static=job.static)
    return _train_program(job, program, 0, is_exact=False)


def _train_program(job: Job, program: planning.Program, row: int, is_exact: bool) -> Run:
    """Returns one of the runs of a program, after training all of them."""
    mesh = programs.local_mesh() if is_exact else Mesh(np.array(jax.local_devices()[:1]), ("runs",))
    program = planning.filled(program, mesh.size)
    place = tuple(np.argwhere(program.rows == row)[0])
    data = put(mesh, job.dataset)
    spec = programs.ProgramSpec(job.setup, program.static, mesh)
    inputs = programs.make_inputs(spec, job.arrays, program)
    states = programs.init(spec, inputs, data.train.inputs)
    boundaries = planning.segments(job.num_steps, job.num_evaluations, step_flops(program, states))
    losses, done = [], 0
    for step, reached in train(spec, inputs, program, data.train, states, boundaries):
        losses.append(np.asarray(reached.losses[place])[: step - done])
        done = step
    ended = reached.states
    measured = (programs.evaluate(spec, inputs, ended, getattr(data, split)) for split in ("validation", "test"))
    own, validation, test = jax.tree.map(lambda leaf: leaf[place], (ended, *measured))
    params = job.setup.evaluation_params(own.opt_state, own.params)
    return Run(params, own.model_state, np.concatenate(losses), validation, test, is_exact)


def _model(attrs: Mapping) -> Any:
    """Returns the model of a result if it is one of this package."""
    name = attrs["model"].split("(")[0]
    if name not in MODELS:
        raise ValueError(f"the model of this result, {name}, is not one of {', '.join(MODELS)}: give it as model=")
    try:
        return MODELS[name](**with_tuples(json.loads(attrs["model_fields"])))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"the model_fields of this result cannot be read: {error}; give model=") from None


def _named(kind: str, attrs: Mapping, known: Mapping[str, Any]) -> Any:
    """Returns the optimizer or the loss of a result, of which it knows the name."""
    name = attrs.get(kind, "cross_entropy")
    if name not in known:
        raise ValueError(f"the {kind} of this result, {name}, is not one of {', '.join(known)}: give {kind}=")
    return known[name]


def _as_shown(result: xr.Dataset, name: str, value: Any) -> Any:
    """Returns a value as results show it, which have strings for functions, tuples and None."""
    return described(value) if _has_objects(result, name) and not isinstance(value, str) else value


def _restored(result: xr.Dataset, name: str, column: np.ndarray, objects: Mapping[str, Mapping]) -> np.ndarray:
    """Returns a column of runs, with objects in place of the strings that stand for them.

    Args:
      result: whose column it is.
      name: of the hyperparameter.
      column: `[R]` values.
      objects: for some names, objects by their strings; others are read from their strings if that is possible.
    """
    return column_of(restored_values(column, objects.get(name, {}))) if _has_objects(result, name) else column


def _has_objects(result: xr.Dataset, name: str) -> bool:
    """Returns whether strings stand for objects on an axis; results of earlier versions do not say so."""
    return (
        name in result.coords
        and result[name].dtype.kind in "UO"
        and ("objects" not in result.attrs or name in result.attrs["objects"].split())
    )


def _unread(column: np.ndarray, known: Mapping[str, Any]) -> str | None:
    """Returns the first string of a column of objects that is neither known nor can be read back; None without one."""
    pairs = zip(column.tolist(), restored_values(column, known), strict=True)
    return next((text for text, value in pairs if isinstance(value, str) and value == text), None)


def _find(result: xr.Dataset, values: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns all hyperparameters of the one run with these values, and how many steps it trained for."""
    rows = results.table(result)
    names = list(results.hyperparameters(result))
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"{unknown[0]} is not a hyperparameter of this result, which has {', '.join(names)}")
    chosen = np.ones(len(rows), bool)
    for name, value in values.items():
        column = rows[name].to_numpy()
        if column.dtype.kind in "iuf" and not checks.is_number(value):
            checks.raise_invalid(name, value, "a number")
        same = np.isclose(column.astype(float), value, rtol=1e-6) if column.dtype.kind in "iuf" else column == value
        if not same.any():
            shown = checks.shown(value)
            raise ValueError(f"{name} {shown} is not in this result; it has {np.unique(column).tolist()}")
        chosen &= same
    found = rows[chosen].drop_duplicates(names)
    if len(found) != 1:
        open_names = [name for name in names if name not in values and rows[name].nunique() > 1]
        raise ValueError(f"{len(found)} runs have these values; give also {', '.join(open_names) or 'other ones'}")
    setting = {name: found[name].tolist()[0] for name in names}
    pruned = found["pruned_step"].dropna().tolist() if "pruned_step" in found else []
    return setting, int(pruned[0]) if pruned else int(result.attrs["num_steps"])

"""A sweep: `jit(vmap(vmap(fit)))` over groups of runs that share their batches, driven in segments of steps.

Shapes: R runs, G groups of a program, P runs of a group, N images, L steps of a segment, E recorded steps.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxmnist.checks import FLAG, Whole, checked_by
from jaxmnist.core import losses, optimizers
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Dataset
from jaxmnist.host.devices import DEFAULT_BYTES, MAX_CPU_DEVICES, available
from jaxmnist.host.interrupts import defer_interrupt
from jaxmnist.host.lock import hold
from jaxmnist.host.progress import progress_bar
from jaxmnist.sweeps import layout as layouts
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.arguments import (
    CLUSTER,
    FOLDER,
    MEMORY,
    RECORD,
    RESOURCES,
    SHARD,
    TRAINED,
    check_evaluations,
    recorded_splits,
)
from jaxmnist.sweeps.capacity import capacity
from jaxmnist.sweeps.carried import Carried
from jaxmnist.sweeps.collector import ResultCollector
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.fingerprint import raise_if_different
from jaxmnist.sweeps.folder import Held, Outcome, SweepFolder
from jaxmnist.sweeps.growth import Begun, begin, grow
from jaxmnist.sweeps.job import Job, describe, make_job
from jaxmnist.sweeps.layout import Layout
from jaxmnist.sweeps.running import Watch, put, run_program
from jaxmnist.sweeps.runs import Runs

if TYPE_CHECKING:
    import xarray as xr

# Where a few more compilations are nothing beside the work, or the sizes are compiled into one program: on CPU.
LARGE_FLOPS, LITTLE_PADDING = 1e12, 1.25


def _check_sweep(given: SimpleNamespace) -> None:
    check_evaluations(given)
    check_cluster(given.cluster, given.ray_resources)
    if given.cluster is not None and given.keep_states:
        raise ValueError("keep_states is True, but the runs of a cluster end elsewhere; give one of the two")


@checked_by(cluster=CLUSTER, ray_resources=RESOURCES)
def check_cluster(cluster: str | None, ray_resources: Mapping[str, float] | None = None) -> None:
    """Raises an error if `sweep` would not take these arguments; connects to no cluster.

    Args:
      cluster: as in `sweep`.
      ray_resources: as in `sweep`.

    Raises:
      ValueError: an argument is not as `sweep` describes it, a cluster is asked for and Ray is not installed, or only
        resources are given.
    """
    if cluster is not None:
        from jaxmnist.sweeps.cluster import check_installed

        check_installed()
    elif ray_resources is not None:
        raise ValueError(f"ray_resources are {ray_resources}, but cluster is None; only tasks of Ray ask for them")


@checked_by(
    _check_sweep, **TRAINED, num_evaluations=Whole(1), record=RECORD, progress=FLAG, folder=FOLDER, keep_states=FLAG,
    wait=FLAG, memory=MEMORY, cluster=CLUSTER, ray_resources=RESOURCES, shard=SHARD,
)  # fmt: skip
def sweep(
    model: ModelLike,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    dtype: DTypeLike = "float32",
    num_evaluations: int = 1,
    record: Sequence[str] | None = None,
    progress: bool = True,
    folder: str | os.PathLike | None = None,
    keep_states: bool = False,
    wait: bool = False,
    memory: float | None = None,
    cluster: str | None = None,
    ray_resources: Mapping[str, float] | None = None,
    shard: tuple[int, int] | None = None,
) -> "xr.Dataset":
    """Trains all runs, as few compiled programs on all local devices, and returns their results by hyperparameter.

    Args:
      model: a flax linen module, a class or factory of NNX modules (called with its hyperparameters and `rngs`) or of
        Equinox modules (called with `key`), a Haiku transform, a pair of functions, or a `jm.Model`.
      optimizer: an optax factory such as `optax.sgd`, or any function that returns a gradient transformation; `runs`
        says what it is called with. Numbers are traced float32 if that is possible; those that decide a shape or a
        branch (`hidden_size`, `nesterov`) make a program for each of their values.
      runs: name to `[R]` values, from `jm.grid`, `sample` or `union`: `batch_size`, `seed`, hyperparameters of the
        model (`dropout_rate` of a `CNN`), keywords of the loss (`label_smoothing`), fields of the augmentation
        (`rotation`), and for all other names keywords of the optimizer.
      dataset: what to train and evaluate on, from `jm.load` or `jm.from_arrays`.
      num_steps: training steps of every run (the budget is equal steps).
      loss: `(outputs, targets) -> [B]`, the loss of each example, such as `jm.losses.squared_error`. Splits are
        evaluated with the defaults of its keywords.
      metrics: name to a function of the same form; default the accuracy if the loss is the cross-entropy.
      augment: a function of a key and inputs `[B, ...]` that returns changed inputs, such as `jm.Affine()`.
      evaluation_params: a function `(opt_state, params) -> params` that returns what to evaluate the model with; by
        default, averages or slow parameters where an optimizer of optax keeps them, and else those that are trained.
      dtype: of all that is computed, float32 or float64; 64 bits need no setting of jax's.
      num_evaluations: how often to evaluate along training, evenly, apart from step 0.
      record: the splits, of `"train"`, `"validation"` and `"test"`, whose evaluations are recorded as the curves
        `recorded_*` with a dim `step`; default validation if there is more than one evaluation.
      progress: whether to show a bar on standard error.
      folder: where to write `results.nc` and `results.csv`, and, along the way, the state needed to resume: after an
        interruption the same call resumes from there, to the same numbers, bit for bit. The first Ctrl-C then lets the
        segment end and saves it; a second one stops at once. A folder grows: what it holds of the same model,
        optimizer, loss and data is not trained again, so that a call with further values, seeds or hyperparameters
        trains only what is new. In the runs of before, a new hyperparameter has its default, which must be among its
        values.
      keep_states: whether the folder keeps the states that runs have reached, so that a later call with a larger
        `num_steps` goes on from there.
      wait: whether to wait if another process or thread is using the folder, instead of raising an error.
      memory: bytes for data, states and activations; default the smaller of 3 GiB and half of what is free (3 GiB with
        `shard`, so that all machines make the same plan).
      cluster: trains the programs as tasks of Ray: the address of a cluster, or `"local"` to start one here.
      ray_resources: what each of these tasks asks of a node, such as `{"CPU": 4, "GPU": 1}`; default the devices of a
        node, so that nodes with GPUs and nodes without train beside each other.
      shard: `(i, n)` trains the i-th of n parts of the programs, counted from 1. All parts may have the same folder, in
        which each writes into a subfolder of its own, and the last one to end unites them; so does `jm.merge`.

    Returns:
      A data set with one dim per hyperparameter, sorted, if the runs are a full grid, and otherwise one dim `run`. The
      variables are `validation_accuracy`, `test_accuracy` (fractions; or those of other metrics), `validation_loss`,
      `test_loss` (nats) and `diverged_step` (nan if a run did not diverge).

    Raises:
      ValueError: an argument is not as described above, the runs do not fit the model, the optimizer or the memory, or
        the folder is in use or holds a sweep of something else.
      OSError: a cluster was lost, or one of its tasks failed; what had finished is in the folder.
    """
    record = recorded_splits(record, num_evaluations)
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    if memory is None:
        memory = available() if shard is None else DEFAULT_BYTES
    place = Path(folder) if folder is not None else None
    with precision(setup):
        job = make_job(setup, runs, dataset, num_steps, num_evaluations, record)
        return train(job, Means(memory, place, keep_states, wait, cluster, ray_resources, shard, progress))


class Means(NamedTuple):
    """By what means a sweep is trained: some of the arguments of `sweep`, and what else changes none of its numbers.

    Attributes:
      layout: that of the search whose round this is; None plans the sweep by itself.
      origin: the states that its runs go on from; None begins them.
      reached: takes the states that its runs reach, whose programs are then gone through even if they have ended.
    """

    memory: float
    folder: Path | None = None
    keep_states: bool = False
    wait: bool = False
    cluster: str | None = None
    ray_resources: Mapping[str, float] | None = None
    shard: tuple[int, int] | None = None
    progress: bool = True
    layout: Layout | None = None
    origin: Carried | None = None
    reached: Carried | None = None


def train(job: Job, means: Means) -> "xr.Dataset":
    """Returns the results of a sweep, trained or read from its folder."""
    description, place = describe(job) | {"memory": float(means.memory)}, means.folder
    if means.layout is not None:
        description["layout"] = layouts.written(means.layout)
    part = None
    if means.shard is not None:
        from jaxmnist.sweeps import shards

        planned = plan(job, means.memory, num_shards=means.shard[1])
        part = planning.shard(planned, *means.shard)
        description |= shards.described(planned, means.shard)
        place = None if place is None else shards.part_folder(place, means.shard, description)
    with hold(place, means.wait):
        result = _result(job, means, description, place, part)
    if means.shard is not None and means.folder is not None:
        shards.unite(means.folder, means.shard[1])
    return result


def _result(
    job: Job, means: Means, description: dict, place: Path | None, part: list[planning.Program] | None
) -> "xr.Dataset":
    """Returns the results of a sweep, or of the shard with these programs, whose folder nobody else writes into."""
    sweep_folder = SweepFolder(place) if place is not None else None
    held = sweep_folder.held() if sweep_folder is not None else None
    finished = held.result_of(description) if held is not None and means.reached is None else None
    if finished is not None:
        return finished
    what = f"the sweep in {place}"
    # The runs of a shard, and of a rung, are those that they are.
    if held is not None and part is None and means.origin is None and means.reached is None:
        begun = grow(job, held, description, what, lambda job: plan(job, means.memory, means.layout))
    else:
        if held is not None:
            raise_if_different(what, held.description, description)
        begun = _begin(job, means, description, held, part)
    collector = ResultCollector(begun, sweep_folder)
    if held is None or not held.is_finished or not begun.finished.all() or means.reached is not None:
        _train_programs(collector, means)
    has_others = len(begun.job.arrays["seed"]) > len(job.arrays["seed"])
    return collector.result_of(job, description) if has_others else collector.result()


def _begin(job: Job, means: Means, description: dict, held: Held | None, part: list[planning.Program] | None) -> Begun:
    """Returns a sweep, or the shard with these programs, that is begun or goes on with the plan of its folder."""
    if held is not None and held.programs:
        return begin(job, held.programs, held.description)
    programs = plan(job, means.memory, means.layout) if part is None else part
    # From these, `rerun` finds the program of a run again.
    return begin(job, programs, description | {"programs_crc32": planning.fingerprint(programs)})


def _train_programs(collector: ResultCollector, means: Means) -> None:
    """Trains the programs of a sweep that have not ended."""
    sweep_folder, begun = collector.folder, collector.begun
    if sweep_folder is not None:
        sweep_folder.begin(begun.description, begun.job.arrays, begun.programs)
        if means.keep_states:
            sweep_folder.keep(begun.job.arrays, begun.programs)
    interruptible = defer_interrupt(enabled=sweep_folder is not None and means.cluster is None)
    with interruptible as is_interrupted, progress_bar("sweep", collector.total_work, means.progress) as show:
        waiting = collector.waiting() if means.reached is None else list(enumerate(begun.programs))
        report = collector.reporter(show)
        report()
        if means.cluster is not None:
            from jaxmnist.sweeps import cluster

            place = cluster.Place(means.cluster, means.ray_resources)
            outcomes = cluster.run(begun.job, waiting, place, report)
        else:
            outcomes = _run_here(collector, waiting, report, means, is_interrupted)
        for finished in outcomes:
            collector.add(finished)
    if sweep_folder is not None:
        sweep_folder.end(collector.result())


def _run_here(
    collector: ResultCollector,
    waiting: Sequence[tuple[int, planning.Program]],
    report: Callable[..., None],
    means: Means,
    is_interrupted: Callable[[], bool],
) -> Iterator[dict[int, Outcome]]:
    """Yields the results of one program after another, by its number, trained on this process's devices."""
    job, sweep_folder = collector.begun.job, collector.folder
    mesh = programs.local_mesh()
    data = put(mesh, job.dataset)
    for index, program in waiting:
        if is_interrupted():
            raise KeyboardInterrupt
        watch = Watch(
            functools.partial(_report_step, report, index),
            is_interrupted=is_interrupted,
            origin=means.origin,
            reached=means.reached,
        )
        with contextlib.ExitStack() as stack:
            if sweep_folder is not None:
                watch = watch._replace(
                    checkpoints=stack.enter_context(sweep_folder.checkpoints(index)),
                    kept=stack.enter_context(sweep_folder.kept(index)),
                    curves=collector.curves(program),
                    keep_states=means.keep_states,
                )
            outcome = run_program(job, program, data, mesh, watch)
        yield {index: outcome}
        report()


def _report_step(report: Callable[[Mapping[int, int]], None], index: int, step: int) -> None:
    report({index: step})


def plan(
    job: Job, memory: float, layout: Layout | None = None, num_shards: int | None = None
) -> list[planning.Program]:
    """Returns the programs of a sweep in the order they are trained in: shuffled, so that a part shows the whole.

    Batches of a model whose examples influence each other are not padded. Otherwise the programs are the fewest whose
    padded work is at most a quarter more than the useful work, or, where that takes further programs to compile and the
    work is small, twice the useful work. The plan of shards is the same on machines with other numbers of CPU cores,
    and its programs are small enough for each shard to have one, if they can be. On CPU, the programs of little work
    with a layout have its shape if they fit.

    Raises:
      ValueError: there is no room for a single run.
    """
    on_cpu = jax.default_backend() == "cpu"
    num_devices = MAX_CPU_DEVICES if num_shards is not None and on_cpu else len(jax.local_devices())
    most = capacity(job, memory, num_devices)
    # A matrix product forward and one backward: a lower bound, since convolutions use their weights many times.
    flops = 4.0 * most.num_params * job.num_steps * float(job.arrays["batch_size"].sum(dtype=np.float64))
    if layout is not None and on_cpu and flops <= LARGE_FLOPS and not job.static and not job.rows_interact:
        in_one_shape = layouts.plan(job.arrays, layout, most.runs, most.group, num_devices)
        if in_one_shape is not None:
            return in_one_shape
    padding = LITTLE_PADDING if on_cpu or flops > LARGE_FLOPS else planning.MAX_PADDING
    planned: list[planning.Program] = []
    max_runs = most.runs
    while len(planned) < (num_shards or 1) and max_runs > 0:
        planned = planning.plan(
            job.arrays, static=job.static, max_runs=max_runs, max_group=most.group, num_devices=num_devices,
            max_padding=1.0 if job.rows_interact else padding, mixed=on_cpu,
        )  # fmt: skip
        max_runs //= 2
    return [planned[index] for index in np.random.default_rng(0).permutation(len(planned))]

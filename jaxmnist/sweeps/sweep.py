"""A sweep: `jit(vmap(vmap(fit)))` over groups of runs that share their batches, driven in segments of steps.

Shapes: R runs, G groups of a program, P runs of a group, N images, L steps of a segment, E recorded steps.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
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
from jaxmnist.host.progress import Pace, progress_bar
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.arguments import CLUSTER, FOLDER, MEMORY, RECORD, RESOURCES, SHARD, TRAINED, check_evaluations
from jaxmnist.sweeps.capacity import capacity
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.folder import Outcome, SweepFolder
from jaxmnist.sweeps.job import Job, describe, make_job
from jaxmnist.sweeps.running import TRAINING_SHARE, Watch, outcome_shapes, put, run_program
from jaxmnist.sweeps.runs import Runs

if TYPE_CHECKING:
    import xarray as xr

# Where a few more compilations are nothing beside the work, or the sizes are compiled into one program: on CPU.
LARGE_FLOPS, LITTLE_PADDING = 1e12, 1.25
SECONDS_PER_REFRESH = 10.0


def _check_sweep(given: SimpleNamespace) -> None:
    check_evaluations(given)
    check_cluster(given.cluster, given.ray_resources)


def check_cluster(cluster: str | None, ray_resources: Mapping[str, float] | None) -> None:
    """Raises ValueError if tasks of Ray are given resources where there are none, or if Ray is not installed."""
    if cluster is not None:
        from jaxmnist.sweeps.cluster import check_installed

        check_installed()
    elif ray_resources is not None:
        raise ValueError(f"ray_resources are {ray_resources}, but cluster is None; only tasks of Ray ask for them")


@checked_by(
    _check_sweep, **TRAINED, num_evaluations=Whole(1), record=RECORD, progress=FLAG, folder=FOLDER, memory=MEMORY,
    cluster=CLUSTER, ray_resources=RESOURCES, shard=SHARD,
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
        segment end and saves it; a second one stops at once.
      memory: bytes for data, states and activations; default the smaller of 3 GiB and half of what is free (3 GiB with
        `shard`, so that all machines make the same plan).
      cluster: trains the programs as tasks of Ray: the address of a cluster, or `"local"` to start one here.
      ray_resources: what each of these tasks asks of a node, such as `{"CPU": 4, "GPU": 1}`; default the devices of a
        node, so that nodes with GPUs and nodes without train beside each other.
      shard: `(i, n)` trains the i-th of n parts of the programs, counted from 1; `jm.merge` unites them.

    Returns:
      A data set with one dim per hyperparameter, sorted, if the runs are a full grid, and otherwise one dim `run`. The
      variables are `validation_accuracy`, `test_accuracy` (fractions; or those of other metrics), `validation_loss`,
      `test_loss` (nats) and `diverged_step` (nan if a run did not diverge).

    Raises:
      ValueError: an argument is not as described above, the runs do not fit the model, the optimizer or the memory, or
        the folder holds another sweep.
      OSError: a cluster was lost, or one of its tasks failed; what had finished is in the folder.
    """
    if record is None:
        record = ("validation",) if num_evaluations != 1 else ()
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    if memory is None:
        memory = available() if shard is None else DEFAULT_BYTES
    place = Path(folder) if folder is not None else None
    with precision(setup):
        job = make_job(setup, runs, dataset, num_steps, num_evaluations, record)
        return _train(job, Means(memory, place, cluster, ray_resources, shard, progress))


class Means(NamedTuple):
    """By what means a sweep is trained, which changes none of its numbers: some of the arguments of `sweep`."""

    memory: float
    folder: Path | None
    cluster: str | None
    ray_resources: Mapping[str, float] | None
    shard: tuple[int, int] | None
    progress: bool


def _train(job: Job, means: Means) -> "xr.Dataset":
    """Returns the results of a sweep, trained or read from its folder."""
    memory, folder, cluster, _, shard, progress = means
    planned = plan(job, memory, portable=shard is not None)
    description = describe(job) | {"memory": float(memory)}
    if shard is not None:
        description |= {"shard": f"{shard[0]}/{shard[1]}", "plan_crc32": planning.fingerprint(planned)}
        planned = planning.shard(planned, *shard)
    sweep_folder = SweepFolder(folder) if folder is not None else None
    if sweep_folder is not None:
        finished = sweep_folder.finished_result(description)
        if finished is not None:
            return finished
        planned = sweep_folder.begin(description, planned)
    # From these, `rerun` finds the program of a run again.
    description["programs_crc32"] = planning.fingerprint(planned)
    collector = ResultCollector(job, planned, description, sweep_folder)
    interruptible = defer_interrupt(enabled=sweep_folder is not None and cluster is None)
    with interruptible as is_interrupted, progress_bar("sweep", collector.total_work, progress) as show:
        return _run_all(collector, collector.reporter(show), means, is_interrupted)


def plan(job: Job, memory: float, portable: bool = False) -> list[planning.Program]:
    """Returns the programs of a sweep in the order they are trained in: shuffled, so that a part shows the whole.

    Batches of a model whose examples influence each other are not padded. Otherwise the programs are the fewest whose
    padded work is at most a quarter more than the useful work, or, where that takes further
    programs to compile and the work is small, twice the useful work. A portable plan is the same on machines with other
    numbers of CPU cores.

    Raises:
      ValueError: there is no room for a single run.
    """
    on_cpu = jax.default_backend() == "cpu"
    num_devices = MAX_CPU_DEVICES if portable and on_cpu else len(jax.local_devices())
    most = capacity(job, memory, num_devices)
    # A matrix product forward and one backward: a lower bound, since convolutions use their weights many times.
    flops = 4.0 * most.num_params * job.num_steps * float(job.arrays["batch_size"].sum(dtype=np.float64))
    padding = LITTLE_PADDING if on_cpu or flops > LARGE_FLOPS else planning.MAX_PADDING
    planned = planning.plan(
        job.arrays, static=job.static, max_runs=most.runs, max_group=most.group, num_devices=num_devices,
        max_padding=1.0 if job.rows_interact else padding, mixed=on_cpu,
    )  # fmt: skip
    return [planned[index] for index in np.random.default_rng(0).permutation(len(planned))]


def _run_all(
    collector: "ResultCollector", report: Callable[..., None], means: Means, is_interrupted: Callable[[], bool]
) -> "xr.Dataset":
    """Returns the results of all programs; those whose results are in the folder are not trained again."""
    waiting = collector.waiting()
    report()
    if means.cluster is not None:
        from jaxmnist.sweeps import cluster

        place = cluster.Place(means.cluster, means.ray_resources)
        outcomes = cluster.run(collector.job, waiting, place, report)
    else:
        outcomes = _run_here(collector.job, waiting, report, collector.folder, is_interrupted)
    for finished in outcomes:
        collector.add(finished)
    result = collector.result()
    if collector.folder is not None:
        collector.folder.end(result)
    return result


def _run_here(
    job: Job,
    waiting: Sequence[tuple[int, planning.Program]],
    report: Callable[..., None],
    sweep_folder: SweepFolder | None,
    is_interrupted: Callable[[], bool],
) -> Iterator[dict[int, Outcome]]:
    """Yields the results of one program after another, by its number, trained on this process's devices."""
    mesh = programs.local_mesh()
    data = put(mesh, job.dataset)
    for index, program in waiting:
        if is_interrupted():
            raise KeyboardInterrupt
        states = sweep_folder.checkpoints(index) if sweep_folder is not None else contextlib.nullcontext()
        with states as checkpoints:
            watch = Watch(functools.partial(_report_step, report, index), checkpoints, is_interrupted)
            outcome = run_program(job, program, data, mesh, watch)
        yield {index: outcome}
        report()


def _report_step(report: Callable[[Mapping[int, int]], None], index: int, step: int) -> None:
    report({index: step})


class ResultCollector:
    """The results of the programs that have ended, and how far the others are."""

    def __init__(self, job: Job, planned: list[planning.Program], description: dict, sweep_folder: SweepFolder | None):
        self.job, self._planned, self._description, self.folder = job, planned, description, sweep_folder
        self._values: dict[str, np.ndarray] = {}
        self._finished = np.zeros(len(job.arrays["seed"]), bool)
        self._work = [job.num_steps * planning.useful_examples(program) for program in planned]
        self._work_done = 0.0
        # The sweep's runs, or its shard's.
        self._rows = np.unique(np.concatenate([program.rows.ravel() for program in planned]))
        self._refresh = Pace(SECONDS_PER_REFRESH)
        self.total_work = sum(self._work)

    def waiting(self) -> list[tuple[int, planning.Program]]:
        """Returns the programs that have not ended, with their numbers; takes the results of the others."""
        programs = dict(enumerate(self._planned))
        waiting = dict(programs)
        if self.folder is not None:
            for index, outcome in self.folder.outcomes(lambda index: outcome_shapes(self.job, programs[index])):
                if waiting.pop(index, None) is not None:
                    self._take(index, outcome)
        return list(waiting.items())

    def add(self, finished: Mapping[int, Outcome]) -> None:
        """Takes and saves results of programs; brings the folder's file up to date now and then."""
        if self.folder is not None:
            self.folder.finish(finished)
        for index, outcome in finished.items():
            self._take(index, outcome)
        if self.folder is not None and self._refresh.is_due() and self._work_done < self.total_work:
            with self._refresh.measured():
                self.folder.refresh(self.result())

    def _take(self, index: int, outcome: Outcome) -> None:
        rows = self._planned[index].rows
        for name, program_values in outcome.items():
            if name not in self._values:
                shape = (len(self._finished), *program_values.shape[2:])
                self._values[name] = np.full(shape, np.nan, program_values.dtype)
            self._values[name][rows] = program_values
        self._finished[rows] = True
        self._work_done += self._work[index]

    def reporter(self, show) -> Callable[..., None]:
        """Returns a function that shows how far the sweep is, given the step that each running program has reached.

        Where they run can be given in words; without these, at most one program is running, here.
        """

        def report(steps: Mapping[int, int] = MappingProxyType({}), where: str = "") -> None:
            text = f"{self._finished.sum()}/{len(self._rows)} runs"
            for index, step in steps.items() if not where else ():
                text += f", program {index + 1}/{len(self._planned)}, step {step}/{self.job.num_steps}"
            running = sum(self._work[index] * step for index, step in steps.items()) / self.job.num_steps
            has_news = self._values and (where or not steps)
            text += f", {where}" if where else ""
            show(self._work_done + TRAINING_SHARE * running, text, self.result if has_news else None)

        return report

    def result(self) -> "xr.Dataset":
        """Returns the labelled results; those of runs that have not ended are nan, and `finished` says which."""
        from jaxmnist.analysis import results

        job = self.job
        rows = self._rows
        values = dict(self._values)
        if not self._finished[rows].all():
            values["finished"] = self._finished
        recorded_steps = planning.recorded_steps(job.num_steps, job.num_evaluations)
        if "shard" not in self._description:
            return results.label(job.arrays, values, recorded_steps, self._description)
        arrays, values = ({name: array[rows] for name, array in part.items()} for part in (job.arrays, values))
        return results.label(arrays, values, recorded_steps, self._description, rows)

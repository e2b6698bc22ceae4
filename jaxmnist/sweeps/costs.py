"""What a sweep will cost, estimated before it trains."""

import functools
import itertools
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxmnist.checks import Whole, checked_by
from jaxmnist.core import losses, optimizers, training
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.state import init_state
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Batch, Dataset
from jaxmnist.host.devices import available
from jaxmnist.host.display import shown_by
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.arguments import MEMORY, TRAINED, check_evaluations
from jaxmnist.sweeps.configure import configure, make_setup, precision
from jaxmnist.sweeps.job import Job, make_job
from jaxmnist.sweeps.running import Data, put
from jaxmnist.sweeps.runs import Runs, hyperparameter_names
from jaxmnist.sweeps.sizes import step_flops
from jaxmnist.sweeps.sweep import plan
from jaxmnist.sweeps.trials import shapes


def _rows(cost: "Cost") -> dict[str, str]:
    return dict(line.split(": ", 1) for line in str(cost).splitlines())


@shown_by(_rows)
class Cost(NamedTuple):
    """What a sweep will cost.

    Attributes:
      num_runs: R.
      num_programs: programs, which run one after another.
      num_compilations: programs that have to be compiled.
      memory: peak bytes of data, states and compiled programs.
      state_bytes: of the states of all runs, which `keep_states` writes.
      useful_flops: floating-point operations of the training steps on real examples.
      padding: padded over useful work, at least 1.
      seconds: compilation, training and evaluation, from a few steps of each program that was compiled.
    """

    num_runs: int
    num_programs: int
    num_compilations: int
    memory: int
    state_bytes: int
    useful_flops: float
    padding: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"runs: {self.num_runs}\n"
            f"programs: {self.num_programs}, of which {self.num_compilations} are compiled\n"
            f"memory: {self.memory / 2**20:.0f} MiB\n"
            f"states of all runs, if they are kept: {self.state_bytes / 2**20:.1f} MiB\n"
            f"FLOPs: {self.useful_flops:.3g} in training steps ({self.padding:.2f}x that with padding), "
            "evaluation not counted\n"
            f"time: about {self.seconds:.0f} s, from a few steps of each compiled program"
        )


@checked_by(check_evaluations, **TRAINED, num_evaluations=Whole(1), memory=MEMORY)
def estimate(
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
    memory: float | None = None,
) -> Cost:
    """Returns what `sweep` with the same arguments will cost, by trying each of its compiled programs for a few steps.

    Raises:
      ValueError: as `sweep`.
    """
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    with precision(setup):
        return _estimate(make_job(setup, runs, dataset, num_steps, num_evaluations), memory)


def _estimate(job: Job, memory: float | None) -> Cost:
    planned = plan(job, available() if memory is None else memory)
    mesh = programs.local_mesh()
    data, dataset = put(mesh, job.dataset), job.dataset
    kinds = Counter(_kind(program) for program in planned)
    examples = {_kind(program): program for program in planned}
    seconds, peak, kept = 0.0, 0, 0
    for kind, count in kinds.items():
        program = planning.filled(examples[kind], mesh.size)
        compilation_s, each_s, state_bytes, other_bytes = _try(job, program, data, mesh)
        seconds += compilation_s + count * each_s
        peak = max(peak, state_bytes + other_bytes)
        kept += count * state_bytes
    splits = dataset.train, dataset.validation, dataset.test
    held = sum(np.asarray(array).nbytes for split in splits for array in split)
    useful = job.num_steps * float(np.sum(job.arrays["batch_size"], dtype=np.float64))
    return Cost(
        num_runs=len(job.arrays["seed"]),
        num_programs=len(planned),
        num_compilations=len(kinds),
        memory=held + peak,
        state_bytes=kept,
        useful_flops=useful * _flops_per_example(job),
        padding=planning.padding(planned),
        seconds=seconds,
    )


def _kind(program: planning.Program) -> tuple:
    return program.padded_batch_sizes, program.at_once, program.rows.shape, program.static


def _try(job: Job, program: planning.Program, data: Data, mesh: Mesh) -> tuple[float, float, int, int]:
    """Returns the seconds of compilation, those of one program after it, the bytes of its states, and other bytes."""
    spec = programs.ProgramSpec(job.setup, program.static, mesh)
    inputs = programs.make_inputs(spec, job.arrays, program)
    begin = time.perf_counter()
    states = programs.init(spec, inputs, data.train.inputs)
    boundaries = planning.segments(job.num_steps, job.num_evaluations, step_flops(program, states))
    length = max(stop - start for start, stop in itertools.pairwise(boundaries))
    window = programs.per_group(mesh, programs.order_window(program, len(data.train.targets), 0, length, length))
    segment, num_steps = programs.make_segment(program, length, length)
    arguments = (inputs, states, window, data.train, num_steps)
    advance = programs.advance.lower(spec, *arguments, segment=segment).compile()
    evaluate = {
        name: programs.evaluate.lower(spec, inputs, states, getattr(data, name)).compile()
        for name in ("validation", "test")
    }
    jax.block_until_ready(states.step)
    compilation_s = time.perf_counter() - begin
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((states.params, states.model_state, states.opt_state)))

    begin = time.perf_counter()
    states, *_ = advance(*arguments)
    jax.block_until_ready(states.step)
    each_s = (time.perf_counter() - begin) * job.num_steps / length
    for name in evaluate:
        begin = time.perf_counter()
        jax.block_until_ready(evaluate[name](inputs, states, getattr(data, name)))
        often = job.num_evaluations + 1 if name == "validation" and job.num_evaluations > 1 else 0
        each_s += (1 + often) * (time.perf_counter() - begin)
    analyses = [compiled.memory_analysis() for compiled in (advance, *evaluate.values())]
    temporary = max(analysis.temp_size_in_bytes for analysis in analyses if analysis is not None)
    # One window is made while another is in use.
    return compilation_s, each_s, state_bytes, 2 * window.nbytes + mesh.size * temporary


def _flops_per_example(job: Job) -> float:
    """Returns the operations that one more example adds to a batch, forward and backward, of the sweep's first run."""
    first = {name: job.arrays[name][0].item() for name in hyperparameter_names(job.arrays)}
    run = configure(job.setup, first)
    optimizer = optax.sgd(0.1)

    def flops(batch_size):
        inputs, targets = (
            jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype) for array in shapes(job.dataset.train)
        )
        weights = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
        state = jax.eval_shape(functools.partial(init_state, run.model, optimizer), 0, inputs)
        step = jax.jit(lambda state, batch: training.train_step(run.model, optimizer, state, batch, run.loss))
        lowered = step.lower(state, Batch(inputs, targets, weights))
        # GPUs count the operations of compiled programs alone.
        analysis = lowered.cost_analysis() or lowered.compile().cost_analysis()
        return analysis["flops"] if analysis else math.nan

    return flops(2) - flops(1)

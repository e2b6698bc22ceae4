"""What a sweep will take, found out before it trains."""

import functools
import itertools
import math
import time
from collections import Counter
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist.core import optimizers, training
from jaxmnist.core.state import init_state
from jaxmnist.data.dataset import Batch, Dataset
from jaxmnist.host.devices import available
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.job import check
from jaxmnist.sweeps.running import Data, put
from jaxmnist.sweeps.runs import Runs
from jaxmnist.sweeps.sweep import check_memory, plan


class Cost(NamedTuple):
    """What a sweep will take.

    Attributes:
      num_runs: R.
      num_programs: how many programs run, one after another.
      num_compilations: how many of them are compiled.
      memory: peak bytes of data, states and compiled programs.
      useful_flops: floating-point operations of the training steps on real examples.
      padding: padded over useful work, at least 1.
      seconds: compilation, training and evaluation, from a few steps of each program that was compiled.
    """

    num_runs: int
    num_programs: int
    num_compilations: int
    memory: int
    useful_flops: float
    padding: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"runs: {self.num_runs}\n"
            f"programs: {self.num_programs}, of which {self.num_compilations} are compiled\n"
            f"memory: {self.memory / 2**20:.0f} MiB\n"
            f"FLOPs: {self.useful_flops:.3g} in training steps ({self.padding:.2f}x that with padding), "
            "evaluation not counted\n"
            f"time: about {self.seconds:.0f} s, from a few steps of each compiled program"
        )


def estimate(
    model: nn.Module,
    optimizer: optimizers.OptimizerFactory,
    runs: Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    num_evaluations: int = 1,
    memory: float | None = None,
) -> Cost:
    """Returns what `sweep` with the same arguments will take; each of its compiled programs is tried for a few steps.

    Raises:
      ValueError: as `sweep`.
    """
    check_memory(memory)
    checked = check(model, optimizer, runs, dataset, num_steps, num_evaluations)
    memory = available() if memory is None else memory
    planned = plan(model, optimizer, checked, dataset, memory, num_steps)
    mesh = programs.local_mesh()
    data = put(mesh, dataset)
    kinds = Counter(_kind(program) for program in planned)
    examples = {_kind(program): program for program in planned}
    seconds = 0.0
    peak = 0
    for kind, count in kinds.items():
        program = planning.filled(examples[kind], mesh.size)
        recipe = programs.Recipe(model, optimizer, program.static, mesh)
        numbers = programs.inputs(mesh, checked.arrays, program)
        compilation_s, each_s, program_bytes = _try(recipe, numbers, program, data, num_steps, num_evaluations)
        seconds += compilation_s + count * each_s
        peak = max(peak, program_bytes)
    splits = dataset.train, dataset.validation, dataset.test
    held = sum(np.asarray(array).nbytes for split in splits for array in split)
    useful = num_steps * float(np.sum(checked.arrays["batch_size"], dtype=np.float64))
    return Cost(
        num_runs=len(checked.arrays["seed"]),
        num_programs=len(planned),
        num_compilations=len(kinds),
        memory=held + peak,
        useful_flops=useful * _flops_per_example(model, dataset),
        padding=planning.padding(planned),
        seconds=seconds,
    )


def _kind(program: planning.Program) -> tuple:
    return program.padded_batch_sizes, program.at_once, program.rows.shape, program.static


def _try(recipe, numbers, program, data: Data, num_steps: int, num_evaluations: int) -> tuple[float, float, int]:
    """Returns seconds of compilation, seconds of one program without it, and its peak bytes."""
    begin = time.perf_counter()
    states = programs.init(recipe, numbers, data.train.images)
    boundaries = planning.segments(num_steps, num_evaluations, programs.step_flops(program, states))
    length = max(stop - start for start, stop in itertools.pairwise(boundaries))
    orders = programs.Orders(program, len(data.train.labels))
    window = programs.per_group(recipe.mesh, orders.window(0, length))
    arguments = (numbers, states, window, data.train)
    lowered = programs.advance.lower(
        recipe, *arguments, num_steps=length, padded_batch_sizes=program.padded_batch_sizes, at_once=program.at_once
    )
    advance = lowered.compile()
    evaluate = {
        name: programs.evaluate.lower(recipe, numbers, states.params, getattr(data, name)).compile()
        for name in ("validation", "test")
    }
    jax.block_until_ready(states.step)
    compilation_s = time.perf_counter() - begin
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((states.params, states.opt_state)))

    begin = time.perf_counter()
    states, _ = advance(*arguments)
    jax.block_until_ready(states.step)
    each_s = (time.perf_counter() - begin) * num_steps / length
    for name in evaluate:
        begin = time.perf_counter()
        jax.block_until_ready(evaluate[name](numbers, states.params, getattr(data, name)))
        often = num_evaluations + 1 if name == "validation" and num_evaluations > 1 else 0
        each_s += (1 + often) * (time.perf_counter() - begin)
    analyses = [of.memory_analysis() for of in (advance, *evaluate.values())]
    temporary = max(analysis.temp_size_in_bytes for analysis in analyses if analysis is not None)
    # One window is made while another is in use.
    return compilation_s, each_s, state_bytes + 2 * window.nbytes + recipe.mesh.size * temporary


def _flops_per_example(model: nn.Module, dataset: Dataset) -> float:
    """Returns the operations of one more example in a batch, forward and backward."""

    def flops(batch_size):
        images = jax.ShapeDtypeStruct((batch_size, *dataset.train.images.shape[1:]), jnp.uint8)
        labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        weights = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
        optimizer = optax.sgd(0.1)
        state = jax.eval_shape(functools.partial(init_state, model, optimizer), 0, images)
        step = jax.jit(functools.partial(training.train_step, model, optimizer))
        analysis = step.lower(state, Batch(images, labels, weights)).cost_analysis()
        return analysis["flops"] if analysis else math.nan

    return flops(2) - flops(1)

"""What a sweep will take, found out before it trains."""

import functools
import itertools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import planning, programs, training
from jaxmnist.data import Dataset
from jaxmnist.programs import OptimizerFactory
from jaxmnist.sweep import check, segments


class Cost(NamedTuple):
    """What a sweep will take.

    Attributes:
      num_runs: R.
      padded_batch_sizes: of each program.
      memory: peak bytes of data, states and compiled programs.
      useful_flops: floating-point operations of the training steps on real examples.
      padding: padded over useful work, at least 1.
    """

    num_runs: int
    padded_batch_sizes: tuple[int, ...]
    memory: int
    useful_flops: float
    padding: float

    def __str__(self) -> str:
        return (
            f"runs: {self.num_runs}\n"
            f"programs: {len(self.padded_batch_sizes)}, with batches padded to "
            f"{', '.join(map(str, self.padded_batch_sizes))}\n"
            f"memory: {self.memory / 2**20:.0f} MiB\n"
            f"FLOPs: {self.useful_flops:.3g} in training steps ({self.padding:.2f}x that with padding), "
            "evaluation not counted"
        )


def estimate(
    model: nn.Module,
    optimizer: OptimizerFactory,
    runs: planning.Runs,
    dataset: Dataset,
    *,
    num_steps: int,
    num_evaluations: int = 1,
) -> Cost:
    """Returns what `sweep` with the same arguments will take, without training: its programs are compiled only.

    Raises:
      ValueError: as `sweep`.
    """
    arrays = check(model, optimizer, runs, dataset, num_steps, num_evaluations)
    boundaries, _ = segments(num_steps, num_evaluations)
    length = max(stop - start for start, stop in itertools.pairwise(boundaries))
    splits = dataset.train, dataset.validation, dataset.test
    data = sum(np.asarray(array).nbytes for split in splits for array in split)
    planned = planning.plan(arrays)
    memory = []
    for program in planned:
        hyperparameters = {
            name: jax.ShapeDtypeStruct(program.rows.shape, jnp.float32)
            for name in planning.hyperparameter_names(arrays)
        }
        per_group = jax.ShapeDtypeStruct(program.seed.shape, jnp.int32)
        orders = jax.ShapeDtypeStruct((len(program.seed), length * program.padded_batch_size), jnp.int32)
        init = functools.partial(programs.init, model, optimizer)
        states = jax.eval_shape(init, hyperparameters, per_group, dataset.train.images)
        compiled = programs.advance.lower(
            model, optimizer, hyperparameters, states, dataset.train, orders, per_group,
            num_steps=length, padded_batch_size=program.padded_batch_size,
            groups_at_once=programs.groups_at_once(model, program, dataset.train.images.shape[1:]),
        ).compile()  # fmt: skip
        evaluated = programs.evaluate.lower(model, optimizer, hyperparameters, states.params, dataset.test).compile()
        state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states))
        temporary = max(_temporary_bytes(compiled), _temporary_bytes(evaluated))
        memory.append(data + state_bytes + orders.size * 4 + temporary)
    useful = num_steps * float(np.sum(arrays["batch_size"], dtype=np.float64))
    return Cost(
        num_runs=len(arrays["seed"]),
        padded_batch_sizes=tuple(program.padded_batch_size for program in planned),
        memory=max(memory),
        useful_flops=useful * _flops_per_example(model, dataset),
        padding=planning.padding(planned),
    )


def _temporary_bytes(compiled) -> int:
    return compiled.memory_analysis().temp_size_in_bytes


def _flops_per_example(model: nn.Module, dataset: Dataset) -> float:
    """Returns the operations of one more example in a batch, forward and backward."""

    def flops(batch_size):
        images = jax.ShapeDtypeStruct((batch_size, *dataset.train.images.shape[1:]), jnp.uint8)
        labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        weights = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
        optimizer = optax.sgd(0.1)
        state = jax.eval_shape(functools.partial(training.init_state, model, optimizer), 0, images)
        step = jax.jit(functools.partial(training.train_step, model, optimizer))
        analysis = step.lower(state, images, labels, weights).cost_analysis()
        return analysis["flops"] if analysis else math.nan

    return flops(2) - flops(1)

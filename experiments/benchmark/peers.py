"""What the benchmark times: the same runs trained by this package and by its peers, as their users would write them.

Every peer starts from data in its own form. `train` is timed separately from `evaluate`, which computes the test
accuracy of each run once. This file has this package's own; others are in `peers_jax.py`,
`peers_torch.py` and `peers_tf.py`, of which the last two are left out without their library.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.core import optimizers, training
from jaxmnist.host.devices import DEFAULT_BYTES
from jaxmnist.networks import spreading
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.configure import configure, make_setup
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.running import put, train
from jaxmnist.sweeps.sizes import step_flops
from jaxmnist.sweeps.sweep import plan

CNN_BATCH_SIZE = 50


class Peer(NamedTuple):
    """One way to do the same work.

    Attributes:
      name: as the tables have it.
      train: does the training, and returns what `evaluate` needs.
      evaluate: returns the test accuracies of what was trained, `[R]` for runs, `[]` for a single one.
      runs: how many runs each call of `train` trains, where times are given per run.
    """

    name: str
    train: Callable[[], Any]
    evaluate: Callable[[Any], Any]
    runs: int = 1


def cells(runs: dict) -> list[tuple[float, int, int]]:
    """Returns learning rate, batch size and seed of each run."""
    names = ("learning_rate", "batch_size", "seed")
    return list(zip(*(np.asarray(runs[name]).tolist() for name in names), strict=True))


def softmax_sweep(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns this package's sweep: its plan, its compiled programs, and one evaluation."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    data = put(programs.local_mesh(), dataset)

    def train_all():
        trained = []
        for spec, inputs, program, initial in begun(model, optax.sgd, runs, dataset, data, num_steps):
            boundaries = planning.segments(num_steps, 1, step_flops(program, initial))
            for _, (states, _) in train(spec, inputs, program, data.train, initial, boundaries):
                jax.block_until_ready(states.step)
            trained.append((program.rows, spec, inputs, states))
        return trained

    def evaluate(trained):
        accuracies = np.empty(len(runs["seed"]), np.float32)
        for rows, spec, inputs, states in trained:
            accuracies[rows] = programs.evaluate(spec, inputs, states, data.test).accuracy
        return accuracies

    return Peer("jaxmnist, sweep", train_all, evaluate)


def begun(model: Any, optimizer: optimizers.OptimizerFactory, runs: dict, dataset, data, num_steps: int):
    """Yields spec, inputs, program and initial states of one program of a sweep after another."""
    mesh = programs.local_mesh()
    job = make_job(make_setup(model, optimizer), runs, dataset, num_steps)
    for program in plan(job, DEFAULT_BYTES):
        spec = programs.ProgramSpec(job.setup, program.static, mesh)
        inputs = programs.make_inputs(spec, job.arrays, program)
        yield spec, inputs, program, programs.init(spec, inputs, data.train.inputs)


def fit_per_cell(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns this package's `fit`, jitted, for one cell after another."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    split, test = jax.device_put(dataset.train), jax.device_put(dataset.test)

    @functools.partial(jax.jit, static_argnames="batch_size")
    def fit(learning_rate, seed, split, order, *, batch_size):
        optimizer = optax.sgd(learning_rate)
        state = jm.init_state(model, optimizer, seed, split.inputs)
        return jm.fit(model, optimizer, state, split, order, batch_size, num_steps=num_steps)[0].params

    def train_all():
        trained = []
        for rate, batch_size, seed in cells(runs):
            order = jm.example_order(len(split.targets), seed, num_steps * batch_size)
            trained.append(fit(jnp.float32(rate), seed, split, order, batch_size=batch_size))
        return trained

    def evaluate(trained):
        return np.array([evaluate_alone(model, params, test).accuracy for params in trained])

    return Peer("jaxmnist, fit cell after cell", train_all, evaluate)


evaluate_alone = jax.jit(training.evaluate, static_argnames=("model",))


def cnn(dataset: jm.Dataset, test: jm.Split, num_steps: int, model: Any = None, name: str = "jaxmnist") -> Peer:
    """Returns the original CNN, whose training is continued at each call, as `train_cnn.py` does it.

    Args:
      dataset: what it is trained on.
      test: what it is evaluated on.
      num_steps: of each call.
      model: the CNN; default `jm.CNN`.
      name: what the tables call it.
    """
    model = jm.CNN(num_classes=len(dataset.class_names)) if model is None else model
    configured = configure(make_setup(model, optax.adam), {"learning_rate": 1e-4})
    mesh = spreading.mesh_for(CNN_BATCH_SIZE)
    order = jm.example_order(len(dataset.train.targets), 0, num_steps * CNN_BATCH_SIZE)
    split, test, order = spreading.put(mesh, (dataset.train, test, order))
    states = [spreading.put(mesh, jm.init_state(configured.model, configured.optimizer, 0, dataset.train.inputs))]

    def go_on():
        states[0], _ = spreading.fit(mesh, configured, states[0], split, order, CNN_BATCH_SIZE, num_steps=num_steps)
        return states[0].step

    def evaluate(_):
        variables = states[0].params, states[0].model_state
        return spreading.evaluate(mesh, configured.model, variables, test, configured.measured).accuracy

    return Peer(name, go_on, evaluate)


def cnn_vmap(dataset: jm.Dataset, num_steps: int, num_runs: int) -> Peer:
    """Returns runs of the original CNN under a hand-written `vmap`, each with its own order, continued at each call."""
    model, optimizer = jm.CNN(num_classes=len(dataset.class_names)), optax.adam(1e-4)
    split = jax.device_put(dataset.train)
    length = num_steps * CNN_BATCH_SIZE
    orders = np.stack([jm.example_order(len(split.targets), seed, length) for seed in range(num_runs)])
    init = jax.vmap(functools.partial(jm.init_state, model, optimizer, inputs=split.inputs))

    def fit(state, split, order):
        return jm.fit(model, optimizer, state, split, order, CNN_BATCH_SIZE, num_steps=num_steps)[0]

    advance = jax.jit(jax.vmap(fit, in_axes=(0, None, 0)), donate_argnums=0)
    states = [jax.jit(init)(jnp.arange(num_runs))]

    def go_on():
        states[0] = advance(states[0], split, orders)
        return states[0].step

    return Peer(f"jax.vmap of {num_runs} jaxmnist.fit", go_on, lambda _: None, num_runs)


def cnn_sweep(dataset: jm.Dataset, num_steps: int, num_runs: int, model: Any = None, name: str = "jaxmnist") -> Peer:
    """Returns a sweep of the original CNN over seeds, by this package's plan, continued at each call."""
    model = jm.CNN(num_classes=len(dataset.class_names)) if model is None else model
    runs = jm.grid(learning_rate=1e-4, batch_size=CNN_BATCH_SIZE, seed=range(num_runs))
    data = put(programs.local_mesh(), dataset)
    in_training = [list(each) for each in begun(model, optax.adam, runs, dataset, data, num_steps)]

    def go_on():
        for each in in_training:
            spec, inputs, program, before = each
            for _, (after, _) in train(spec, inputs, program, data.train, before, (0, num_steps)):
                each[-1] = after
            jax.block_until_ready(after.step)

    return Peer(f"{name}, sweep of {num_runs}", go_on, lambda _: None, num_runs)

"""What a person writes with jax, flax and optax alone, as the benchmark times it."""

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

import jaxmnist as jm

from .peers import Peer, cells


class _Plain(NamedTuple):
    """What all of these peers have in common: a network, its data, and the jitted accuracy of parameters on test."""

    model: nn.Module
    images: jax.Array
    labels: jax.Array
    accuracy: Callable

    def evaluate(self, trained: list) -> np.ndarray:
        return np.array([self.accuracy(params) for params in trained])


def _plain(dataset: jm.Dataset) -> _Plain:
    model = nn.Dense(len(dataset.class_names), kernel_init=nn.initializers.zeros)

    def arrays(split):
        return jnp.asarray(split.inputs.reshape(len(split.inputs), -1), jnp.float32) / 255, jnp.asarray(split.targets)

    @jax.jit
    def accuracy(params, images, labels):
        return jnp.mean(jnp.argmax(cast(jax.Array, model.apply(params, images)), axis=-1) == labels)

    images, labels = arrays(dataset.train)
    test_images, test_labels = arrays(dataset.test)
    test_accuracy = functools.partial(accuracy, images=test_images, labels=test_labels)
    return _Plain(model, images, labels, test_accuracy)


def _orders(runs: dict, num_train: int, num_steps: int):
    """Yields learning rate and order of examples, `[T, B]`, of each run."""
    for rate, batch_size, seed in cells(runs):
        yield rate, jm.example_order(num_train, seed, num_steps * batch_size).reshape(num_steps, batch_size)


def scan_per_cell(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns a `lax.scan` over the steps, jitted, for one cell after another."""
    plain = _plain(dataset)

    @jax.jit
    def fit(learning_rate, images, labels, order):
        optimizer = optax.sgd(learning_rate)
        params = plain.model.init(jax.random.key(0), images[:1])
        step = functools.partial(_plain_step, plain.model, optimizer, images, labels)
        return jax.lax.scan(lambda carry, rows: (step(carry, rows), None), (params, optimizer.init(params)), order)[0]

    def train_all():
        orders = _orders(runs, len(plain.labels), num_steps)
        return [fit(jnp.float32(rate), plain.images, plain.labels, order)[0] for rate, order in orders]

    return Peer("JAX, scan per cell", train_all, plain.evaluate)


def step_loop(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns one jitted training step in a Python loop; the learning rate is its argument."""
    plain = _plain(dataset)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry, learning_rate, images, labels, rows):
        return _plain_step(plain.model, optax.sgd(learning_rate), images, labels, carry, rows)

    def train_all():
        trained = []
        for rate, order in _orders(runs, len(plain.labels), num_steps):
            params = plain.model.init(jax.random.key(0), plain.images[:1])
            carry = params, optax.sgd(rate).init(params)
            for rows in order:
                carry = step(carry, rate, plain.images, plain.labels, rows)
            trained.append(carry[0])
        return trained

    return Peer("JAX, one jitted step in a loop", train_all, plain.evaluate)


def vmap_by_hand(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns `jit(vmap(...))` of a `lax.scan` over the steps: each run has its own batches, padded to the largest."""
    plain = _plain(dataset)
    largest = int(np.max(runs["batch_size"]))

    def loss(params, images, labels, weights):
        logits = plain.model.apply(params, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(weights * losses) / jnp.sum(weights)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, None, None))
    def fit(learning_rate, order, weights, images, labels):
        optimizer = optax.sgd(learning_rate)
        params = plain.model.init(jax.random.key(0), images[:1])

        def step(carry, rows):
            params, opt_state = carry
            grads = jax.grad(loss)(params, images[rows], labels[rows], weights)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), order)[0][0]

    def train_all():
        rates, orders = zip(*_orders(runs, len(plain.labels), num_steps), strict=True)
        padded = np.stack([np.pad(order, ((0, 0), (0, largest - order.shape[1]))) for order in orders])
        weights = np.arange(largest) < np.asarray(runs["batch_size"])[:, None]
        return fit(jnp.array(rates), padded, weights.astype(np.float32), plain.images, plain.labels)

    accuracies = jax.jit(jax.vmap(plain.accuracy))
    return Peer("JAX, vmap by hand", train_all, lambda trained: np.asarray(accuracies(trained)))


def _plain_step(model, optimizer, images, labels, carry, rows):
    params, opt_state = carry

    def loss(params):
        logits = model.apply(params, images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
    return optax.apply_updates(params, updates), opt_state


def flax_style(dataset: jm.Dataset, runs: dict, num_steps: int) -> Peer:
    """Returns flax's MNIST example: a `TrainState`, two jitted functions a step; every state's optimizer compiles."""
    plain = _plain(dataset)

    @jax.jit
    def apply_model(state, images, labels):
        def loss_and_logits(params):
            logits = state.apply_fn(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        (loss, logits), grads = jax.value_and_grad(loss_and_logits, has_aux=True)(state.params)
        return grads, loss, jnp.mean(jnp.argmax(logits, -1) == labels)

    @jax.jit
    def update_model(state, grads):
        return state.apply_gradients(grads=grads)

    def train_all():
        trained = []
        for rate, order in _orders(runs, len(plain.labels), num_steps):
            params = plain.model.init(jax.random.key(0), plain.images[:1])
            state = train_state.TrainState.create(apply_fn=plain.model.apply, params=params, tx=optax.sgd(rate))
            for rows in order:
                grads, _, _ = apply_model(state, plain.images[rows], plain.labels[rows])
                state = update_model(state, grads)
            trained.append(state.params)
        return trained

    return Peer("flax's example, cell after cell", train_all, plain.evaluate)

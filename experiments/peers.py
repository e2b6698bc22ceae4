"""What benchmark.py times: the same work by this package and by its peers, each as its users would write it."""

import functools
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist import training

GRID = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0.0, 0.2, 0.4, 0.6, 0.8], seed=0)
GRID_STEPS = 100
CNN_BATCH_SIZE = 50


def jaxmnist_sweep(dataset: jm.Dataset) -> np.ndarray:
    """Returns test accuracies `[R]` of the grid: the library as a person calls it, evaluating on validation as well."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    result = jm.sweep(model, optax.sgd, GRID, dataset, num_steps=GRID_STEPS, progress=False)
    return result["test_accuracy"].sel(seed=0).transpose("batch_size", "learning_rate").values.ravel()


def fit_per_cell(dataset: jm.Dataset) -> np.ndarray:
    """Returns the same, by this package's `fit` and `evaluate`, jitted, for one cell after another."""
    model = jm.SoftmaxRegression(len(dataset.class_names))
    split, test = jax.device_put(dataset.train), jax.device_put(dataset.test)
    accuracies = []
    for batch_size, learning_rate in zip(GRID["batch_size"], GRID["learning_rate"], strict=True):
        order = jm.example_order(len(split.labels), 0, GRID_STEPS * batch_size)
        params = _fit_alone(model, jnp.float32(learning_rate), split, order, batch_size=int(batch_size))
        accuracies.append(_evaluate_alone(model, params, test).accuracy)
    return np.array(accuracies)


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _fit_alone(model, learning_rate, split, order, *, batch_size):
    optimizer = optax.sgd(learning_rate)
    state = training.init_state(model, optimizer, 0, split.images)
    return training.fit(model, optimizer, state, split, order, batch_size, num_steps=GRID_STEPS)[0].params


_evaluate_alone = jax.jit(training.evaluate, static_argnames=("model",))


def plain_jax_per_cell(dataset: jm.Dataset) -> Callable[[], np.ndarray]:
    """Returns a function that does the same as a person would write it with jax, flax and optax alone."""
    model = nn.Dense(len(dataset.class_names), kernel_init=nn.initializers.zeros)
    images = jnp.asarray(dataset.train.images.reshape(len(dataset.train.images), -1), jnp.float32) / 255
    test_images = jnp.asarray(dataset.test.images.reshape(len(dataset.test.images), -1), jnp.float32) / 255
    labels, test_labels = jnp.asarray(dataset.train.labels), jnp.asarray(dataset.test.labels)

    @jax.jit
    def fit(learning_rate, images, labels, order):
        optimizer = optax.sgd(learning_rate)
        params = model.init(jax.random.key(0), images[:1])

        def loss(params, rows):
            logits = model.apply(params, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        def step(carry, rows):
            params, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(params, rows), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), order)[0][0]

    @jax.jit
    def accuracy(params, images, labels):
        logits = cast(jax.Array, model.apply(params, images))
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    def loop():
        accuracies = []
        for batch_size, learning_rate in zip(GRID["batch_size"], GRID["learning_rate"], strict=True):
            order = jm.example_order(len(labels), 0, GRID_STEPS * batch_size).reshape(GRID_STEPS, batch_size)
            params = fit(jnp.float32(learning_rate), images, labels, order)
            accuracies.append(accuracy(params, test_images, test_labels))
        return np.array(accuracies)

    return loop


def torch_loop(dataset: jm.Dataset) -> Callable[[], np.ndarray]:
    """Returns a function that does the same by a plain PyTorch loop; the data are float tensors from the start.

    Raises:
      ValueError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ValueError("torch is missing; install it by pip install -e '.[bench]'") from None

    def tensors(split):
        images = torch.from_numpy(split.images.reshape(len(split.images), -1)).float() / 255
        return images, torch.from_numpy(split.labels).long()

    images, labels = tensors(dataset.train)
    test_images, test_labels = tensors(dataset.test)

    def loop():
        accuracies = []
        for batch_size, learning_rate in zip(GRID["batch_size"].tolist(), GRID["learning_rate"].tolist(), strict=True):
            order = torch.from_numpy(jm.example_order(len(labels), 0, GRID_STEPS * batch_size)).long()
            model = torch.nn.Linear(images.shape[1], len(dataset.class_names))
            torch.nn.init.zeros_(model.weight)
            torch.nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracies.append((model(test_images).argmax(1) == test_labels).float().mean().item())
        return np.array(accuracies)

    return loop


def jaxmnist_cnn(dataset, test, num_steps: int, num_runs: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns functions that go on training, and that evaluate; several runs under `vmap`, each with its own order."""
    model, optimizer = jm.CNN(num_classes=len(dataset.class_names)), optax.adam(1e-4)
    split, on_device = jax.device_put(dataset.train), jax.device_put(test)
    seeds = jnp.arange(num_runs)
    length = num_steps * CNN_BATCH_SIZE
    orders = np.stack([jm.example_order(len(split.labels), seed, length) for seed in range(num_runs)])
    if num_runs == 1:
        seeds, orders = seeds[0], orders[0]
    init = functools.partial(jm.init_state, model, optimizer, images=split.images)

    def fit(state, split, order):
        return jm.fit(model, optimizer, state, split, order, CNN_BATCH_SIZE, num_steps=num_steps)[0]

    if num_runs > 1:
        init, fit = jax.vmap(init), jax.vmap(fit, in_axes=(0, None, 0))
    advance = jax.jit(fit, donate_argnums=0)
    states = [jax.jit(init)(seeds)]

    def go_on():
        states[0] = advance(states[0], split, orders)
        return states[0].step

    return go_on, lambda: _evaluate_alone(model, states[0].params, on_device)


def torch_cnn(dataset, test, num_steps: int, channels_last: bool, fused: bool):
    """Returns the same of PyTorch's; the data are float tensors from the start."""
    import torch
    from torch import nn as tnn

    def tensors(split):
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        return images, torch.from_numpy(split.labels).long()

    images, labels = tensors(dataset.train)
    test_images, test_labels = tensors(test)
    side = dataset.train.images.shape[1] // 4
    layers = (
        *(tnn.Conv2d(1, 32, 5, padding=2), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Conv2d(32, 64, 5, padding=2), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Flatten(), tnn.Linear(64 * side * side, 1024), tnn.ReLU(), tnn.Dropout(0.5)),
        tnn.Linear(1024, len(dataset.class_names)),
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = tnn.Sequential(*layers)
    model = model.to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    order = torch.from_numpy(jm.example_order(len(labels), 0, num_steps * CNN_BATCH_SIZE)).long()

    def go_on():
        model.train()
        for rows in order.split(CNN_BATCH_SIZE):
            batch = images[rows].contiguous(memory_format=memory_format)
            optimizer.zero_grad()
            tnn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()

    def evaluate():
        model.eval()
        with torch.no_grad():
            batches = zip(test_images.split(500), test_labels.split(500), strict=True)
            return sum(
                (model(batch.contiguous(memory_format=memory_format)).argmax(1) == answers).sum().item()
                for batch, answers in batches
            )

    return go_on, evaluate

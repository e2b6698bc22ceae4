import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import mostly_slow

import jaxmnist as jm
from jaxmnist.core import losses as losses_of_runs
from jaxmnist.core.state import NEVER

MODEL = jm.SoftmaxRegression(4)


def fit(dataset, learning_rate=0.5, batch_size=7, seed=0, num_steps=12, model=MODEL, optimizer=None, **kwargs):
    optimizer = optimizer or optax.sgd(learning_rate)
    split = jax.device_put(dataset.train)
    order = jnp.asarray(jm.example_order(len(split.targets), seed, num_steps * batch_size))
    state = jm.init_state(model, optimizer, seed, split.inputs)
    return jm.fit(model, optimizer, state, split, order, batch_size, num_steps=num_steps, **kwargs)


def test_step_equals_the_closed_form_of_softmax_regression(tiny):
    images, labels = tiny.train.inputs[:5], tiny.train.targets[:5]
    optimizer = optax.sgd(0.3)
    state = jm.init_state(MODEL, optimizer, 0, images)
    new, loss = jm.train_step(MODEL, optimizer, state, jm.Batch(jnp.asarray(images), jnp.asarray(labels), jnp.ones(5)))
    pixels = images.reshape(5, -1) / 255
    residual = (0.25 - np.eye(4)[labels]) / 5
    np.testing.assert_allclose(new.params["Dense_0"]["kernel"], -0.3 * residual.T @ pixels, atol=1e-6)
    np.testing.assert_allclose(new.params["Dense_0"]["bias"], -0.3 * residual.sum(0), atol=1e-6)
    assert loss == pytest.approx(np.log(4)) and new.step == 1


def test_fit_learns(tiny):
    state, losses = fit(tiny, num_steps=60)
    metrics = jm.evaluate(MODEL, state.params, jax.device_put(tiny.test))
    assert metrics.accuracy > 0.9 and losses[-1] < 0.3 * losses[0]


def test_padding_changes_nothing(tiny):
    alone, losses = fit(tiny)
    padded, padded_losses = fit(tiny, padded_batch_size=16)
    np.testing.assert_allclose(losses, padded_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone.params, padded.params)


def test_padding_rows_have_zero_gradient(tiny):
    images, labels = jnp.asarray(tiny.train.inputs[:6]), jnp.asarray(tiny.train.targets[:6])
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    optimizer = optax.sgd(1.0)
    state = jm.init_state(jm.MLP(8, 4), optimizer, 0, images)
    step = jax.jit(functools.partial(jm.train_step, jm.MLP(8, 4), optimizer))
    ours, _ = step(state, jm.Batch(images, labels, weights))
    theirs, _ = step(state, jm.Batch(images.at[4:].set(255 - images[4:]), labels, weights))
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_fit_continues_where_it_stopped(tiny):
    whole, _ = fit(tiny, num_steps=12, optimizer=optax.adam(0.01))
    first, _ = fit(tiny, num_steps=5, optimizer=optax.adam(0.01))
    order = jnp.asarray(jm.example_order(47, 0, 12 * 7))[5 * 7 :]
    rest, _ = jm.fit(MODEL, optax.adam(0.01), first, jax.device_put(tiny.train), order, 7, num_steps=7)
    for name in ("step", "params", "opt_state", "diverged_step"):
        pair = getattr(whole, name), getattr(rest, name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *pair)


def test_batches_are_those_of_fit_in_their_order(tiny):
    optimizer = optax.sgd(0.5)
    state = jm.init_state(MODEL, optimizer, 3, tiny.train.inputs)
    step = jax.jit(functools.partial(jm.train_step, MODEL, optimizer))
    for images, labels in itertools.islice(jm.batches(tiny.train, 9, seed=3), 12):
        state, _ = step(state, jm.Batch(jnp.asarray(images), jnp.asarray(labels), jnp.ones(9)))
    fitted, _ = fit(tiny, batch_size=9, seed=3, num_steps=12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, fitted.params)


@pytest.mark.parametrize(("value", "expected"), [(138.0, False), (139.0, True), (np.nan, True), (np.inf, True)])
def test_diverged_is_above_100_guesses_or_not_finite(tiny, value, expected):
    @losses_of_runs.diverges_above(lambda outputs: 100 * np.log(outputs.shape[-1]))  # 138.6 of 4 classes
    def constant(outputs, targets):
        return jnp.full(outputs.shape[0], value) + 0 * outputs[:, 0]

    state, _ = fit(tiny, num_steps=2, loss=constant)
    assert (state.diverged_step == 1) == expected and (state.diverged_step == NEVER) == (not expected)


def test_a_loss_that_declares_nothing_diverges_when_it_is_not_finite(tiny):
    state, losses = fit(tiny, learning_rate=1e6, loss=lambda outputs, targets: -outputs[:, 0])
    assert abs(losses[-1]) > 1e3 and state.diverged_step == NEVER
    state, _ = fit(tiny, num_steps=2, loss=lambda outputs, targets: outputs[:, 0] - jnp.inf)
    assert state.diverged_step == 1


def test_first_divergence_is_kept(tiny):
    state, losses = fit(tiny, learning_rate=1e6)
    expected = 1 + int(np.argmax(np.asarray(losses) > 100 * np.log(4)))
    assert state.diverged_step == expected > 1 and state.has_diverged
    state, _ = fit(tiny, learning_rate=0.5)
    assert state.diverged_step == NEVER and not state.has_diverged


@pytest.mark.parametrize("num_images", mostly_slow((23, 500, 1003), 23, 1003))
def test_every_image_is_counted_once(num_images):
    # The model's prediction is the class in the only pixel, and the labels are right for all but three images; the last
    # one, which fills up the last batch, is right.
    labels = np.arange(num_images) % 4
    wrong = [0, num_images // 2, num_images - 2]
    images = labels.astype(np.uint8).reshape(-1, 1, 1, 1) * 60
    labels[wrong] = (labels[wrong] + 1) % 4
    kernel = jnp.array([0.0, 60, 120, 180])[:, None] / 255
    params = {"Dense_0": {"kernel": 2 * kernel, "bias": -(kernel[:, 0] ** 2)}}
    split = jm.Split(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    metrics = jm.evaluate(MODEL, params, split)
    assert metrics.accuracy == np.float32((num_images - 3) / num_images)
    logits = np.asarray(MODEL.apply({"params": params}, images.astype(np.float32) / 255), np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(num_images), labels]
    np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-5)


def test_accuracy_of_what_is_not_finite_is_nan(tiny):
    params = MODEL.init(jax.random.key(0), jnp.ones((1, 6, 5, 1)))["params"]
    params = jax.tree.map(lambda leaf: leaf + jnp.nan, params)
    assert np.isnan(jm.evaluate(MODEL, params, jax.device_put(tiny.test)).accuracy)


def test_dropout_differs_by_step_and_seed_and_repeats(tiny):
    model, optimizer = jm.CNN((2,), (5,), (1,), hidden_size=16, num_classes=4), optax.sgd(0.0)
    images, labels = jnp.asarray(tiny.train.inputs[:5]), jnp.asarray(tiny.train.targets[:5])

    step = jax.jit(lambda state: jm.train_step(model, optimizer, state, jm.Batch(images, labels, jnp.ones(5))))

    initial = [jm.init_state(model, optimizer, seed, images) for seed in (0, 1)]

    def losses(seed):
        # The same parameters for both seeds, and a learning rate of 0: only what is dropped differs.
        state = initial[seed]._replace(params=initial[0].params)
        taken = []
        for _ in range(3):
            state, loss = step(state)
            taken.append(float(loss))
        return taken

    assert len(set(losses(0) + losses(1))) == 6 and losses(0) == losses(0)


def test_augmentation_differs_by_step_and_seed_and_leaves_evaluation_alone(tiny):
    model, optimizer = jm.MLP(8, num_classes=4), optax.sgd(0.0)
    images, labels = jnp.asarray(tiny.train.inputs[:5]), jnp.asarray(tiny.train.targets[:5])
    state = jm.init_state(model, optimizer, 0, images)
    step = functools.partial(jm.train_step, model, optimizer, batch=jm.Batch(images, labels, jnp.ones(5)))
    step = jax.jit(step, static_argnames="augment")
    next_state, first = step(state, augment=jm.Affine())
    _, second = step(next_state, augment=jm.Affine())
    _, other_seed = step(state._replace(key=jax.random.key(7)), augment=jm.Affine())
    assert len({float(loss) for loss in (first, second, other_seed, step(state)[1])}) == 4
    assert step(state, augment=jm.Affine(0, 0, 0))[1] == pytest.approx(float(step(state)[1]), rel=1e-5)


def small_images(num_images):
    """Returns a split of images of 2 x 2 pixels of 10 classes, a million of which train in a blink."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, num_images).astype(np.int32)
    return jm.Split(generator.integers(0, 256, (num_images, 2, 2, 1)).astype(np.uint8), labels)


def exact_losses(params, split):
    """Returns the loss of each image and its logits, in float64."""
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["Dense_0"])
    logits = split.inputs.reshape(len(split.targets), -1) / 255 @ layer["kernel"].T + layer["bias"]
    largest = logits.max(axis=1)
    sums = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return sums - logits[np.arange(len(logits)), split.targets], logits


@pytest.mark.slow
def test_ten_million_examples_later_the_batches_are_still_those_of_the_order():
    split, model = small_images(50_000), jm.SoftmaxRegression(init_std=1.0)
    batch_size, num_steps = 20_000, 500
    order = jm.example_order(50_000, 3, num_steps * batch_size)
    state = jm.init_state(model, optax.sgd(0.0), 0, split.inputs)
    run = jax.jit(functools.partial(jm.fit, model, optax.sgd(0.0)), static_argnums=3, static_argnames="num_steps")
    _, losses = run(state, jax.device_put(split), order, batch_size, num_steps=num_steps)
    # The learning rate is 0, so the losses tell the batches apart and nothing else.
    each, _ = exact_losses(state.params, split)
    permutations = [np.random.default_rng([3, epoch]).permutation(50_000) for epoch in range(num_steps * 2 // 5)]
    expected = each[np.concatenate(permutations)].reshape(num_steps, batch_size).mean(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert np.ptp(expected) > 1e-3


def test_sums_over_60000_examples_are_accurate_to_a_millionth():
    split, model = small_images(60_000), jm.SoftmaxRegression(init_std=2.0)
    params = model.init(jax.random.key(1), np.zeros((1, 2, 2, 1), np.float32))["params"]
    each, logits = exact_losses(params, split)
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    right = logits.argmax(axis=1) == split.targets
    # Rounding decides the class of next to no image.
    close = int((first - second < 1e-5).sum())
    metrics = jax.jit(jm.evaluate, static_argnums=0)(model, params, split)
    assert metrics.loss == pytest.approx(each.mean(), rel=1e-6)
    assert metrics.accuracy == pytest.approx(right.mean(), abs=1e-6 + close / 60_000) and close < 5
    ordered = jm.Split(*(field[np.argsort(-each)] for field in split))  # the largest first: the worst order to add in
    assert jax.jit(jm.evaluate, static_argnums=0)(model, params, ordered).loss == pytest.approx(each.mean(), rel=1e-6)


@pytest.mark.slow
def test_seeds_of_31_bits_are_distinct(tiny):
    seeds = [0, 1, 2**16, 2**24, 2**24 + 1, 2**30, 2**31 - 2, 2**31 - 1]
    model = jm.SoftmaxRegression(4, init_std=1.0)
    states = [jm.init_state(model, optax.sgd(0.1), seed, tiny.train.inputs) for seed in seeds]
    kernels = {np.asarray(state.params["Dense_0"]["kernel"]).tobytes() for state in states}
    keys = {np.asarray(jax.random.key_data(state.key)).tobytes() for state in states}
    orders = {jm.example_order(47, seed, 47).tobytes() for seed in seeds}
    assert len(kernels) == len(keys) == len(orders) == len(seeds)
    result = jm.sweep(
        model, optax.sgd, jm.grid(learning_rate=0.1, batch_size=4, seed=seeds), tiny, num_steps=1, progress=False
    )
    assert len(np.unique(result["validation_loss"])) == len(seeds)


def test_numpy_arrays_train_as_those_of_jax(tiny):
    order = jm.example_order(47, 0, 12 * 7)
    state = jm.init_state(MODEL, optax.sgd(0.5), 0, tiny.train.inputs)
    ours, _ = jm.fit(MODEL, optax.sgd(0.5), state, tiny.train, order.astype(np.int64), 7, num_steps=12)
    theirs, _ = fit(tiny)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert jm.evaluate(MODEL, ours.params, tiny.test) == jm.evaluate(MODEL, theirs.params, jax.device_put(tiny.test))


WIDTHS = """
import functools
import sys

import jax
import numpy as np
import optax
from conftest import make_split

import jaxmnist as jm
from jaxmnist.core.augmentation import Affine

split = make_split(47, 0)
tiny = jm.Dataset("tiny", ("a", "b", "c", "d"), split, make_split(13, 1), make_split(23, 2))
cnn = jm.CNN((2,), (3,), (1,), hidden_size=5, num_classes=4, standardised=True)
numbers = {}
batches = jm.Split(split.inputs[:6].reshape(2, 3, 6, 5, 1), split.targets[:6].reshape(2, 3))
softmax = jm.SoftmaxRegression(4, 0.1)
kinds = {"softmax": (softmax, optax.sgd(0.5, 0.9)), "cnn": (cnn, optax.adam(0.01))}
kind = sys.argv[2]
if kind in kinds:
    model, optimizer = kinds[kind]
    @jax.jit
    def run(split, order, test):
        state = jm.init_state(model, optimizer, 2, split.inputs)
        loss = functools.partial(jm.losses.cross_entropy, label_smoothing=0.1)
        more = dict(num_steps=8, augment=Affine(), loss=loss)
        state, losses = jm.fit(model, optimizer, state, split, order, 6, **more)
        trace = jm.estimate_noise(model, state.params, batches).trace
        return state.params, losses, jm.evaluate(model, state.params, test), trace

    numbers |= dict(enumerate(jax.tree.leaves(run(split, jm.example_order(47, 2, 8 * 6), tiny.test))))
if kind == "sweep":
    runs = jm.grid(learning_rate=[0.01, 0.1], batch_size=[3, 8], seed=[0, 1], label_smoothing=0.1)
    result = jm.sweep(jm.MLP(5, 4), optax.adam, runs, tiny, num_steps=8, progress=False)
    numbers |= {name: result[name].values for name in result.data_vars if name != "diverged_step"}
np.savez(sys.argv[1], **{str(name): np.asarray(value) for name, value in numbers.items()})
assert all(np.asarray(value).dtype == np.float32 for value in numbers.values())
"""


@pytest.mark.parametrize("kind", mostly_slow(("softmax", "cnn", "sweep")))
def test_64_bits_change_nothing(tmp_path, monkeypatch, kind):
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, "-c", WIDTHS, str(tmp_path / "64.npz"), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "32.npz"), kind])
    exec(WIDTHS, {})
    with np.load(tmp_path / "32.npz") as narrow, np.load(tmp_path / "64.npz") as wide:
        assert set(narrow) == set(wide)
        for name in narrow:
            np.testing.assert_array_equal(narrow[name], wide[name], err_msg=name)


def test_parameters_in_bfloat16_are_evaluated(tiny):
    class Narrow(nn.Module):
        @nn.compact
        def __call__(self, images):
            return nn.Dense(4, param_dtype=jnp.bfloat16)(images.reshape(images.shape[0], -1)).astype(jnp.float32)

    state, _ = fit(tiny, model=Narrow(), num_steps=30)
    assert jax.tree.leaves(state.params)[0].dtype == jnp.bfloat16
    logits = Narrow().apply({"params": state.params}, tiny.test.inputs / np.float32(255))
    found = jm.evaluate(Narrow(), state.params, tiny.test)
    assert found.accuracy == np.float32(np.mean(np.argmax(logits, axis=1) == tiny.test.targets)) > 0.5

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist import training

MODEL = jm.SoftmaxRegression(4)


def fit(dataset, learning_rate=0.5, batch_size=7, seed=0, num_steps=12, model=MODEL, optimizer=None, **kwargs):
    optimizer = optimizer or optax.sgd(learning_rate)
    split = jax.device_put(dataset.train)
    order = jnp.asarray(jm.example_order(len(split.labels), seed, num_steps * batch_size))
    state = jm.init_state(model, optimizer, seed, split.images)
    return jm.fit(model, optimizer, state, split, order, batch_size, num_steps=num_steps, **kwargs)


def test_step_equals_the_closed_form_of_softmax_regression(tiny):
    images, labels = tiny.train.images[:5], tiny.train.labels[:5]
    optimizer = optax.sgd(0.3)
    state = jm.init_state(MODEL, optimizer, 0, images)
    new, loss = jm.train_step(MODEL, optimizer, state, jnp.asarray(images), jnp.asarray(labels), jnp.ones(5))
    pixels = images.reshape(5, -1) / 255
    residual = (0.25 - np.eye(4)[labels]) / 5
    np.testing.assert_allclose(new.params["params"]["Dense_0"]["kernel"], -0.3 * residual.T @ pixels, atol=1e-6)
    np.testing.assert_allclose(new.params["params"]["Dense_0"]["bias"], -0.3 * residual.sum(0), atol=1e-6)
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
    images, labels = jnp.asarray(tiny.train.images[:6]), jnp.asarray(tiny.train.labels[:6])
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    optimizer = optax.sgd(1.0)
    state = jm.init_state(jm.MLP(8, 4), optimizer, 0, images)
    ours, _ = jm.train_step(jm.MLP(8, 4), optimizer, state, images, labels, weights)
    others = images.at[4:].set(255 - images[4:])
    theirs, _ = jm.train_step(jm.MLP(8, 4), optimizer, state, others, labels, weights)
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
    state = jm.init_state(MODEL, optimizer, 3, tiny.train.images)
    for images, labels in itertools.islice(jm.batches(tiny.train, 9, seed=3), 12):
        state, _ = jm.train_step(MODEL, optimizer, state, jnp.asarray(images), jnp.asarray(labels), jnp.ones(9))
    fitted, _ = fit(tiny, batch_size=9, seed=3, num_steps=12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, fitted.params)


@pytest.mark.parametrize(("loss", "expected"), [(138.0, False), (139.0, True), (np.nan, True), (np.inf, True)])
def test_diverged_is_above_100_guesses_or_not_finite(loss, expected):
    assert training.diverged(jnp.float32(loss), 4) == expected  # 100 log 4 = 138.6


def test_first_divergence_is_kept(tiny):
    state, losses = fit(tiny, learning_rate=1e6)
    expected = 1 + int(np.argmax(np.asarray(losses) > 100 * np.log(4)))
    assert state.diverged_step == expected > 1
    assert fit(tiny, learning_rate=0.5)[0].diverged_step == training.NEVER


@pytest.mark.parametrize("num_images", [23, 500, 1003])
def test_every_image_is_counted_once(num_images):
    # The model's prediction is the class in the only pixel, and the labels are right for all but three images; the last
    # one, which fills up the last batch, is right.
    labels = np.arange(num_images) % 4
    wrong = [0, num_images // 2, num_images - 2]
    images = labels.astype(np.uint8).reshape(-1, 1, 1, 1) * 60
    labels[wrong] = (labels[wrong] + 1) % 4
    kernel = jnp.array([0.0, 60, 120, 180])[:, None] / 255
    params = {"params": {"Dense_0": {"kernel": 2 * kernel, "bias": -(kernel[:, 0] ** 2)}}}
    split = jm.Split(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    metrics = jm.evaluate(MODEL, params, split)
    assert metrics.accuracy == np.float32((num_images - 3) / num_images)
    logits = np.asarray(MODEL.apply(params, images.astype(np.float32) / 255), np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(num_images), labels]
    np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-5)


def test_accuracy_of_what_is_not_finite_is_nan(tiny):
    params = MODEL.init(jax.random.key(0), jnp.ones((1, 6, 5, 1)))
    params = jax.tree.map(lambda leaf: leaf + jnp.nan, params)
    assert np.isnan(jm.evaluate(MODEL, params, jax.device_put(tiny.test)).accuracy)


def test_dropout_differs_by_step_and_seed_and_repeats(tiny):
    model, optimizer = jm.CNN((2,), (5,), (1,), hidden_size=16, num_classes=4), optax.sgd(0.0)
    images, labels = jnp.asarray(tiny.train.images[:5]), jnp.asarray(tiny.train.labels[:5])

    def losses(seed):
        # The same parameters for both seeds, and a learning rate of 0: only what is dropped differs.
        state = jm.init_state(model, optimizer, seed, images)
        state = state._replace(params=jm.init_state(model, optimizer, 0, images).params)
        taken = []
        for _ in range(3):
            state, loss = jm.train_step(model, optimizer, state, images, labels, jnp.ones(5))
            taken.append(float(loss))
        return taken

    assert len(set(losses(0) + losses(1))) == 6 and losses(0) == losses(0)


def test_augmentation_differs_by_step_and_seed_and_leaves_evaluation_alone(tiny):
    model, optimizer = jm.MLP(8, num_classes=4), optax.sgd(0.0)
    images, labels = jnp.asarray(tiny.train.images[:5]), jnp.asarray(tiny.train.labels[:5])
    state = jm.init_state(model, optimizer, 0, images)
    step = functools.partial(jm.train_step, model, optimizer, weights=jnp.ones(5), images=images, labels=labels)
    next_state, first = step(state, augment=jm.Affine())
    _, second = step(next_state, augment=jm.Affine())
    _, other_seed = step(state._replace(key=jax.random.key(7)), augment=jm.Affine())
    assert len({float(loss) for loss in (first, second, other_seed, step(state)[1])}) == 4
    assert step(state, augment=jm.Affine(0, 0, 0))[1] == pytest.approx(float(step(state)[1]), rel=1e-5)

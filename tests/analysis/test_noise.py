import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.analysis import noise
from jaxmnist.core import training
from jaxmnist.core.adapters.factory import model_factory

MODEL = jm.SoftmaxRegression(4)


def test_estimates_are_those_of_the_examples_own_gradients(tiny):
    """Over all ways to make the batches, the estimates are the moments of the single gradients."""
    images, labels = tiny.train.inputs[:24], tiny.train.targets[:24]
    params = jm.init_state(jm.MLP(5, 4), optax.sgd(0.1), 0, images).params
    model = jm.MLP(5, 4)

    def gradient(image, label):
        def loss(params):
            return -jax.nn.log_softmax(training.predict(model_factory(model)(), params, {}, image[None]))[0, label]

        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(loss)(params))])

    each = np.asarray(jax.jit(jax.vmap(gradient))(images, labels), np.float64)
    # Over 24 examples: the unbiased variance, and the squared norm of the mean less what the variance adds to it.
    trace = each.var(axis=0, ddof=1).sum()
    squared_norm = (each.mean(axis=0) ** 2).sum() - trace / 24
    estimate = jax.jit(noise.estimate_noise, static_argnums=0)
    generator = np.random.default_rng(0)
    estimates = []
    for _ in range(300):
        order = generator.permutation(24)
        batches = jm.Split(images[order].reshape(6, 4, *images.shape[1:]), labels[order].reshape(6, 4))
        estimates.append([float(value) for value in estimate(model, params, batches)])
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0) / 300**0.5
    assert abs(mean[0] - trace) < 4 * error[0] and error[0] < 0.05 * trace
    assert abs(mean[1] - squared_norm) < 4 * error[1] + 1e-5


class Shift(nn.Module):
    """Logits of two classes, whose only parameter is their difference."""

    @nn.compact
    def __call__(self, images):
        shift = self.param("shift", nn.initializers.zeros, (1,))
        return jnp.stack([jnp.zeros(images.shape[0]), jnp.broadcast_to(shift, images.shape[:1])], axis=1)


def test_a_planted_noise_scale_is_found():
    # At shift 0 an example's gradient is 1/2 or -1/2 by its class: variance q (1 - q) and mean q - 1/2 for a share q.
    labels = (np.arange(40_000) % 10 < 4).astype(np.int32)
    labels = np.random.default_rng(0).permutation(labels).reshape(400, 100)
    batches = jm.Split(np.zeros((400, 100, 1, 1, 1), np.uint8), labels)
    trace, squared_norm = noise.estimate_noise(Shift(), {"shift": jnp.zeros(1)}, batches)
    assert trace / squared_norm == pytest.approx(0.4 * 0.6 / 0.1**2, rel=0.1)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, inputs, train: bool = False):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=not train)(inputs))


def twice_squared_error(outputs, targets):
    return 2 * jm.losses.squared_error(outputs, targets)


@pytest.mark.parametrize("model", [nn.Dense(1), Normalised()])
def test_it_is_measured_with_any_loss(model):
    inputs = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    data = jm.from_arrays(inputs, inputs @ np.arange(3.0, dtype=np.float32))
    given = dict(batch_size=8, seed=0, steps=[0, 4])
    squared = noise.noise_scale_along_training(model, optax.sgd(0.05), data, loss=jm.losses.squared_error, **given)
    doubled = noise.noise_scale_along_training(
        model,
        optax.sgd(0.025),
        data,
        loss=lambda outputs, targets: 2 * jm.losses.squared_error(outputs, targets),
        **given,
    )
    assert (squared["trace"] > 0).all()
    np.testing.assert_allclose(doubled["trace"], 4 * squared["trace"], rtol=1e-3)
    with pytest.raises(ValueError, match="targets"):
        noise.noise_scale_along_training(model, optax.sgd(0.05), data, **given)


def test_it_is_measured_along_one_run(tiny):
    table = noise.noise_scale_along_training(MODEL, optax.sgd(0.5), tiny, batch_size=5, seed=1, steps=[0, 3, 8])
    assert table["step"].tolist() == [0, 3, 8] and (table["trace"] > 0).all()
    state = jm.init_state(MODEL, optax.sgd(0.5), 1, tiny.train.inputs)
    order = jnp.asarray(jm.example_order(47, 1, 40))
    state, _ = jm.fit(MODEL, optax.sgd(0.5), state, jax.device_put(tiny.train), order, 5, num_steps=8)
    batches = jm.Split(*(field[:46].reshape(2, 23, *field.shape[1:]) for field in tiny.train))
    trace, squared_norm = noise.estimate_noise(MODEL, state.params, batches)
    np.testing.assert_allclose(table[["trace", "squared_norm"]].values[2], [trace, squared_norm], rtol=1e-3)

import dataclasses
import functools
import importlib.metadata
import itertools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import run_on_devices

import jaxmnist as jm
from jaxmnist.sweeps import job as jobs
from jaxmnist.sweeps import trials
from jaxmnist.sweeps.configure import make_setup

MLP = jm.MLP(6, 4)


def static(tiny, optimizer, model=MLP, **axes):
    return jm.check(model, optimizer, jm.grid(**axes, batch_size=4, seed=0), tiny, 10).static


def decayed(learning_rate, decay_steps):
    return optax.sgd(optax.cosine_decay_schedule(learning_rate, decay_steps))


@pytest.mark.parametrize(
    ("optimizer", "axes", "expected"),
    [
        (optax.sgd, dict(learning_rate=0.1, momentum=0.9), ()),
        (optax.sgd, dict(learning_rate=0.1, momentum=0.9, nesterov=[False, True]), ("nesterov",)),
        (optax.sgd, dict(learning_rate=0.1, hidden_size=[4, 8], init_scale=[0.5, 1]), ("hidden_size",)),
        (optax.adamw, dict(learning_rate=0.1, b1=0.9, eps=1e-8, weight_decay=0.1, label_smoothing=0.1), ()),
        (decayed, dict(learning_rate=0.1, decay_steps=[5, 10]), ("decay_steps",)),
    ],
)
def test_numbers_are_traced_where_they_can_be(tiny, optimizer, axes, expected):
    assert static(tiny, optimizer, **axes) == expected


def test_fields_of_the_cnn(tiny):
    axes = dict(learning_rate=0.1, dropout_rate=[0.0, 0.5], init_std=0.1, init_bias=0.0, standardised=[False, True])
    assert static(tiny, optax.sgd, jm.CNN((2,), (3,), (1,), 4, num_classes=4), **axes) == ("standardised",)


@pytest.mark.parametrize("axes", [dict(hidden_size=-3), dict(nesterov="maybe"), dict(hidden_size=2.5)])
def test_values_that_cannot_be_are_one_sentence(tiny, axes):
    def pedantic(learning_rate, nesterov=False):
        return {False: optax.sgd, True: functools.partial(optax.sgd, nesterov=True)}[nesterov](learning_rate)

    (name,) = axes
    with pytest.raises(ValueError, match=f"model MLP and optimizer pedantic cannot be built with .*{name}=") as caught:
        static(tiny, pedantic, learning_rate=0.1, **axes)
    assert "\n" not in str(caught.value)


def test_static_values_are_the_combinations_that_occur():
    arrays = dict(a=np.array([1, 2, 1, 2]), b=np.array(["x", "y", "x", "x"]), c=np.arange(4.0))
    assert trials.static_values(arrays, ("a", "b")) == [
        (("a", 1), ("b", "x")), (("a", 2), ("b", "y")), (("a", 2), ("b", "x")),
    ]  # fmt: skip
    assert trials.static_values(arrays, ()) == [()]


def scheduled(learning_rate, schedule):
    if schedule == "cosine":
        return optax.sgd(optax.warmup_cosine_decay_schedule(0.0, learning_rate, 2, 10))
    return optax.sgd(learning_rate)


def warmed(learning_rate, num_warmup):
    return scheduled(learning_rate, "cosine" if num_warmup else "constant")


def flagged(learning_rate, cosine):
    return scheduled(learning_rate, "cosine" if cosine else "constant")


@pytest.mark.parametrize(
    ("optimizer", "name", "values"),
    [
        pytest.param(scheduled, "schedule", ["constant", "cosine", "linear"], marks=pytest.mark.slow),
        pytest.param(flagged, "cosine", [False, True], marks=pytest.mark.slow),
        (warmed, "num_warmup", [0, 2, 5]),
    ],
)
def test_what_is_static_does_not_depend_on_the_order_of_values(tiny, optimizer, name, values):
    for order in itertools.permutations(values):
        for axes in ({name: order, "learning_rate": [0.1, 0.2]}, {"learning_rate": [0.2, 0.1], name: order}):
            assert set(static(tiny, optimizer, **axes)) == {name, "learning_rate"}
        # Where no value needs it, the learning rate stays traced.
        assert static(tiny, optimizer, **{name: order[:1]}, learning_rate=0.1) in ((name,), (name, "learning_rate"))
    assert static(tiny, optimizer, **{name: values[:1]}, learning_rate=[0.1, 0.2]) == (name,)


def described(dataset, optimizer=optax.sgd, model=MLP, **axes):
    runs = jm.grid(**{"learning_rate": 0.1, "batch_size": 4, "seed": 0} | axes)
    return jobs.describe(jobs.make_job(make_setup(model, optimizer), runs, dataset, 10))


@pytest.mark.slow
def test_a_description_is_the_same_in_every_process_and_differs_where_it_should(tiny):
    partial = functools.partial(optax.sgd, momentum=0.9)
    assert described(tiny, partial)["optimizer"] == "sgd(momentum=0.9)"
    assert described(tiny) == described(tiny)
    assert described(tiny)["runs"] != described(tiny, learning_rate=0.2)["runs"]
    assert described(tiny)["model"] != described(tiny, model=jm.MLP(7, 4))["model"]
    assert all(f"{name}==" in described(tiny)["versions"] for name in ("jax", "flax", "optax", "jaxmnist", "python"))
    program = (
        "import optax\nfrom conftest import make_tiny\nimport jaxmnist as jm\n"
        "from test_job import described\n"
        "print(described(make_tiny(), optax.adamw, jm.CNN((2,), (3,), (1,), 4, num_classes=4))['computation_sha256'])"
    )
    cnn = jm.CNN((2,), (3,), (1,), 4, num_classes=4)
    assert run_on_devices(1, program).strip() == described(tiny, optax.adamw, cnn)["computation_sha256"]


def test_a_checkout_that_is_not_installed_has_an_unknown_version(tiny, monkeypatch):
    known = importlib.metadata.version

    def version(name):
        if name == "jaxmnist":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    jobs._versions.cache_clear()
    versions = described(tiny)["versions"].split()
    jobs._versions.cache_clear()
    assert "jaxmnist==unknown" in versions and f"jax=={known('jax')}" in versions


def test_a_description_covers_what_is_computed_not_its_names(tiny):
    def computation(**given):
        return described(tiny, **given)["computation_sha256"]

    def named_otherwise(learning_rate):
        return optax.sgd(learning_rate)

    def with_default(learning_rate, momentum=0.5):
        return optax.sgd(learning_rate, momentum)

    tables = [np.array([1.0, 2.0], np.float32), np.array([1.0, 3.0], np.float32)]

    def with_constant(table):
        return lambda learning_rate: optax.sgd(lambda step: learning_rate * jnp.asarray(table)[step % 2])

    class Activated(nn.Module):
        act: Callable = nn.relu

        @nn.compact
        def __call__(self, images):
            return nn.Dense(4)(self.act(images.reshape(images.shape[0], -1)))

    class Initialised(nn.Module):
        scale: float = 1.0

        @nn.compact
        def __call__(self, images):
            init = nn.initializers.constant(self.scale)
            return nn.Dense(4, bias_init=init)(images.reshape(images.shape[0], -1))

    assert computation() == computation(optimizer=named_otherwise)
    assert computation() == computation(optimizer=lambda **axes: optax.sgd(**axes))
    different = [
        computation(),
        computation(optimizer=optax.adam),
        computation(optimizer=lambda learning_rate: optax.sgd(2 * learning_rate)),
        computation(optimizer=with_default),
        computation(optimizer=functools.partial(with_default, momentum=0.6)),
        *(computation(optimizer=with_constant(table)) for table in tables),
        *(computation(model=Activated(act)) for act in (nn.relu, nn.gelu, jnp.sin)),
        *(computation(model=Initialised(scale)) for scale in (1.0, 2.0)),
        computation(label_smoothing=0.1),
        computation(nesterov=[False, True], momentum=0.9),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_description_covers_the_images_of_every_split(tiny, split):
    images, labels = getattr(tiny, split)
    altered = images.copy()
    altered[-1, -1, -1] ^= 1
    other = described(dataclasses.replace(tiny, **{split: jm.Split(altered, labels)}))
    assert {name for name, value in described(tiny).items() if other[name] != value} == {"inputs_crc32"}


@pytest.mark.parametrize(("split", "label"), [("train", 4), ("validation", -1), ("test", 255)])
def test_labels_without_a_class_are_named(tiny, split, label):
    images, labels = getattr(tiny, split)
    wrong = np.where(np.arange(len(labels)) == 5, label, labels)
    dataset = dataclasses.replace(tiny, **{split: jm.Split(images, wrong)})
    with pytest.raises(ValueError, match=rf"dataset\.{split}\.targets .* its values .*{label}.* in \[0, 4\)"):
        jm.check(MLP, optax.sgd, jm.grid(learning_rate=0.1, batch_size=4, seed=0), dataset, 10)

import dataclasses
import functools

import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist import checking

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
    assert checking.static_values(arrays, ("a", "b")) == [
        (("a", 1), ("b", "x")), (("a", 2), ("b", "y")), (("a", 2), ("b", "x")),
    ]  # fmt: skip
    assert checking.static_values(arrays, ()) == [()]


def test_a_description_is_the_same_in_every_process_and_differs_where_it_should(tiny):
    def described(optimizer=optax.sgd, model=MLP, **axes):
        runs = jm.grid(**{"learning_rate": 0.1, "batch_size": 4, "seed": 0} | axes)
        return checking.describe(checking.Job(model, optimizer, runs, 10, 1, ()), tiny)

    partial = functools.partial(optax.sgd, momentum=0.9)
    assert described(partial)["optimizer"] == "sgd(momentum=0.9)"
    assert described() == described()
    assert described()["runs"] != described(learning_rate=0.2)["runs"]
    assert described()["model"] != described(model=jm.MLP(7, 4))["model"]
    assert all(f"{name}==" in described()["versions"] for name in ("jax", "flax", "optax", "jaxmnist", "python"))


@pytest.mark.parametrize(("split", "label"), [("train", 4), ("validation", -1), ("test", 255)])
def test_labels_without_a_class_are_named(tiny, split, label):
    images, labels = getattr(tiny, split)
    wrong = np.where(np.arange(len(labels)) == 5, label, labels)
    dataset = dataclasses.replace(tiny, **{split: jm.Split(images, wrong)})
    with pytest.raises(ValueError, match=rf"dataset\.{split}\.labels .* its values .*{label}.* in \[0, 4\)"):
        jm.check(MLP, optax.sgd, jm.grid(learning_rate=0.1, batch_size=4, seed=0), dataset, 10)

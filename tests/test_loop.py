import jax
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist import loop

MODEL = jm.CNN((2, 3), (3, 3), (1,), hidden_size=8, num_classes=4)
NUMBERS = dict(batch_size=5, num_steps=37, evaluation_steps=15, augment=jm.Affine(5, 0.1, 1))


class InterruptionError(Exception):
    pass


def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_PER_CHECKPOINT", 0.0)
    whole, rows = loop.train_run(MODEL, optax.adam(0.01), tiny, 3, **NUMBERS, folder=tmp_path / "whole")
    assert [row["step"] for row in rows] == [0, 15, 30, 37]

    def interrupt(at):
        def report(step, rows, loss):
            if step == at:
                raise InterruptionError

        return report

    for at in (0, 10, 15, 30):
        with pytest.raises(InterruptionError):
            loop.train_run(
                MODEL, optax.adam(0.01), tiny, 3, **NUMBERS, folder=tmp_path / "parts", report=interrupt(at)
            )  # fmt: skip
    steps = []
    parts, resumed_rows = loop.train_run(
        MODEL, optax.adam(0.01), tiny, 3, **NUMBERS, folder=tmp_path / "parts",
        report=lambda step, rows, loss: steps.append(step),
    )  # fmt: skip
    assert 0 not in steps and steps[-1] == 37
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    for row, resumed in zip(rows, resumed_rows, strict=True):
        assert {**row, "seconds": 0} == {**resumed, "seconds": 0}


def test_a_finished_run_is_not_trained_again(tiny, tmp_path):
    first, rows = loop.train_run(MODEL, optax.adam(0.01), tiny, 0, **NUMBERS, folder=tmp_path)
    steps = []
    second, again = loop.train_run(
        MODEL, optax.adam(0.01), tiny, 0, **NUMBERS, folder=tmp_path, report=lambda step, rows, loss: steps.append(step)
    )
    assert steps == [37] and again == rows
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_it_trains_as_fit_does(tiny, tmp_path):
    params, _ = loop.train_run(MODEL, optax.sgd(0.1), tiny, 1, **NUMBERS, folder=tmp_path)
    state = jm.init_state(MODEL, optax.sgd(0.1), 1, tiny.train.images)
    order = jax.numpy.asarray(jm.example_order(len(tiny.train.labels), 1, 37 * 5))
    state, _ = jm.fit(
        MODEL, optax.sgd(0.1), state, jax.device_put(tiny.train), order, 5, num_steps=37, augment=NUMBERS["augment"]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), params, state.params)

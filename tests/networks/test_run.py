import dataclasses

import jax
import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.host import loop as host_loop
from jaxmnist.networks import run

MODEL = jm.CNN((3,), (3,), (1,), hidden_size=8, num_classes=4)
# One object each: for another one, the same program would be traced and compiled again.
# Moments of a type that numpy does not have are saved as others.
ADAM, SGD = optax.adam(0.01, mu_dtype=jax.numpy.bfloat16), optax.sgd(0.1)
NUMBERS = dict(batch_size=5, num_steps=35, evaluation_steps=15, augment=jm.Affine(5, 0.1, 1))


class InterruptionError(Exception):
    pass


def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    whole, rows = run.train_run(MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path / "whole")
    assert [row["step"] for row in rows] == [0, 15, 30, 35]

    def interrupt(at):
        def report(step, rows, loss):
            if step == at:
                raise InterruptionError

        return report

    for at in (0, 10, 15, 30):
        with pytest.raises(InterruptionError):
            run.train_run(
                MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path / "parts", report=interrupt(at)
            )  # fmt: skip
    steps = []
    parts, resumed_rows = run.train_run(
        MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path / "parts",
        report=lambda step, rows, loss: steps.append(step),
    )  # fmt: skip
    assert 0 not in steps and steps[-1] == 35
    for field in ("params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, field), getattr(parts, field))
    for row, resumed in zip(rows, resumed_rows, strict=True):
        assert {**row, "seconds": 0} == {**resumed, "seconds": 0}


def test_a_finished_run_is_not_trained_again(tiny, tmp_path):
    first, rows = run.train_run(MODEL, ADAM, tiny, 0, **NUMBERS, folder=tmp_path)
    steps = []
    second, again = run.train_run(
        MODEL, ADAM, tiny, 0, **NUMBERS, folder=str(tmp_path), report=lambda step, rows, loss: steps.append(step)
    )
    assert steps == [35] and again == rows
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(optimizer=optax.sgd(0.01)), "computation.* differs"),
        pytest.param(dict(optimizer=optax.adam(0.02)), "computation.* differs", marks=pytest.mark.slow),
        pytest.param(dict(augment=jm.Affine(6, 0.1, 1)), "computation.* differs", marks=pytest.mark.slow),
        pytest.param(
            dict(model=jm.CNN((3,), (3,), (), hidden_size=8, num_classes=4)),
            "computation.* differs",
            marks=pytest.mark.slow,
        ),
        (dict(split="train"), "inputs differ"),
        pytest.param(dict(split="validation"), "inputs differ", marks=pytest.mark.slow),
        (dict(seed=1), "seed is 0, not 1"),
        pytest.param(dict(batch_size=6), "batch_size is 5, not 6", marks=pytest.mark.slow),
    ],
)
def test_another_run_does_not_go_on_from_a_state(tiny, tmp_path, given, words):
    def train(model=MODEL, optimizer=None, seed=0, split=None, **changed):
        dataset = tiny
        if split is not None:
            altered = getattr(tiny, split).inputs.copy()
            altered[0, 0, 0] ^= 1
            dataset = dataclasses.replace(tiny, **{split: getattr(tiny, split)._replace(inputs=altered)})
        numbers = {**NUMBERS, "num_steps": 3} | changed
        run.train_run(model, optimizer or ADAM, dataset, seed, **numbers, folder=tmp_path)

    train()
    with pytest.raises(ValueError, match=f"the training in .* is another one: its {words}"):
        train(**given)


def test_it_trains_as_fit_does(tiny, tmp_path):
    trained, _ = run.train_run(MODEL, SGD, tiny, 1, **NUMBERS, folder=tmp_path)
    state = jm.init_state(MODEL, SGD, 1, tiny.train.inputs)
    order = jax.numpy.asarray(jm.example_order(len(tiny.train.targets), 1, 35 * 5))
    state, _ = jm.fit(MODEL, SGD, state, jax.device_put(tiny.train), order, 5, num_steps=35, augment=NUMBERS["augment"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), trained.params, state.params)


def damage(path):
    """Cuts a saved state to half its length."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("damaged", "first_step"), [((35,), 30), ((35, 30), 0)])
def test_a_damaged_state_is_named_and_the_one_before_is_used(tiny, tmp_path, monkeypatch, damaged, first_step):
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    whole, rows = run.train_run(MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path)
    for step in damaged:
        damage(tmp_path / f"{step}.npz")
    steps, sentences = [], []
    for _ in range(2):
        again, resumed_rows = run.train_run(
            MODEL, ADAM, tiny, 3, **NUMBERS, folder=tmp_path,
            report=lambda step, rows, loss: steps.append(step), warn=sentences.append,
        )  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
    assert steps[0] == first_step and steps[-2:] == [35, 35]  # the second time, nothing was left to do
    assert all(f"step {step} in" in sentence for step, sentence in zip(damaged, sentences, strict=False))
    assert len(sentences) == len(damaged) + (first_step == 0) and (first_step or "starts again" in sentences[-1])
    assert [row["validation_loss"] for row in rows] == [row["validation_loss"] for row in resumed_rows]


@pytest.mark.slow
def test_the_first_diverged_step_is_carried_out(tiny, tmp_path):
    state, rows = run.train_run(MODEL, optax.sgd(1e12), tiny, 0, **NUMBERS, folder=tmp_path)
    assert 1 < state.diverged_step < 35 and np.isnan(rows[-1]["validation_accuracy"])


def test_boundaries_are_few_at_a_time_and_the_same_from_each_of_them():
    steps = list(run.boundaries(0, 47, 15))
    assert steps == [0, 10, 15, 20, 30, 40, 45, 47]
    for index, first in enumerate(steps):
        assert list(run.boundaries(first, 47, 15)) == steps[index:]
    assert list(run.boundaries(2**31 - 8, 2**31 - 1, 2**31 - 3)) == [2**31 - 8, 2**31 - 3, 2**31 - 1]

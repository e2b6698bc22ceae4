"""What a process on a node of a cluster does: it receives a job, trains a program and replies."""

import pickle
import sys
import threading
from types import SimpleNamespace

import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.sweeps import programs, worker
from jaxmnist.sweeps import sweep as sweep_room
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job

MODEL = jm.SoftmaxRegression(4)
LOCK = threading.Lock()


def makes_a_model(init_std=None):
    """A factory that reads what cannot be pickled."""
    with LOCK:
        return jm.SoftmaxRegression(4, init_std)


def reads_a_lock(outputs, targets):
    """A metric; a lock cannot be pickled."""
    with LOCK:
        return jm.losses.cross_entropy(outputs, targets)


def test_versions_that_decide_numbers_are_compared():
    here = worker.versions()
    assert {"python", "jax", "numpy", "flax", "optax"} <= set(here)
    assert worker.difference(here, here) == ""
    changed = here | {"jax": "0.1", "numpy": "1.0"}
    sentence = worker.difference(changed, here)
    assert sentence.startswith(f"it has jax 0.1, numpy 1.0, and the driver jax {here['jax']}, numpy {here['numpy']}")
    # A checkout has no version.
    assert worker.difference({"jax": here["jax"]}, {"jax": here["jax"], "jaxmnist": "0.1.0"}) == ""


def fake_ray(monkeypatch, objects):
    """Puts a module in the place of Ray that unpickles objects, and counts how often."""
    received, context = [], SimpleNamespace(get_node_id=lambda: "here")

    def get(reference):
        received.append(reference)
        return pickle.loads(objects[reference])

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=get, get_runtime_context=lambda: context))
    worker.receive.cache_clear()
    return received


class Board(worker.make_board()):
    """The board as an actor of this process."""

    def __init__(self):
        super().__init__()
        self.tell = SimpleNamespace(remote=super().tell)


def test_a_process_receives_a_job_once_and_compiles_it_once(tiny, monkeypatch):
    cloudpickle = pytest.importorskip("cloudpickle")
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 4 * 1100)
    runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=3, seed=range(12))
    job = make_job(make_setup(MODEL, lambda learning_rate: optax.sgd(learning_rate)), runs, tiny, num_steps=3)
    planned = sweep_room.plan(job, 2**30)
    assert len(planned) > 2
    # A function that is sent by value is another one each time it is received.
    received = fake_ray(monkeypatch, {"job": cloudpickle.dumps(job)})
    shared = ["job"], Board(), 1, worker.versions()
    programs.advance.clear_cache()
    for index, program in enumerate(planned):
        place, outcome, problem = worker.make_task()(shared, index, tuple(program))
        assert (place, problem) == ("here", "") and np.isfinite(outcome["validation_loss"]).all()
    assert received == ["job"]
    shapes = {(program.rows.shape, program.padded_batch_sizes, program.at_once) for program in planned}
    assert programs.advance._cache_size() == len(shapes) < len(planned)
    assert shared[1].read() == {index: ("here", 0) for index in range(len(planned))} and shared[1].read() == {}


def test_what_goes_wrong_on_a_node_is_a_reply(monkeypatch):
    fake_ray(monkeypatch, {"job": b""})
    shared = ["job"], Board(), 1, worker.versions()
    place, outcome, problem = worker.make_task()(shared, 0, ())
    assert (place, outcome) == ("here", None) and problem.startswith("EOFError: ")
    *_, problem = worker.make_task()((*shared[:3], worker.versions() | {"jax": "0.0"}), 0, ())
    assert "and the driver jax 0.0: install the same versions on both" in problem
    monkeypatch.setitem(sys.modules, "jaxmnist", None)
    monkeypatch.delitem(sys.modules, "jaxmnist.sweeps.worker")
    *_, problem = worker.make_task()(shared, 0, ())
    assert "jaxmnist" in problem


def test_a_job_reaches_another_process_whatever_its_functions_read(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0)
    for model in (MODEL, makes_a_model):
        setup = make_setup(model, optax.sgd, metrics={"error": reads_a_lock})
        job = make_job(setup, runs, tiny, num_steps=1)
        assert pickle.loads(pickle.dumps(job)).setup.model == job.setup.model

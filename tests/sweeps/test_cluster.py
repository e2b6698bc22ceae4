import importlib.util
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import optax
import pytest
import xarray as xr

import jaxmnist as jm
from jaxmnist.sweeps import cluster
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


def workers() -> list[int]:
    """Returns the processes of this machine that run a task of ours."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_train"):
            found.append(int(folder.name))
    return found


def test_without_ray_a_sentence_says_what_to_install(tiny, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "ray" else real(name, *args))
    with pytest.raises(ValueError, match=r"ray is not installed; install it by pip install 'jaxmnist\[distributed\]'"):
        cluster.check_installed()
    with pytest.raises(ValueError, match="ray is not installed"):
        jm.sweep(MODEL, optax.sgd, jm.grid(learning_rate=0.1, batch_size=3, seed=0), tiny, num_steps=1, cluster="local")


def node(alive=True, **resources):
    """Returns what Ray says of a node, with what every node has besides its devices."""
    return {"Alive": alive, "Resources": {"memory": 1e9, "node:127.0.0.1": 1.0, **resources}}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node(CPU=2.0)], (2, 0)),
        ([node(CPU=4.0, GPU=1.0)] * 3, (4, 1)),
        ([node(), node(CPU=1.0), node(CPU=3.0)], (1, 0)),
        ([node(CPU=0.0), node(CPU=3.0), node(CPU=1.0)], (1, 0)),
        ([node(CPU=64.0), node(CPU=8.0, GPU=4.0), node(CPU=16.0, GPU=2.0)], (16, 2)),
        ([node(CPU=8.0, GPU=1.0), node(CPU=4.0, GPU=1.0), node(CPU=2.0)], (4, 1)),
        ([node(GPU=1.0), node(CPU=2.0)], (0, 1)),
        ([node(alive=False, CPU=1.0), node(CPU=3.0)], (3, 0)),
        ([node(alive=False, CPU=8.0, GPU=1.0), node(CPU=3.0)], (3, 0)),
        ([{"Alive": False, "Resources": {}}, node(CPU=3.0)], (3, 0)),
        ([node(TPU=4.0, labelled=1.0), node(CPU=5.0, labelled=2.0)], (5, 0)),
    ],
)
def test_a_task_asks_for_the_devices_of_one_node(nodes, expected):
    for order in (nodes, nodes[::-1]):
        assert cluster.task_resources(order) == expected
    devices = [(each["Resources"].get("CPU", 0), each["Resources"].get("GPU", 0)) for each in nodes if each["Alive"]]
    assert expected in devices


@pytest.mark.parametrize("nodes", [[], [node()], [node(CPU=0.0, GPU=0.0), node(alive=False, CPU=4.0)]])
def test_a_cluster_without_devices_is_one_sentence(nodes):
    with pytest.raises(ValueError, match="cluster has no CPU and no GPU"):
        cluster.task_resources(nodes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_cluster_gives_the_same_numbers_even_where_a_worker_is_killed(tiny, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 4 * 1100)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=[3, 40], seed=range(8))
    arguments = dict(num_steps=10_000, progress=False)
    expected = jm.sweep(MODEL, optax.sgd, runs, tiny, **arguments)
    killed = []

    def kill_one():
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for process in workers():
                time.sleep(0.2)  # in the middle of its work, not at its start
                if process in workers():
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = jm.sweep(MODEL, optax.sgd, runs, tiny, **arguments, cluster="local", folder=tmp_path)
    killer.join()
    assert killed
    xr.testing.assert_equal(result, expected)
    assert not (tmp_path / "progress").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_out_of_reach_is_one_sentence(tiny):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=r"cluster '127\.0\.0\.1:1' cannot be reached"):
        jm.sweep(
            MODEL, optax.sgd, jm.grid(learning_rate=0.1, batch_size=3, seed=0), tiny, num_steps=1, cluster="127.0.0.1:1"
        )


def test_a_job_reaches_another_process_whatever_its_functions_read(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0)
    for model in (MODEL, makes_a_model):
        setup = make_setup(model, optax.sgd, metrics={"error": reads_a_lock})
        job = make_job(setup, runs, tiny, num_steps=1)
        assert pickle.loads(pickle.dumps(job)).setup.model == job.setup.model

"""Clusters of Ray on this machine: uneven nodes, nodes and heads that are lost, and drivers that are killed."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import optax
import pytest
import ray_driver
import xarray as xr
from ray_for_tests import PATH, local_cluster

import jaxmnist as jm

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own
pytest.importorskip("ray")

MODEL = jm.SoftmaxRegression(4)
# Hides this package from a node, unless Ray has sent it.
HIDING = """
import sys
from importlib.machinery import PathFinder

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name != "jaxmnist":
            return None
        found = PathFinder.find_spec(name, [place for place in sys.path if "py_modules" in place])
        if found is None:
            raise ModuleNotFoundError("No module named 'jaxmnist'", name=name)
        return found

sys.meta_path.insert(0, Hidden())
"""


def workers() -> list[int]:
    """Returns the processes of this machine that run a task of ours."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::train"):
            found.append(int(folder.name))
    return found


def wait_for(process, words: str) -> list[str]:
    """Returns the lines that a driver prints, up to the first one that begins with these words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(words):
            return lines
    pytest.fail(f"{words!r} was not printed, but {lines} and {process.stderr.read()[-3000:]}")


def assert_close_to_a_sweep_here(folder: Path, tmp_path: Path) -> None:
    """Compares a result with that of this process, which has other devices."""
    expected = ray_driver.sweep(tmp_path)
    xr.testing.assert_allclose(jm.load_results(folder), expected, rtol=1e-4, atol=1e-6)
    assert not (folder / "progress").exists()


def test_uneven_nodes_train_beside_each_other_even_where_one_is_lost(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    with local_cluster() as cluster:
        cluster.add("small", 1)
        cluster.add("large", 3, 1)
        with cluster.driver(folder) as driver:
            lines = wait_for(driver, "programs running: 2, on 2 of 2 nodes")
            assert "small (1)" in lines[-1] and "large (1)" in lines[-1]
            cluster.kill("large")
            output, errors = driver.communicate(timeout=200)
    lines += output.splitlines(keepends=True)
    assert driver.returncode == 0, errors
    asked = Counter(line for line in lines if line.startswith("asked"))
    assert asked.keys() == {"asked {'CPU': 3.0, 'GPU': 1.0}\n", "asked {'CPU': 1.0}\n"}
    # A process trains several programs, but receives the job once.
    received = (folder / ray_driver.RECEIVED).read_text().split()
    assert len(received) == len(set(received)) < asked.total()
    assert_close_to_a_sweep_here(folder, tmp_path)


def test_a_killed_driver_resumes_on_another_cluster_and_nodes_may_lack_this_package(tmp_path):
    folder, hiding = tmp_path / "sweep", tmp_path / "hiding"
    folder.mkdir()
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(HIDING)
    with local_cluster(os.pathsep.join((str(hiding), PATH))) as cluster:
        cluster.add("only", 1)
        with cluster.driver(folder) as driver:
            lines = wait_for(driver, "saved")
            driver.kill()
        # What was refused is given again, with the package.
        assert lines.count("asked {'CPU': 1.0}\n") == 2 * 8
        assert list((folder / "progress").glob("0*.npz"))
        with cluster.driver(folder, "local") as driver:
            output, errors = driver.communicate(timeout=200)
    assert driver.returncode == 0, errors
    assert 0 < output.count("asked") < 8
    assert_close_to_a_sweep_here(folder, tmp_path)


def test_a_lost_head_is_one_sentence_and_the_same_call_resumes(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    with local_cluster() as cluster:
        cluster.add("only", 1)
        with cluster.driver(folder) as driver:
            wait_for(driver, "saved")
            cluster.kill("head")
            _, errors = driver.communicate(timeout=100)
        assert driver.returncode == 1
        last = errors.strip().splitlines()[-1]
        assert f"ClusterError: cluster '{cluster.address}' was lost, its head cannot be reached" in last
    assert list((folder / "progress").glob("0*.npz"))
    ray_driver.sweep(folder, folder=folder)
    assert_close_to_a_sweep_here(folder, tmp_path)


def test_a_cluster_gives_the_same_numbers_even_where_a_worker_is_killed(tiny, tmp_path, monkeypatch):
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


def test_a_cluster_out_of_reach_is_one_sentence(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0)
    with pytest.raises(ValueError, match=r"cluster '127\.0\.0\.1:1' cannot be reached"):
        jm.sweep(MODEL, optax.sgd, runs, tiny, num_steps=1, cluster="127.0.0.1:1")

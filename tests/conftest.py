"""What all tests share: strict numerics, and a data set small enough to sweep in a blink."""

import gc
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# jax reads these variables when it is imported; workers and the scripts that tests start inherit them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What one of them has compiled, the others find.
    _COMPILED = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # Fast tests compile longer than they compute. `.ci/run` runs them optimized too; slow tests are always optimized,
    # and so is what they start, which knows by this variable alone.
    flags = ""
    if "slow" not in "".join(sys.argv).replace("not slow", ""):
        # XLA's older emitters of fused operations take half the time of its newer ones to compile. They multiply and
        # add in one instruction here and in two there, which rounds otherwise: AVX has no such instruction.
        flags = "--xla_backend_optimization_level=0"
        # XLA aborts if it does not know a flag, as newer ones do not know this one.
        if importlib.metadata.version("jaxlib").startswith("0.10."):
            flags += " --xla_cpu_use_fusion_emitters=false"
            flags += " --xla_cpu_max_isa=AVX" * (platform.machine() == "x86_64")
    os.environ.setdefault("XLA_FLAGS", flags)

import jax
import numpy as np
import pytest

import jaxmnist as jm

# What traces and compiles makes many objects that stay: to look through all of them as often as usual takes long.
gc.set_threshold(10_000)
jax.config.update("jax_numpy_rank_promotion", "raise")
# A script whose `main` runs in this process must not choose its number of devices.
jax.devices()

SHARED = Path(__file__).resolve().parents[2] / "shared"


def make_split(num_images: int, seed: int, shape=(6, 5, 1), num_classes: int = 4) -> jm.Split:
    """Returns images whose class can be learned: noise on a pattern per class."""
    patterns = np.random.default_rng(99).integers(0, 200, (num_classes, *shape))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_images).astype(np.int32)
    return jm.Split((patterns[labels] + generator.integers(0, 56, (num_images, *shape))).astype(np.uint8), labels)


def make_tiny() -> jm.Dataset:
    """Returns a data set of 47 / 13 / 23 images (no batch size divides them) of 4 classes."""
    names = ("a", "b", "c", "d")
    return jm.Dataset("tiny", names, make_split(47, 0), make_split(13, 1), make_split(23, 2))


def mostly_slow(cases: Iterable, *fast: Any) -> list:
    """Returns cases as parameters of a test, all but a few marked slow: the others differ in details from these."""
    cases = list(cases)
    assert set(fast) <= set(cases)
    return [pytest.param(case, marks=() if case in fast else pytest.mark.slow) for case in cases]


def run_on_devices(num_devices: int, program: str, *arguments: str) -> str:
    """Returns what a program prints in a process of its own: a process has one number of devices for its life."""
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here.parent, here, *here.glob("*/"))))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(num_devices), "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tiny() -> jm.Dataset:
    """The small data set that most tests use."""
    return make_tiny()


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The prepared real MNIST, for slow tests."""
    for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED / "tensorflow_datasets"):
        if folder and (Path(folder) / "mnist").is_dir():
            return Path(folder)
    pytest.skip("the real MNIST is not prepared here")


@pytest.fixture
def many_segments(monkeypatch) -> None:
    """As many segments for small work as for long work."""
    monkeypatch.setattr("jaxmnist.sweeps.planning.SEGMENT_FLOPS", 1.0)


@pytest.fixture
def two_programs(monkeypatch, many_segments) -> None:
    """Room for six softmax regressions on `tiny` at a time: a sweep of twelve is two programs, of many segments."""
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 6 * 4 * 124)


@pytest.fixture
def no_home(tmp_path, monkeypatch) -> Path:
    """A machine without prepared data and without settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _compile_here():
    """A script whose `main` ran in this process may have told jax to keep what is compiled elsewhere, or nowhere."""
    yield
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])

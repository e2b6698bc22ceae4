"""The experiments, imported into a test's own process or run as a person runs them, and a small data set for them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

from conftest import make_split

import jaxmnist as jm

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SPLITS = [make_split(count, seed, (28, 28, 1), 10) for seed, count in enumerate((47, 13, 23))]
DATASET = jm.Dataset("tiny", tuple("0123456789"), *SPLITS)


def load(script):
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        return importlib.import_module("common"), importlib.import_module(script)
    finally:
        sys.path.remove(str(EXPERIMENTS))


def run(script, *arguments, cwd, env=None, status=0):
    """Returns standard output and standard error of a script that ends with this status."""
    environment = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
    environment |= {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), **(env or {})}
    path = EXPERIMENTS / script
    done = subprocess.run(
        [sys.executable, str(path if path.is_dir() else path.with_suffix(".py")), *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr

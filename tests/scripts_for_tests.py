"""The experiments, imported into a test's own process or run as a person runs them, and a small data set for them."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from conftest import make_split
from PIL import Image

import jaxmnist as jm

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SPLITS = [make_split(count, seed, (28, 28, 1), 10) for seed, count in enumerate((47, 13, 23))]
DATASET = jm.Dataset("tiny", tuple("0123456789"), *SPLITS)
# A script that is told so computes on one device, as this process does.
ONE_DEVICE = {"JAX_NUM_CPU_DEVICES": "1"}


def load(script):
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        return importlib.import_module("common"), importlib.import_module(script)
    finally:
        sys.path.remove(str(EXPERIMENTS))


def path_of(script):
    """Returns what `python` is given to run a script."""
    path = EXPERIMENTS / script
    return path if path.is_dir() else path.with_suffix(".py")


def environment_of(cwd, env=None):
    """Returns the environment of a script: a home without settings and data."""
    environment = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
    return environment | {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), **(env or {})}


def run(script, *arguments, cwd, env=None, status=0):
    """Returns standard output and standard error of a script that ends with this status.

    It runs in this process, since starting one takes seconds; `start` starts one.
    """
    common, module = load("benchmark.compare" if script == "benchmark" else script)
    # What a script writes to a file or a pipe: UTF-8 by default, and as wide as without a terminal.
    given = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "80", **(env or {})}
    encoding = given["PYTHONIOENCODING"]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    ended = 0
    environment = environment_of(cwd, given)
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", [str(path_of(script)), *map(str, arguments)]),
        contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
    ):  # fmt: skip
        try:
            common.main(module.main)
        except SystemExit as end:
            ended = end.code or 0
    printed, complained = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    assert ended == status, complained
    return printed, complained


def start(script, *arguments, cwd, env=None, status=0):
    """Returns the same of a script that runs as a person runs it, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(path_of(script)), *map(str, arguments)],
        cwd=cwd, env=environment_of(cwd, env), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size

"""Sweeps on four CPU devices, in a process of its own: a process has one number of devices for its life."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest

import jaxmnist as jm

PROGRAM = """
import sys

import jax
import optax
from conftest import make_split

import jaxmnist as jm
from jaxmnist import programs

names = ("a", "b", "c", "d")
tiny = jm.Dataset("tiny", names, make_split(47, 0), make_split(13, 1), make_split(23, 2))
axes = eval(sys.argv[1])
model = jm.MLP(6, 4) if sys.argv[2] == "MLP" else jm.CNN((2,), (3,), (1,), 4, num_classes=4)
lowered = []
for name in ("advance", "evaluate"):
    def call(*args, real=getattr(programs, name), **kwargs):
        lowered.append(real.lower(*args, **kwargs))
        return real(*args, **kwargs)
    setattr(programs, name, call)
result = jm.sweep(model, optax.sgd, jm.grid(**axes), tiny, num_steps=6, progress=False, folder=sys.argv[3])
assert result.attrs["num_devices"] == len(jax.local_devices()) == 4
assert len(lowered) > 2
for program in {text: None for text in (each.compile().as_text() for each in lowered)}:
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in program, collective
"""


@pytest.mark.parametrize(
    ("axes", "model"),
    [
        (dict(learning_rate=[0.1, 0.2, 0.5], batch_size=[3, 7, 16], seed=[0, 1]), "MLP"),
        (dict(learning_rate=[0.1, 0.2, 0.3, 0.4, 0.5], batch_size=4, seed=0), "MLP"),
        (dict(learning_rate=[0.1, 0.2], batch_size=[3, 16], seed=0, dropout_rate=[0.0, 0.5]), "CNN"),
    ],
)
def test_four_devices_work_alone_and_give_the_numbers_of_one(tiny, tmp_path, axes, model):
    here = Path(__file__).parent
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    arguments = [sys.executable, "-c", PROGRAM, repr(axes), model, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    of_four = jm.load_results(tmp_path)
    linen = jm.MLP(6, 4) if model == "MLP" else jm.CNN((2,), (3,), (1,), 4, num_classes=4)
    of_one = jm.sweep(linen, optax.sgd, jm.grid(**axes), tiny, num_steps=6, progress=False)
    assert of_one.attrs["num_devices"] == 1 and of_four.sizes == of_one.sizes
    for name in of_one.data_vars:
        np.testing.assert_allclose(of_four[name], of_one[name], rtol=1e-4, atol=1e-6)

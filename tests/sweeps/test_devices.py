"""Sweeps on two and four CPU devices."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from conftest import run_on_devices

import jaxmnist as jm
from jaxmnist.host.devices import DEFAULT_BYTES, MAX_CPU_DEVICES, num_cores
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.sweep import plan

PROGRAM = """
import sys

import jax
import optax
from conftest import make_tiny

import jaxmnist as jm
from jaxmnist.host.devices import DEFAULT_BYTES
from jaxmnist.sweeps import capacity, planning, programs
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.job import make_job
from jaxmnist.sweeps.sweep import plan

tiny = make_tiny()
axes = eval(sys.argv[1])
model = jm.MLP(6, 4) if sys.argv[2] == "MLP" else jm.CNN((2,), (3,), (1,), 4, num_classes=4)
lowered = []
for name in ("advance", "evaluate"):
    def call(*args, real=getattr(programs, name), **kwargs):
        lowered.append(real.lower(*args, **kwargs))
        return real(*args, **kwargs)
    setattr(programs, name, call)
result = jm.sweep(model, optax.sgd, jm.grid(**axes), tiny, num_steps=6, progress=False, folder=sys.argv[3])
# Machines with other numbers of cores share the shards of one plan.
job = make_job(make_setup(model, optax.sgd), jm.grid(**axes), tiny, 6)
print(planning.fingerprint(plan(job, DEFAULT_BYTES, num_shards=1)))
assert result.attrs["num_devices"] == len(jax.local_devices()) == int(sys.argv[4])
assert len(lowered) > 2
for each in {each.as_text(): each for each in lowered}.values():
    program = each.compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in program, collective
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "model", "num_devices"),
    [
        (dict(learning_rate=[0.1, 0.2, 0.5], batch_size=[3, 7, 16], seed=[0, 1]), "MLP", 4),
        *(
            pytest.param(*details, marks=pytest.mark.slow)
            for details in (
                (dict(learning_rate=[0.1, 0.2, 0.3, 0.4, 0.5], batch_size=4, seed=0), "MLP", 4),
                (dict(learning_rate=[0.1, 0.2], batch_size=[3, 16], seed=0, dropout_rate=[0.0, 0.5]), "CNN", 4),
                (dict(learning_rate=[0.1, 0.2, 0.5], batch_size=[3, 7, 16], seed=0), "MLP", 2),
            )
        ),
    ],
)
def test_devices_work_alone_and_give_the_numbers_of_one(tiny, tmp_path, axes, model, num_devices):
    printed = run_on_devices(num_devices, PROGRAM, repr(axes), model, str(tmp_path), str(num_devices))
    of_several = jm.load_results(tmp_path)
    linen = jm.MLP(6, 4) if model == "MLP" else jm.CNN((2,), (3,), (1,), 4, num_classes=4)
    portable = plan(make_job(make_setup(linen, optax.sgd), jm.grid(**axes), tiny, 6), DEFAULT_BYTES, num_shards=1)
    assert int(printed) == planning.fingerprint(portable)
    of_one = jm.sweep(linen, optax.sgd, jm.grid(**axes), tiny, num_steps=6, progress=False)
    assert of_one.attrs["num_devices"] == 1 and of_several.sizes == of_one.sizes
    for name in of_one.data_vars:
        np.testing.assert_allclose(of_several[name], of_one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [None, "JAX_NUM_CPU_DEVICES", "XLA_FLAGS"])
def test_cores_become_devices_unless_their_number_is_chosen(chosen):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    environment |= {"JAX_NUM_CPU_DEVICES": "3"} if chosen == "JAX_NUM_CPU_DEVICES" else {}
    environment |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"} if chosen == "XLA_FLAGS" else {}
    program = "import jax, jaxmnist as jm; jm.use_cores(); print(len(jax.local_devices())); jm.use_cores()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    wanted = 3 if chosen else min(num_cores(), MAX_CPU_DEVICES)
    assert int(done.stdout) == wanted
    assert done.returncode == 0, done.stderr


def test_once_jax_has_begun_cores_do_not_become_devices():
    jax.devices()
    with pytest.raises(RuntimeError, match="before"):
        jm.use_cores()

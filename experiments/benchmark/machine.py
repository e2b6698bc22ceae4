"""What times depend on: the machine, the versions of what ran, and what the machine reaches in these minutes."""

import datetime
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from .work import seconds

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "tensorflow", "tensorflow-cpu")
# Those that decide how fast a core multiplies, as Linux names them.
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "sve")
CPU = Path("/sys/devices/system/cpu/cpu0")
MATRIX_SIZE = 2048
# Larger than the caches of most processors: 512 MiB.
VECTOR_SIZE = 2**27
NUM_TRIES = 20


def machine() -> dict:
    """Returns the machine and the versions; what a system does not tell is left out."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", info, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in known],
        "caches": _caches(),
        "governor": _read(CPU / "cpufreq/scaling_governor"),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": _versions(),
    }


def peaks() -> tuple[float, float]:
    """Returns the best floating-point operations a second of a large matrix product, and bytes a second of memory."""
    matrix = jnp.ones((MATRIX_SIZE, MATRIX_SIZE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    flops = 2 * MATRIX_SIZE**3 / min(seconds(lambda: multiply(matrix, matrix)) for _ in range(NUM_TRIES))
    vectors = [jnp.ones(VECTOR_SIZE, jnp.float32), jnp.ones(VECTOR_SIZE, jnp.float32)]
    # In place, as new pages would be slower than memory; two vectors are read, and one is written.
    add = jax.jit(lambda total, vector: total + 0.5 * vector, donate_argnums=0)

    def go_on():
        vectors[0] = add(*vectors)
        return vectors[0]

    return flops, 3 * vectors[1].nbytes / min(seconds(go_on) for _ in range(NUM_TRIES))


def _caches() -> dict[str, str]:
    """Returns the size of each cache of the first core, by level and type."""
    folders = sorted(CPU.glob("cache/index*"))
    return {f"L{_read(folder / 'level')} {_read(folder / 'type')}": _read(folder / "size") for folder in folders}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions

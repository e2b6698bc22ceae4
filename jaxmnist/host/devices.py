"""The processor cores, devices and memory of this machine."""

import math
import os
from pathlib import Path

import jax

from jaxmnist.checks import checked_by

# Beyond it, what each device holds of its own (activations, programs in the cache) was not measured.
MAX_CPU_DEVICES = 8


@checked_by()
def use_cores() -> None:
    """Makes a device of each CPU core, 8 at most, so that each works on runs of its own in a sweep.

    On 2 cores, sweeps of some hundred runs train 1.6 times as fast as where both cores share each product, and large
    ones as fast. To be called before anything of jax has run; a number that was chosen already, by
    `jax_num_cpu_devices` or `XLA_FLAGS`, stays.

    Raises:
      RuntimeError: jax has begun to use the devices that it has.
    """
    chosen = jax.config.jax_num_cpu_devices != -1  # type: ignore[attr-defined]
    if not chosen and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", min(num_cores(), MAX_CPU_DEVICES))
        except RuntimeError as error:
            raise RuntimeError(
                "use_cores() comes too late, since jax has begun: call it before anything else of jax"
            ) from error


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def last_cache() -> int:
    """Returns the bytes of the cache that the cores share, on Linux; 0 where that is not known."""
    try:
        sizes = [(folder / "size").read_text().strip() for folder in CACHES.glob("index*")]
        return max((1024 * int(size.removesuffix("K")) for size in sizes), default=0)
    except (OSError, ValueError):
        return 0


DEFAULT_BYTES = 3 * 2**30


def available() -> float:
    """Returns the bytes a sweep may take by default: the smaller of 3 GiB and half of what is free."""
    if jax.default_backend() != "cpu":
        limits = (device.memory_stats() for device in jax.local_devices())
        return min((stats or {}).get("bytes_limit", math.inf) for stats in limits) / 2
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return min(DEFAULT_BYTES, 1024 * int(lines["MemAvailable"].split()[0]) / 2)
    except (OSError, KeyError, ValueError):
        return DEFAULT_BYTES

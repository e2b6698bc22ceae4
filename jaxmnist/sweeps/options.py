"""The further arguments of `sweep` that halvings and searches take and pass on to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmnist.checks import kinds
from jaxmnist.host.devices import available
from jaxmnist.sweeps.sweep import Means, check_cluster, sweep

SWEEP_KINDS = kinds(sweep)


def check_options(function: str, options: Mapping[str, Any]) -> None:
    """Raises an error if one of these is no argument of `sweep`, or has a value that `sweep` does not accept."""
    for name, value in options.items():
        if name not in SWEEP_KINDS:
            raise TypeError(f"{function}() has no argument {name!r}")
        SWEEP_KINDS[name].check(name, value)
    check_cluster(options.get("cluster"), options.get("ray_resources"))


def folder_of(options: Mapping[str, Any]) -> Path | None:
    """Returns the folder that was given, if any."""
    return Path(options["folder"]) if options.get("folder") is not None else None


def means_of(options: Mapping[str, Any]) -> Means:
    """Returns by what means each part of a halving or a search is trained; its folder is its own."""
    return Means(
        options.get("memory") or available(),
        cluster=options.get("cluster"),
        ray_resources=options.get("ray_resources"),
        progress=options.get("progress", True),
    )

"""What a result says, as numbers and strings that JSON can hold, for programs that start a sweep."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.intervals import Interval
from jaxmnist.analysis.metrics import judged
from jaxmnist.analysis.ties import ties
from jaxmnist.host.files import is_ours
from jaxmnist.sweeps.growth import AND


def summary(result: xr.Dataset, by: str | None = None, largest: bool | None = None) -> dict[str, Any]:
    """Returns what a result says; docs/command_line.md describes each entry.

    Args:
      result: as `sweep` returns it.
      by: the metric that settings are compared by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: as `jm.settings`.
    """
    metric = judged(result, by, largest)
    best, table = results.best(result, *metric), ties(result, *metric)
    attrs, diverged = result.attrs, result["diverged_step"].notnull()
    names = [name for name in results.hyperparameters(result) if name != "seed"]

    def standing(kind: str) -> list[dict[str, Any]]:
        rows = table[table["standing"] == kind].to_dict("records")
        mean = f"validation_{metric.name}"
        return [
            {"setting": {name: row[name] for name in names}, "validation_mean": row[mean], "p_value": row["p_value"]}
            for row in rows
        ]

    return {
        **{name: attrs.get(name) for name in ("dataset", "model", "optimizer", "loss", "num_steps")},
        "axes": {name: values for name, values in results.hyperparameters(result).items() if name != "seed"},
        "seeds": results.hyperparameters(result)["seed"],
        "metric": {"name": metric.name, "largest_is_best": metric.largest},
        "num_settings": len(table),
        "num_runs": diverged.size,
        "num_diverged": int(diverged.sum()),
        "num_pruned": int(result["pruned_step"].notnull().sum()) if "pruned_step" in result else 0,
        "best": best and {
            "setting": best.setting,
            "validation": _interval(best.validation),
            "test": _interval(best.test),
            "on_an_edge": best.edges,
        },
        "as_good": standing("as good"),
        "unclear": standing("unclear"),
        "versions": [_versions(part) for part in str(attrs.get("versions", "")).split(AND)],
    }  # fmt: skip


def _interval(found: Interval) -> dict[str, Any]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "kind": found.words}


def _versions(text: str) -> dict[str, str]:
    """Returns the version of each package, of `"jax==0.10.2 numpy==2.0"`."""
    return {name: version for name, _, version in (word.partition("==") for word in text.split())}


def files_of_ours(folder: Path) -> list[str]:
    """Returns the paths of the files in a folder that this package wrote, sorted; subfolders are left out."""
    return sorted(str(path) for path in folder.iterdir() if path.is_file() and is_ours(path))


def as_json(report: Mapping[str, Any]) -> str:
    """Returns a report in ASCII, as one JSON object, in which null stands for numbers that are not finite."""
    return json.dumps(_plain(report), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Returns a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value

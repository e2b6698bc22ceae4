"""The words of the interactive page: axes with their values, code that trains a run again, and what a result says.

Shapes: S settings.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import varied
from jaxmnist.analysis.importance import table_if_any
from jaxmnist.analysis.metrics import Metric
from jaxmnist.analysis.words import interval_words, metric_words, setting_words, value_words
from jaxmnist.data.order import SEEDS
from jaxmnist.plots.importance import METHODS
from jaxmnist.plots.style import MIN_LOG_RANGE, PLANE, axis_label

# An axis with more values than this is divided by value, and not evenly; a map with more cells for each setting than
# this, and not only a few, is drawn as points.
MAX_EVEN, MAX_SHARE_EMPTY, MIN_CELLS = 512, 4, 4096
# What takes a second or two. The intervals of `jm.importance` are over more samples, and it takes more settings.
MAX_ANALYSED, NUM_RESAMPLES = 100, 15
ABOUT = {
    "dataset": "data set", "num_train": "training examples", "num_validation": "validation examples",
    "num_test": "test examples", "num_classes": "classes", "model": "model", "optimizer": "optimizer", "loss": "loss",
    "dtype": "number type", "augment": "augmentation", "budget": "budget", "num_evaluations": "evaluations of a run",
    "divergence": "a run has diverged at the", "backend": "trained on", "num_devices": "devices",
    "versions": "versions",
}  # fmt: skip


def seed_codes(result: xr.Dataset) -> dict[int, str]:
    """Returns, for each seed of `with_one_seed(result)`, the arguments of `jm.rerun` that mean it."""
    held = results.hyperparameters(result)
    names = [name for name in held if name in SEEDS]
    if names == ["seed"]:
        return {seed: f"seed={seed!r}" for seed in held["seed"]}
    names = [name for name in names if result[name].ndim]
    columns = [result[name].values.tolist() for name in names]
    combinations = zip(*columns, strict=True) if "run" in result.dims else itertools.product(*columns)
    words = [", ".join(map("{}={!r}".format, names, values)) for values in dict.fromkeys(combinations)]
    return dict(enumerate(words))


def axes_of(result: xr.Dataset, settings: pd.DataFrame) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns the axes of a result, those that vary and at least two, and `[S]` uint32, where its settings lie on each.

    Returns:
      For each axis its `name`, `label`, and for each of its values, in ascending order, `words`, `code` and `positions`
      from 0 to 1.
    """
    names = [name for name in results.hyperparameters(result) if name != "seed"]
    shown = varied(result)
    others = [name for name in (*PLANE, *names) if name in names and name not in shown]
    shown += list(dict.fromkeys(others))[: max(0, 2 - len(shown))]
    axes, places = [], {}
    for name in shown:
        values, places[name] = np.unique(settings[name].to_numpy(), return_inverse=True)
        typed = values.tolist()
        axes.append(
            {
                "name": name,
                "label": axis_label(name),
                "words": [value_words(value, typed) for value in typed],
                "code": [f"{name}={value!r}" for value in typed],
                "positions": _positions(values),
            }
        )
    return axes, {name: place.astype(np.uint32) for name, place in places.items()}


def _positions(values: np.ndarray) -> list[float]:
    """Returns where the values of an axis lie on it: evenly, or, if there are very many, by their values."""
    points = np.arange(len(values), dtype=np.float64)
    if len(values) > MAX_EVEN and values.dtype.kind in "iuf":
        is_wide = values[0] > 0 and values[-1] > MIN_LOG_RANGE * values[0]
        points = np.log(values.astype(np.float64)) if is_wide else values.astype(np.float64)
    span = float(np.ptp(points)) or 1.0
    return [0.5] if len(values) == 1 else [round(float(point), 6) for point in (points - points[0]) / span]


def has_cells(axes: list[dict[str, Any]], num_settings: int) -> bool:
    """Returns whether settings fill the cells of a grid, rather than being points among their many values."""
    cells = float(np.prod([float(len(axis["words"])) for axis in axes]))
    return cells <= max(MAX_SHARE_EMPTY * num_settings, MIN_CELLS)


def title(result: xr.Dataset) -> str:
    """Returns the title of a page."""
    return f"{result.attrs['dataset']}: {result.attrs['model'].split('(')[0]}, {result.attrs['optimizer']}"


def subtitle(result: xr.Dataset, num_runs: int, num_settings: int) -> str:
    """Returns what is below the title of a page: the budget, and how many runs and settings there are."""
    counts = (f"{count:,} {noun}{'s' * (count > 1)}" for count, noun in ((num_runs, "run"), (num_settings, "setting")))
    return f"{result.attrs['budget']}; {' of '.join(counts)}"


def chosen_rows(result: xr.Dataset, metric: Metric, settings: pd.DataFrame) -> list[list[str]]:
    """Returns what is said of the setting that is chosen on validation, as rows of two cells."""
    best = results.best(result, *metric)
    if best is None:
        return [["setting", "none: every setting has runs that diverged"]]
    counts = settings["standing"].value_counts().to_dict()
    standings = ", ".join(f"{counts.get(each, 0):,} {each}" for each in ("as good", "worse", "unclear"))
    is_tested = settings["p_value"].notna().any()
    return [
        ["setting", setting_words(result, best.setting)],
        [f"validation {metric.name}", f"{interval_words(metric.name, best.validation)} ({best.validation.words})"],
        [f"test {metric.name}", f"{interval_words(metric.name, best.test)} ({best.test.words})"],
        ["on an edge of the grid", ", ".join(best.edges) or "no"],
        [
            "the other settings",
            f"{standings} (jm.ties)" if is_tested else "not compared: no two seeds in common",
        ],
    ]


def importance_of(result: xr.Dataset, metric: Metric) -> dict[str, Any] | None:
    """Returns what is said of the importance of hyperparameters, as `table_if_any` finds it; None if that is nothing.

    Returns:
      `methods`, a `note`, and `rows`, each with its `label` and a share by each method: in `words`, and as `value`,
      `low` and `high`, from 0 to 1.
    """
    table = table_if_any(result, metric, MAX_ANALYSED, NUM_RESAMPLES)
    if table is None:
        return None
    rows = []
    for row in table.to_dict("records"):
        shares = [(row[method], row[f"{method}_low"], row[f"{method}_high"]) for method in METHODS]
        words = ["{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * number for number in share)) for share in shares]
        numbers = [dict(zip(("value", "low", "high"), map(float, share), strict=True)) for share in shares]
        said = [{"words": text} | found for text, found in zip(words, numbers, strict=True)]
        rows.append({"label": axis_label(row["hyperparameter"]).split(" (")[0], "shares": said})
    note = (
        f"Of validation {metric_words(metric.name)}, over {table['num_settings'].iloc[0]} settings without runs that "
        f"diverged or were pruned; of more than {MAX_ANALYSED}, {MAX_ANALYSED} are drawn at random. In brackets and as "
        f"a line: the 95 % interval over {NUM_RESAMPLES} bootstrap samples of them. jm.importance draws more of both."
    )
    return {"methods": list(METHODS.values()), "note": note, "rows": rows}


def about_rows(result: xr.Dataset) -> list[list[str]]:
    """Returns what a result says about data, model, training and versions, as rows of two cells."""
    found = {words: result.attrs.get(name) for name, words in ABOUT.items()}
    return [[words, str(value)] for words, value in found.items() if value not in (None, "")]

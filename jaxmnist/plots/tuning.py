"""Tuning budgets, drawn: how good the best of so many settings is."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis.arguments import BY, CHOOSING_SPLIT, LARGEST, SETTINGS, WORDS, IsResult, IsResults, by_name
from jaxmnist.analysis.metrics import judged
from jaxmnist.analysis.tuning import TARGET, check_tuning, tuning_table
from jaxmnist.analysis.words import target_words
from jaxmnist.checks import checked_by
from jaxmnist.plots.curves import MAX_CURVES, title_words
from jaxmnist.plots.metrics import in_unit, is_wide, label, metric_ticks
from jaxmnist.plots.style import Figure, house_style, line_style, log_ticks, seeds_words, write_caption

MANY_TRIED = 10  # from here on, the axis is logarithmic


def _check_curve(given: SimpleNamespace) -> None:
    check_tuning(given)
    count = len(by_name(given.result))
    if count > MAX_CURVES:
        raise ValueError(f"result holds {count} results; at most {MAX_CURVES} lines can be told apart in a figure")


@checked_by(
    _check_curve, result=IsResults(IsResult(SETTINGS, WORDS)), split=CHOOSING_SPLIT, target=TARGET, by=BY,
    largest=LARGEST,
)  # fmt: skip
def tuning_curve(
    result: xr.Dataset | Mapping[str, xr.Dataset],
    split: str = "validation",
    target: float | None = None,
    *,
    by: str | None = None,
    largest: bool | None = None,
) -> Figure:
    """Returns how good the best of so many settings is, against their number, as `jm.tuning_table` explains it.

    What is compared at one number of settings was tuned equally much. With a `target`, the fewest steps to it are drawn
    in place of the metric.

    Args:
      result: of a sweep, or several by name, as for `jm.tuning_table`; a line each.
      split: on which the best is shown; it is chosen on validation.
      target: of the metric, on validation.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: as `jm.tuning_table`, or there are more than 8 results.
    """
    found = by_name(result)
    first = next(iter(found.values()))
    metric = judged(first, by, largest)
    column = f"{split}_{metric.name}" if target is None else "steps"
    table = tuning_table(found, split, target, by=metric.name, largest=metric.largest)
    statistic, most = table["statistic"].iloc[0], int(table["num_tried"].max())
    quantity = f"{split} {label(first, metric.name)}" if target is None else "steps to the target"
    with house_style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(found):
            rows = table[table["result"] == name]
            columns = [rows[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high")]
            best, low, high = columns if target is not None else (in_unit(metric.name, values) for values in columns)
            style = line_style(place, len(found))
            tried = rows["num_tried"].to_numpy()
            # Few markers, since there may be a hundred points.
            axes.plot(tried, best, **style, markevery=0.08, label=_words(name, rows))
            axes.fill_between(tried, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set(xlabel="settings tried", ylabel=f"{quantity}: {statistic} of the best")
        values = table[column].to_numpy(float)
        if (target is not None or not metric.is_share) and is_wide("", values):
            axes.set_yscale("log")
            metric_ticks(axes, np.nanmin(values), np.nanmax(values))
        if most > MANY_TRIED:
            axes.set_xscale("log")
            log_ticks(axes, "x", 1, most)
            axes.set_xlim(1 / 1.05, most * 1.05)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, handlelength=3.6)
        to = "" if target is None else f", steps to {target_words(metric.name, target)}"
        axes.set_title(title_words(first, split) + to, loc="left", fontsize=10)
        why = "a run diverged" if target is None else "a seed did not reach the target"
        _caption(figure, found, why if statistic == "median" else "")
    return figure


def _words(name: str, table: pd.DataFrame) -> str:
    """Returns the name of a result, how many settings it has, and how many of them are never the best."""
    count = table["num_tried"].iloc[-1]
    lost = round(count * (1 - table["share_found"].iloc[0]))
    words = f"{count} settings" + f", {lost} of them never the best" * bool(lost)
    return f"{name} ({words})" if name else words


def _caption(figure: Figure, found: Mapping[str, xr.Dataset], reason: str) -> None:
    """Writes what was drawn and resampled, and why some settings are never the best, if any are not."""
    models = dict.fromkeys(result.attrs["model"].split("(")[0] for result in found.values())
    seeds = dict.fromkeys(seeds_words(result) for result in found.values())
    write_caption(
        figure,
        " and ".join(models),
        "over all choices of so many settings, of which the best is chosen on validation",
        f"each setting counts with its mean over {' or '.join(seeds)}",
        f"band: 95 % bootstrap interval over settings, given up to {'a seventh' if reason else 'a quarter'} of them",
        f"never the best: {reason}; a line begins where half of the choices hold another" * bool(reason),
    )

"""What a result says, as text: the best settings, the chosen one, and what the curves add.

Settings are chosen on the validation split; test accuracies and the like are reported and choose nothing.
"""

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pandas as pd
import xarray as xr

from jaxmnist.analysis import pairs, results, targets, ties
from jaxmnist.analysis.arguments import (
    BY,
    LARGEST,
    METRIC,
    SETTINGS,
    WORDS,
    IsResult,
    IsTable,
    check_result,
    varied,
)
from jaxmnist.analysis.intervals import Interval
from jaxmnist.analysis.metrics import Metric, check_by, check_target, interval_of, judged, named, shown_on_test
from jaxmnist.analysis.pairs import POWER
from jaxmnist.analysis.words import (
    aligned,
    axis_words,
    interval_words,
    margin_words,
    metric_words,
    number_words,
    setting_words,
    target_words,
    value_words,
)
from jaxmnist.checks import STRING, Number, Optional, checked_by
from jaxmnist.data.dataset import SPLIT_NAMES

NUM_SHOWN = 5
MAP_NAMES = ("learning_rate", "batch_size")
RESULT = IsResult(
    SETTINGS,
    (*WORDS, "num_train", "num_validation", "num_test"),
    present=tuple(f"recorded_{split}_*" for split in SPLIT_NAMES),
)
REACHED = Optional(Number())
NOISE_TABLE = Optional(IsTable("noise_scale_along_training", ("step", "noise_scale"), can_be_empty=False))


def check_report(given: SimpleNamespace) -> None:
    """Raises ValueError if `result` cannot be judged `by` a metric, or `target` is no value of it."""
    check_by(given)
    if given.target is not None:
        check_target(given)


@checked_by(check_report, result=RESULT, target=REACHED, noise=NOISE_TABLE, by=BY, largest=LARGEST)
def report(
    result: xr.Dataset,
    target: float | None = None,
    noise: pd.DataFrame | None = None,
    *,
    by: str | None = None,
    largest: bool | None = None,
) -> str:
    """Returns a report of a result: its best settings, the chosen one with its test accuracy, and warnings.

    For a grid over learning rates and batch sizes with recorded validation curves, it also says how many steps it
    takes to reach a target accuracy. A result without an accuracy is reported by its loss.

    Args:
      result: as `sweep` returns it.
      target: validation accuracy, a fraction, or value of another metric; None for `default_target`.
      noise: as `noise_scale_along_training` returns it; its median is reported.
      by: the metric that settings are compared by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    metric = judged(result, by, largest)
    lines = [
        f"{result.attrs['dataset']}: the best settings on validation, {result.attrs['budget']}",
        *_best_settings(result, metric),
        *_choice(result, metric),
    ]
    diverged = result["diverged_step"].notnull()
    lines.append(f"diverged: {int(diverged.sum())} of {diverged.size} runs")
    if "pruned_step" in result:
        lines.append(f"pruned: {int(result['pruned_step'].notnull().sum())} of {diverged.size} runs")
    if has_steps_to_target(result, metric.name):
        lines += _steps_to_target(result, target, metric)
    if noise is not None:
        lines.append(f"gradient noise scale: median {noise['noise_scale'].median():.0f} examples")
    return "\n".join(lines)


def _best_settings(result: xr.Dataset, metric: Metric) -> list[str]:
    settings = results.settings(result, *metric)
    unit = ", %" if metric.is_share else ""
    names = list(settings.columns[: settings.columns.get_loc("num_seeds")])
    rows = [[*names, "seeds", "diverged", f"validation {metric_words(metric.name)} (mean ± s.d.{unit})"]]
    for _, row in settings.head(NUM_SHOWN).iterrows():
        column = f"validation_{metric.name}"
        mean = number_words(metric.name, row[column])
        if row["num_seeds"] > 1:
            mean += f" ± {number_words(metric.name, row[f'{column}_std'])}"
        counts = (f"{row[name]:.0f}" for name in ("num_seeds", "num_diverged"))
        rows.append([*(axis_words(result, name, row[name]) for name in names), *counts, mean])
    return aligned(rows)


def _choice(result: xr.Dataset, metric: Metric) -> Iterator[str]:
    best = results.best(result, *metric)
    if best is None:
        yield "no setting is chosen: every setting has runs that diverged"
        return
    yield f"chosen on validation: {setting_words(result, best.setting)}"
    yield from _standings(result, metric)
    for name in (metric.name, *(each for each in shown_on_test(result, metric.name) if each != metric.name)):
        found = best.test if name == metric.name else test_interval(result, name, best.setting)
        yield f"its test {metric_words(name)}: {interval_words(name, found)} ({found.words})"
    for name in best.edges:
        yield f"warning: the best {name}, {value_words(best.setting[name])}, lies on the edge of the grid: widen it"


def _standings(result: xr.Dataset, metric: Metric) -> Iterator[str]:
    table = ties.ties(result, *metric)
    counts = table["standing"].value_counts().to_dict()
    if counts.get("as good"):
        within = margin_words(metric.name, ties.default_margin(table, metric))
        yield f"as good as the best, {within}: {_others(counts['as good'])}"
    if counts.get("unclear") and table["num_seeds"].max() > 1:
        yield f"whether as good or worse cannot be told with these seeds: {_others(counts['unclear'])}"


def _others(count: int) -> str:
    return f"{count} other setting" + "s" * (count > 1)


def has_maps(result: xr.Dataset) -> bool:
    """Returns whether the settings of a result differ in nothing but learning rate and batch size, both numbers."""
    names = results.hyperparameters(result)
    are_numbers = all(name in names and result[name].dtype.kind in "iuf" for name in MAP_NAMES)
    return are_numbers and set(varied(result)) <= set(MAP_NAMES)


def test_interval(result: xr.Dataset, name: str, setting: Mapping[str, Any]) -> Interval:
    """Returns the interval of a metric of a setting on the test split."""
    rows = results.rows_of(result, setting)
    return interval_of(name, rows[f"test_{name}"].tolist(), result.attrs["num_test"])


def has_steps_to_target(result: xr.Dataset, metric: str) -> bool:
    """Returns whether a result is a grid over learning rate and batch size with recorded validation curves."""
    is_grid = all(name in result.dims for name in (*MAP_NAMES, "seed"))
    return is_grid and has_maps(result) and f"recorded_validation_{metric}" in result


def _steps_to_target(result: xr.Dataset, target: float | None, metric: Metric) -> Iterator[str]:
    try:
        target = targets.default_target(result, *metric) if target is None else target
    except ValueError as error:
        yield f"no steps to a target: {error}"
        return
    table = targets.target_table(result, target, *metric)
    best = targets.best_rates(table)
    yield f"steps to {target_words(metric.name, target, 'validation ')}, at the best learning rate of each batch size:"
    for _, row in best.iterrows():
        half_width = "" if math.isnan(row["half_width"]) else f" ± {row['half_width']:.0f}"
        yield (
            f"  batch size {row['batch_size']:.0f}: {row['steps']:.0f}{half_width} steps, learning rate "
            f"{row['learning_rate']:g}"
        )
    missed = sorted(set(table["batch_size"]) - set(best["batch_size"]))
    if missed:
        yield f"  not reached by every seed at batch sizes {', '.join(map(str, missed))}"
    law = targets.table_scaling(best)
    if law is not None:
        yield f"observed critical batch size: {law.critical_batch_size:.0f} examples"


def _check_final(given: SimpleNamespace) -> None:
    check_result(given.result, (f"test_{named(given.result, given.metric)}",))


@checked_by(
    _check_final, result=IsResult(SETTINGS, ("num_steps", "num_test"), ("learning_rate",), ("learning_rate",)),
    metric=METRIC,
)  # fmt: skip
def final_accuracies(result: xr.Dataset, metric: str | None = None) -> str:
    """Returns the test accuracy, or else loss, at the end for each learning rate, and how many runs diverged.

    Args:
      result: as `sweep` returns it; its settings differ in the learning rate only.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: the argument is not as described above.
    """
    metric = named(result, metric)
    after, lines = f"after {result.attrs['num_steps']} steps", []
    rates = results.hyperparameters(result)["learning_rate"]
    rows = results.table(result)
    for rate in rates:
        at_rate = rows[rows["learning_rate"] == rate]
        which = f", learning rate {rate:g}" if len(rates) > 1 else ""
        num_diverged = int(at_rate["diverged_step"].notna().sum())
        if num_diverged:
            lines.append(f"no test {metric_words(metric)} {after}{which}: {num_diverged} of its runs diverged")
        else:
            found = interval_of(metric, at_rate[f"test_{metric}"].tolist(), result.attrs["num_test"])
            words = interval_words(metric, found)
            lines.append(f"test {metric_words(metric)} {after}{which}: {words} ({found.words})")
    num_diverged = int(rows["diverged_step"].notna().sum())
    return "\n".join([*lines, f"diverged: {num_diverged} of {len(rows)} runs"])


COMPARED = IsResult(SETTINGS, ("dataset", "budget", "num_validation", "num_test"), ("learning_rate",))


@checked_by(results.check_each, result=COMPARED, name=STRING, by=BY, largest=LARGEST)
def comparison_table(result: xr.Dataset, name: str, by: str | None = None, largest: bool | None = None) -> pd.DataFrame:
    """Returns one row for each value of a hyperparameter: the best learning rate there, and its accuracies.

    Columns: the hyperparameter, `learning_rate`, `{validation, test}_accuracy` (or another metric) with `*_low` and
    `*_high`, the ends of the 95 % interval, `is_on_edge`, whether the learning rate is the smallest or largest one
    tried, `lead` with `lead_low` and `lead_high`, by how much it is better on validation than the best of the others,
    as in `jm.ties`, and `seeds_needed`, how many seeds would tell it from that one, as `jm.seeds_needed` counts them.
    The intervals take the learning rates as given, although they were chosen with the same seeds.
    If runs of every learning rate diverged, all of these are missing.

    Args:
      result: as `sweep` returns it.
      name: of the hyperparameter, such as `"optimizer"`.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: as `best_of_each`.
    """
    rows = []
    metric = judged(result, by, largest)
    chosen = results.best_of_each(result, name, *metric)
    leads = _leads(result, chosen, metric)
    for value, best in chosen.items():
        row = {name: value}
        if best is not None:
            row["learning_rate"] = best.setting["learning_rate"]
            for split, found in (("validation", best.validation), ("test", best.test)):
                column = f"{split}_{metric.name}"
                row |= {column: found.mean, f"{column}_low": found.low, f"{column}_high": found.high}
            row["is_on_edge"] = "learning_rate" in best.edges
            lead, needed = leads[value]
            row |= {"lead": lead.mean, "lead_low": lead.low, "lead_high": lead.high, "seeds_needed": needed}
        rows.append(row)
    return pd.DataFrame(rows)


def _leads(result: xr.Dataset, chosen: Mapping[Any, results.Best | None], metric: Metric) -> dict[Any, pairs.Lead]:
    """Returns how the best setting of each value compares with those of the other values."""
    settings = {value: best.setting for value, best in chosen.items() if best is not None}
    return dict(zip(settings, pairs.leads_of(result, list(settings.values()), metric), strict=True)) if settings else {}


@checked_by(results.check_each, result=COMPARED, name=STRING, by=BY, largest=LARGEST)
def comparison(result: xr.Dataset, name: str, by: str | None = None, largest: bool | None = None) -> str:
    """Returns a report that compares the values of a hyperparameter, each at its best learning rate on validation.

    Args:
      result: as `sweep` returns it.
      name: of the hyperparameter, such as `"optimizer"`.
      by: the metric to choose by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: as `best_of_each`.
    """
    metric = judged(result, by, largest)
    best = results.best_of_each(result, name, *metric)
    kinds = sorted({each.test.words for each in best.values() if each is not None})
    words = metric_words(metric.name)
    leads = _leads(result, best, metric)
    heads = [name, "learning rate", f"validation {words}", f"test {words}", "lead", f"seeds to tell, power {POWER:.0%}"]
    rows, warnings = [heads], []
    for value, each in best.items():
        shown = axis_words(result, name, value)
        if each is None:
            rows.append([shown, "none: all diverged", "", "", "", ""])
            continue
        rate = value_words(each.setting["learning_rate"])
        lead, needed = leads[value]
        cells = [interval_words(metric.name, found, "") for found in (each.validation, each.test, lead)]
        told = [cells[2], f"{needed:,.0f}"] if math.isfinite(lead.mean) else ["", ""]
        rows.append([shown, rate, *cells[:2], *told])
        if "learning_rate" in each.edges:
            warnings.append(
                f"warning: the best learning_rate of {shown}, {rate}, lies on the edge of its grid: widen it"
            )
    title = f"{result.attrs['dataset']}, {result.attrs['budget']}: learning rates chosen on validation"
    diverged = result["diverged_step"].notnull()
    return "\n".join(
        [
            title,
            f"mean {words}{' in %' if metric.is_share else ''} and {', '.join(kinds)}",
            "lead: on validation, over the best of the others; its interval takes the learning rates as given",
            *aligned(rows),
            *warnings,
            f"diverged: {int(diverged.sum())} of {diverged.size} runs",
        ]
    )

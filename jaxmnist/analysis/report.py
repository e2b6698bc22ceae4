"""What a result says, as text: the best settings, the chosen one, and what the curves add.

Settings are chosen on the validation split; test accuracies are reported and choose nothing.
"""

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import xarray as xr

from jaxmnist.analysis import results, statistics
from jaxmnist.analysis.arguments import SETTINGS, WORDS, IsResult, IsTable
from jaxmnist.analysis.intervals import Interval, interval
from jaxmnist.checks import STRING, Number, Optional, checked_by
from jaxmnist.data.dataset import SPLIT_NAMES

NUM_SHOWN = 5
MAP_NAMES = ("learning_rate", "batch_size")
RESULT = IsResult(
    SETTINGS,
    (*WORDS, "num_train", "num_validation", "num_test"),
    present=tuple(f"recorded_{split}_{metric}" for split in SPLIT_NAMES for metric in ("accuracy", "loss")),
)
TARGET = Optional(Number("an accuracy between 0 and 1", lambda value: 0 < value < 1))
NOISE_TABLE = Optional(IsTable("noise_scale_along_training", ("step", "noise_scale"), can_be_empty=False))


@checked_by(result=RESULT, target=TARGET, noise=NOISE_TABLE)
def report(result: xr.Dataset, target: float | None = None, noise: pd.DataFrame | None = None) -> str:
    """Returns a report of a result: its best settings, the chosen one with its test accuracy, and warnings.

    For a grid over learning rates and batch sizes with recorded validation curves, it also says how many steps it
    takes to reach a target accuracy.

    Args:
      result: as `sweep` returns it.
      target: validation accuracy, a fraction; None for `default_target`.
      noise: as `noise_scale_along_training` returns it; its median is reported.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: an argument is not as described above, or no run of the result has ended.
    """
    lines = [
        f"{result.attrs['dataset']}: the best settings on validation, {result.attrs['budget']}",
        *_best_settings(result),
        *_choice(result),
    ]
    diverged = result["diverged_step"].notnull()
    lines.append(f"diverged: {int(diverged.sum())} of {diverged.size} runs")
    if "pruned_step" in result:
        lines.append(f"pruned: {int(result['pruned_step'].notnull().sum())} of {diverged.size} runs")
    if has_steps_to_target(result):
        lines += _steps_to_target(result, target)
    if noise is not None:
        lines.append(f"gradient noise scale: median {noise['noise_scale'].median():.0f} examples")
    return "\n".join(lines)


def _best_settings(result: xr.Dataset) -> list[str]:
    settings = results.settings(result)
    names = list(settings.columns[: settings.columns.get_loc("num_seeds")])
    rows = [[*names, "seeds", "diverged", "validation accuracy (mean ± s.d., %)"]]
    for _, row in settings.head(NUM_SHOWN).iterrows():
        accuracy = f"{100 * row['validation_accuracy']:.2f}"
        if row["num_seeds"] > 1:
            accuracy += f" ± {100 * row['validation_accuracy_std']:.2f}"
        counts = (f"{row[name]:.0f}" for name in ("num_seeds", "num_diverged"))
        rows.append([*(value_words(row[name]) for name in names), *counts, accuracy])
    return aligned(rows)


def _choice(result: xr.Dataset) -> Iterator[str]:
    best = results.best(result)
    if best is None:
        yield "no setting is chosen: every setting has runs that diverged"
        return
    yield f"chosen on validation: {setting_words(best.setting)}"
    num_tied = int(statistics.ties(result)["is_tied"].sum()) - 1
    if num_tied > 0:
        yield f"cannot be distinguished from it: {num_tied} other settings (paired t test over seeds, Holm, 5 %)"
    yield f"its test accuracy: {percent_words(best.test)} (95 % {best.test.kind})"
    for name in best.edges:
        yield f"warning: the best {name}, {value_words(best.setting[name])}, lies on the edge of the grid: widen it"


def has_maps(result: xr.Dataset) -> bool:
    """Returns whether the settings of a result differ in nothing but learning rate and batch size, both numbers."""
    names = results.hyperparameters(result)
    are_numbers = all(name in names and result[name].dtype.kind in "iuf" for name in MAP_NAMES)
    return are_numbers and set(results.varied(result)) <= set(MAP_NAMES)


def has_steps_to_target(result: xr.Dataset) -> bool:
    """Returns whether a result is a grid over learning rate and batch size with recorded validation curves."""
    is_grid = all(name in result.dims for name in (*MAP_NAMES, "seed"))
    return is_grid and has_maps(result) and "recorded_validation_accuracy" in result


def _steps_to_target(result: xr.Dataset, target: float | None) -> Iterator[str]:
    try:
        target = statistics.default_target(result) if target is None else target
    except ValueError as error:
        yield f"no steps to a target: {error}"
        return
    table = statistics.target_table(result, target)
    best = statistics.best_rates(table)
    yield f"steps to {100 * target:g} % validation accuracy, at the best learning rate of each batch size:"
    for _, row in best.iterrows():
        half_width = "" if math.isnan(row["half_width"]) else f" ± {row['half_width']:.0f}"
        yield (
            f"  batch size {row['batch_size']:.0f}: {row['steps']:.0f}{half_width} steps, learning rate "
            f"{row['learning_rate']:g}"
        )
    missed = sorted(set(table["batch_size"]) - set(best["batch_size"]))
    if missed:
        yield f"  not reached by every seed at batch sizes {', '.join(map(str, missed))}"
    law = statistics.table_scaling(best)
    if law is not None:
        yield f"observed critical batch size: {law.critical_batch_size:.0f} examples"


@checked_by(result=IsResult(SETTINGS, ("num_steps", "num_test"), ("learning_rate",), ("learning_rate",)))
def final_accuracies(result: xr.Dataset) -> str:
    """Returns the test accuracy at the end for each learning rate, and how many runs diverged.

    Args:
      result: as `sweep` returns it; its settings differ in the learning rate only.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: the argument is not as described above.
    """
    after, lines = f"after {result.attrs['num_steps']} steps", []
    rates = results.hyperparameters(result)["learning_rate"]
    rows = results.table(result)
    for rate in rates:
        at_rate = rows[rows["learning_rate"] == rate]
        which = f", learning rate {rate:g}" if len(rates) > 1 else ""
        num_diverged = int(at_rate["diverged_step"].notna().sum())
        if num_diverged:
            lines.append(f"no test accuracy {after}{which}: {num_diverged} of its runs diverged")
        else:
            found = interval(at_rate["test_accuracy"], result.attrs["num_test"])
            lines.append(f"test accuracy {after}{which}: {percent_words(found)} (95 % {found.kind})")
    num_diverged = int(rows["diverged_step"].notna().sum())
    return "\n".join([*lines, f"diverged: {num_diverged} of {len(rows)} runs"])


COMPARED = IsResult(SETTINGS, ("dataset", "budget", "num_validation", "num_test"), ("learning_rate",))


@checked_by(results.check_name, result=COMPARED, name=STRING)
def comparison_table(result: xr.Dataset, name: str) -> pd.DataFrame:
    """Returns one row for each value of a hyperparameter: the best learning rate there, and its accuracies.

    Columns: the hyperparameter, `learning_rate`, `{validation, test}_accuracy` with `*_low` and `*_high`, the ends of
    the 95 % interval, and `is_on_edge`, whether the learning rate is the smallest or largest one tried. If runs of
    every learning rate diverged, all of these are missing.

    Args:
      result: as `sweep` returns it.
      name: of the hyperparameter, such as `"optimizer"`.

    Raises:
      ValueError: as `best_of_each`.
    """
    rows = []
    for value, best in results.best_of_each(result, name).items():
        row = {name: value}
        if best is not None:
            row["learning_rate"] = best.setting["learning_rate"]
            for split, found in (("validation", best.validation), ("test", best.test)):
                column = f"{split}_accuracy"
                row |= {column: found.mean, f"{column}_low": found.low, f"{column}_high": found.high}
            row["is_on_edge"] = "learning_rate" in best.edges
        rows.append(row)
    return pd.DataFrame(rows)


@checked_by(results.check_name, result=COMPARED, name=STRING)
def comparison(result: xr.Dataset, name: str) -> str:
    """Returns a report that compares the values of a hyperparameter, each at its best learning rate on validation.

    Args:
      result: as `sweep` returns it.
      name: of the hyperparameter, such as `"optimizer"`.

    Returns:
      Lines of text, without a newline at the end.

    Raises:
      ValueError: as `best_of_each`.
    """
    best = results.best_of_each(result, name)
    kinds = sorted({each.test.kind for each in best.values() if each is not None})
    rows, warnings = [[name, "learning rate", "validation accuracy", "test accuracy"]], []
    for value, each in best.items():
        if each is None:
            rows.append([value_words(value), "none: all diverged", "", ""])
            continue
        rate = value_words(each.setting["learning_rate"])
        rows.append([value_words(value), rate, percent_words(each.validation, ""), percent_words(each.test, "")])
        if "learning_rate" in each.edges:
            warnings.append(
                f"warning: the best learning_rate of {value}, {rate}, lies on the edge of its grid: widen it"
            )
    title = f"{result.attrs['dataset']}, {result.attrs['budget']}: learning rates chosen on validation"
    diverged = result["diverged_step"].notnull()
    return "\n".join(
        [
            title,
            f"mean accuracy in % and 95 % {', '.join(kinds)}",
            *aligned(rows),
            *warnings,
            f"diverged: {int(diverged.sum())} of {diverged.size} runs",
        ]
    )


def setting_words(setting: dict) -> str:
    """Returns a setting in words, hyperparameter by hyperparameter."""
    return ", ".join(f"{name} {value_words(value)}" for name, value in setting.items())


def value_words(value: object) -> str:
    """Returns the value of a hyperparameter in words."""
    return value if isinstance(value, str) else f"{value:g}"


def percent_words(found: Interval, unit: str = " %") -> str:
    """Returns an accuracy and its interval in per cent."""
    return f"{100 * found.mean:.2f}{unit} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, given its rows; each column is aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""What the spread of a metric over runs is made of: initial parameters, the order of examples, and a finite split.

Shapes: I values of `init_seed`, J values of `order_seed`.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import CHOOSING_SPLIT, METRIC, SETTINGS, IsResult, axis_values, check_result, varied
from jaxmnist.analysis.intervals import CONFIDENCE, wilson
from jaxmnist.analysis.metrics import is_share, named
from jaxmnist.checks import checked_by
from jaxmnist.data.order import SEEDS

CROSSED = ("init_seed", "order_seed")
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _check_crossed(given: SimpleNamespace) -> None:
    check_result(given.result, (f"{given.split}_{named(given.result, given.metric)}",), (f"num_{given.split}",))
    axes = axis_values(given.result)
    for name in CROSSED:
        if name not in axes or len(np.unique(given.result[name].values)) < 2:
            raise ValueError(f"result has fewer than 2 values of {name}; several, crossed with the other's, are needed")
    if len(np.unique(given.result["seed"].values)) > 1:
        raise ValueError("result has several values of seed; one is needed, beside init_seed and order_seed")
    for _, rows in _settings(given.result):
        counts = [rows[name].nunique() for name in CROSSED]
        if len(rows.drop_duplicates(list(CROSSED))) != counts[0] * counts[1] or min(counts) < 2:
            raise ValueError("result lacks runs of a setting; every init_seed with every order_seed is needed")


def _settings(result: xr.Dataset) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yields the values in which each setting differs from others, and its rows of `table`."""
    rows, names = results.table(result), [name for name in varied(result) if name not in SEEDS]
    if not names:
        yield {}, rows
        return
    for _, part in rows.groupby(names, sort=False):
        # Column by column: a row as a whole would turn whole numbers into floats.
        yield {name: part[name].iloc[:1].tolist()[0] for name in names}, part


@checked_by(_check_crossed, result=IsResult(SETTINGS, one_seed=False), split=CHOOSING_SPLIT, metric=METRIC)
def variance_table(result: xr.Dataset, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """Returns four rows per setting: how much each source adds to the variance of a metric.

    Sources are

    - `"init_seed"`: the initial parameters, and what is dropped out;
    - `"order_seed"`: the order of examples;
    - `"interaction"`: what is due to the two together, and to neither alone;
    - `"examples"`: which examples happen to be in the split.

    The first three make up the spread between runs. They are the estimates of an analysis of variance with two crossed
    random effects and one run in each cell; where none of them is 0, these are those of restricted maximum likelihood
    too (Searle, Casella and McCulloch 1992, Variance Components, section 4.4). The intervals of the first two are those
    of Tukey (1951, Biometrics 7:33) and Williams (1962, Biometrika 49:278), and that of the third is of a chi-squared
    distribution. All three suppose normal effects. An estimate below 0 is set to 0.

    The fourth is the binomial variance of an accuracy, p (1 - p) / n, on n independent examples (Bouthillier et al.
    2021, arXiv:2103.03098), with Wilson's interval for p. All runs share these examples: their spread does not show it,
    and more seeds do not lessen it. It is nan for other metrics, whose values by example are not in a result.

    Args:
      result: of a sweep over `init_seed` and `order_seed`, each with 2 values or more, of which every setting has all
        combinations.
      split: `"test"` or `"validation"`.
      metric: of the result; default the accuracy if it has one, and otherwise the loss.

    Returns:
      Columns: the hyperparameters with several values, `source`, `variance` with the ends of its 95 % interval,
      `variance_low` and `variance_high`, in the squared unit of the metric, and the square root `std`. All are nan for
      a setting with a run that diverged.

    Raises:
      ValueError: an argument is not as described above.
    """
    metric = named(result, metric)
    num_examples, tables = result.attrs[f"num_{split}"], []
    for setting, rows in _settings(result):
        values = rows.pivot(index="init_seed", columns="order_seed", values=f"{split}_{metric}").to_numpy(float)
        if rows["diverged_step"].notna().any():
            values = np.full_like(values, np.nan)
        found = crossed_variances(values)
        found["examples"] = binomial_variance(values.mean(), num_examples) if is_share(metric) else (np.nan,) * 3
        columns = ["variance", "variance_low", "variance_high"]
        table = pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("source").reset_index()
        for place, (name, value) in enumerate(setting.items()):
            table.insert(place, name, value)
        tables.append(table.assign(std=np.sqrt(table["variance"])))
    return pd.concat(tables, ignore_index=True)


def crossed_variances(values: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Returns the variances of rows, of columns and of what both leave over, each with its interval.

    Args:
      values: `[I, J]`, one for each pair of `init_seed` and `order_seed`.
    """
    from scipy import special

    shape, centred = values.shape, values - values.mean()
    by_row, by_column = centred.mean(axis=1), centred.mean(axis=0)
    residual_freedom = (shape[0] - 1) * (shape[1] - 1)
    residual = float(np.sum((centred - by_row[:, None] - by_column) ** 2))
    found = {}
    for name, means, freedom, each in zip(
        CROSSED, (by_row, by_column), (shape[0] - 1, shape[1] - 1), shape[::-1], strict=True
    ):
        # `each` is the number of runs behind a mean.
        squares, noise = each * float(np.sum(means**2)), freedom * residual / residual_freedom
        variance = (squares - noise) / (freedom * each)
        low, high = (
            (squares - noise * special.fdtri(freedom, residual_freedom, end))
            / (each * special.chdtri(freedom, 1 - end))
            for end in ENDS[::-1]
        )
        found[name] = tuple(np.maximum([variance, low, high], 0.0).tolist())
    low, high = (residual / special.chdtri(residual_freedom, 1 - end) for end in ENDS[::-1])
    found["interaction"] = (residual / residual_freedom, float(low), float(high))
    return found


def binomial_variance(share: float, num_examples: int) -> tuple[float, float, float]:
    """Returns the variance of an accuracy on a number of examples, with the ends of its 95 % interval."""
    ends = wilson(share, num_examples)
    variances = [end * (1 - end) / num_examples for end in ends]
    high = 0.25 / num_examples if ends[0] <= 0.5 <= ends[1] else max(variances)
    return share * (1 - share) / num_examples, float(min(variances)), float(high)

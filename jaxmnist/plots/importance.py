"""How much each hyperparameter matters, drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, WORDS, IsResult
from jaxmnist.analysis.importance import check_importance, importance_table
from jaxmnist.analysis.metrics import Metric, judged
from jaxmnist.analysis.words import metric_words
from jaxmnist.checks import checked_by
from jaxmnist.plots.curves import title_words
from jaxmnist.plots.style import COLORMAP, Figure, axis_label, house_style, write_result_caption

METHODS = {"fanova": "fANOVA: share of the variance", "ped_anova": "PED-ANOVA: share, of the best tenth"}


@checked_by(check_importance, result=IsResult(SETTINGS, WORDS), by=BY, largest=LARGEST)
def importance(result: xr.Dataset, *, by: str | None = None, largest: bool | None = None) -> Figure:
    """Returns how much each hyperparameter matters, by fANOVA and by PED-ANOVA, as `jm.importance_table` explains them.

    The first says what matters over all settings, and the second what matters among the good ones. Bars have 95 %
    intervals of a bootstrap over the settings. It needs Optuna (extra `search`).

    Args:
      result: of a sweep, a halving or a search, with at least 8 settings.
      by: the metric on the validation split that is analysed, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: as `jm.importance_table`.
    """
    metric = judged(result, by, largest)
    return figure_of(result, metric, importance_table(result, *metric))


def figure_of(result: xr.Dataset, metric: Metric, table: pd.DataFrame) -> Figure:
    """Returns the figure of a table, as `importance_table` returns it."""
    table = table[::-1]
    with house_style():
        figure = Figure(figsize=(7.2, 1.9 + 0.32 * len(table)), layout="constrained")
        for axes, (method, words) in zip(figure.subplots(1, 2, sharey=True), METHODS.items(), strict=True):
            values = table[method].to_numpy()
            bars = np.stack([values - table[f"{method}_low"], table[f"{method}_high"] - values])
            names = [axis_label(name).split(" (")[0] for name in table["hyperparameter"]]
            axes.barh(names, values, color=mpl.colormaps[COLORMAP](0.55), height=0.6)
            axes.errorbar(values, names, xerr=bars, fmt="none", ecolor="0.15", capsize=3, linewidth=1.2)
            axes.set(xlabel=words, xlim=(0, None))
            axes.tick_params("y", length=0)
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
        figure.suptitle(title_words(result, "validation"), x=0.01, ha="left", fontsize=11)
        count = table["num_settings"].iloc[0]
        notes = f"of {metric_words(metric.name)} over {count} settings", "95 % bootstrap intervals over settings"
        write_result_caption(figure, result, *notes)
    return figure

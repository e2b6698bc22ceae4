"""The figure of `jaxmnist.studies.published_noise`: critical batch sizes and noise scales as the target rises."""

import matplotlib as mpl
import numpy as np

from jaxmnist.plots.style import COLORMAP, MARKERS, Figure, house_style, write_caption
from jaxmnist.studies.published import Table
from jaxmnist.studies.published_noise import CRITICAL, KINDS, MEAN_NOISE, NOISE

LABELS = {
    CRITICAL: "critical batch size, from steps to the target",
    MEAN_NOISE: "noise scale, mean over the steps to the target",
    NOISE: "noise scale where the target is reached",
}
DODGE = 0.08  # percentage points between the kinds, whose intervals would cover each other


def figure(table: Table) -> Figure:
    """Returns critical batch size, mean noise scale and noise scale against the target, with 95 % intervals."""
    with house_style():
        drawn = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = drawn.subplots()
        for place, kind in enumerate(KINDS):
            rows = [row for row in table.rows if row.name.startswith(f"{kind}, to ")]
            targets = np.array([float(row.name.removesuffix(" %").rpartition(" ")[2]) for row in rows])
            ends = np.array([(row.ours.mean - row.ours.low, row.ours.high - row.ours.mean) for row in rows])
            axes.errorbar(
                targets + (place - 1) * DODGE, [row.ours.mean for row in rows], np.nan_to_num(ends.T), capsize=3,
                fmt=f"{MARKERS[place]}-", color=mpl.colormaps[COLORMAP](0.3 * place), markersize=5, label=LABELS[kind],
            )  # fmt: skip
        axes.set(xlabel="target: validation accuracy (%)", ylabel="batch size (examples)", yscale="log")
        axes.set_xticks(targets, [f"{target:g}" for target in targets])
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        drawn.legend(loc="outside upper left", frameon=False)
        write_caption(
            drawn,
            "MNIST, softmax regression",
            table.source,
            table.seeds,
            "geometric means with 95 % t intervals",
        )
    return drawn

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


def figure(table: Table) -> Figure:
    """Returns critical batch size, mean noise scale and noise scale against the target, with 95 % intervals."""
    with house_style():
        drawn = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = drawn.subplots()
        for place, kind in enumerate(KINDS):
            rows = [row for row in table.rows if row.name.startswith(f"{kind}, to ")]
            targets = [float(row.name.removesuffix(" %").rpartition(" ")[2]) for row in rows]
            means = [row.ours.mean for row in rows]
            ends = np.array([(row.ours.mean - row.ours.low, row.ours.high - row.ours.mean) for row in rows])
            color = mpl.colormaps[COLORMAP](0.3 * place)
            style = dict(fmt=f"{MARKERS[place]}-", color=color, markersize=5, capsize=3, label=LABELS[kind])
            axes.errorbar(targets, means, np.nan_to_num(ends.T), **style)
        axes.set(xlabel="target: validation accuracy (%)", ylabel="batch size (examples)", yscale="log")
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
        axes.set_title("MNIST, softmax regression", loc="left")
        write_caption(drawn, table.source, table.seeds, "geometric mean and 95 % t interval of the logarithm")
    return drawn

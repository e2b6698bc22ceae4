"""How the time and the memory of a sweep grow with its runs, batch size, parameters and cores.

Each point is measured in a process of its own. Sweeps of more runs than were measured are fitted: a constant, and an
amount for each run.
"""

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import common
import jax
import numpy as np
import optax
import pandas as pd
from scipy.optimize import nnls

import jaxmnist as jm
from jaxmnist.studies import output
from jaxmnist.sweeps import planning, programs
from jaxmnist.sweeps.running import put, train
from jaxmnist.sweeps.sizes import step_flops

from . import peers
from .memory import in_own_process, peak_bytes
from .work import Options

if TYPE_CHECKING:
    from jaxmnist.plots.style import Figure

NUM_STEPS, NUM_WARM = 50, 3
BATCH_SIZE = 64
MAX_RUNS = 2**20
MAX_TICKS = 5
# What the models are called by their hidden units; 0 is softmax regression, and -1 the original CNN.
SOFTMAX, CNN = 0, -1
AXES = {
    "runs": "number of runs (softmax regression, batch size 64)",
    "batch_size": "batch size (64 softmax regressions)",
    "num_params": "parameters of a run (8 runs, batch size 64)",
    "cores": "cores (512 softmax regressions)",
}
COLUMNS = ("axis", "value", "seconds", "bytes", "is_measured")


class Sweep(NamedTuple):
    """A sweep whose cost is measured.

    Attributes:
      runs: how many, of as many learning rates.
      batch_size: of each.
      hidden_size: of a perceptron, or `SOFTMAX` or `CNN`.
      cores: that it may use; 0 for all.
      num_steps: that are timed.
    """

    runs: int
    batch_size: int = BATCH_SIZE
    hidden_size: int = SOFTMAX
    cores: int = 0
    num_steps: int = NUM_STEPS


def sweeps(cores: int, small: bool) -> dict[str, list[Sweep]]:
    """Returns the sweeps to measure, by the axis along which they differ."""
    if small:
        return {
            "runs": [Sweep(runs, num_steps=2) for runs in (1, 4, 8)],
            "num_params": [Sweep(2, hidden_size=size, num_steps=2) for size in (SOFTMAX, 4)],
        }
    return {
        "runs": [Sweep(runs) for runs in (1, 8, 64, 512, 4096, 32768)],
        "batch_size": [Sweep(64, batch_size) for batch_size in (8, 32, 128, 512)],
        "num_params": [
            *(Sweep(8, hidden_size=size) for size in (SOFTMAX, 128, 256, 512, 1024)),
            Sweep(8, hidden_size=CNN, num_steps=5),
        ],
        "cores": [Sweep(512, cores=count) for count in range(1, cores + 1)],
    }


def measure(options: Options) -> pd.DataFrame:
    """Returns the cost of each sweep, and that of many more runs as it is fitted, as rows of `COLUMNS`."""
    rows = []
    for axis, along in sweeps(os.cpu_count() or 1, options.small).items():
        for sweep in along:
            num_params, seconds, grown = in_own_process(cost, options, sweep)
            value = num_params if axis == "num_params" else getattr(sweep, axis)
            rows.append((axis, value, seconds, grown, True))
            print(f"  {axis} {value:,}: {1e6 * seconds:.3g} µs per run and step, {grown / 2**20:.3g} MiB per run")
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return pd.concat([found, fitted(found[found["axis"] == "runs"])], ignore_index=True)


def use(cores: int) -> None:
    """Lets this process, before it uses jax, have so many cores, and makes a device of each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    jax.config.update("jax_num_cpu_devices", cores)


def cost(options: Options, sweep: Sweep) -> tuple[int, float, float]:
    """Returns the parameters of a run, its seconds for a step, without compilation, and its bytes of peak memory."""
    if sweep.cores:
        use(sweep.cores)
    dataset = options.load()
    num_classes = len(dataset.class_names)
    model = {SOFTMAX: jm.SoftmaxRegression(num_classes), CNN: jm.CNN(num_classes=num_classes)}.get(
        sweep.hidden_size, jm.MLP(sweep.hidden_size, num_classes)
    )
    runs = jm.grid(learning_rate=np.geomspace(1e-4, 1e-2, sweep.runs), batch_size=sweep.batch_size, seed=0)
    data = put(programs.local_mesh(), dataset)
    before, taken, num_params = peak_bytes(), [], 0
    for _ in range(1 + NUM_WARM):
        seconds = 0.0
        for spec, inputs, program, states in peers.begun(model, optax.sgd, runs, dataset, data, sweep.num_steps):
            boundaries = planning.segments(sweep.num_steps, 1, step_flops(program, states))
            num_params = sum(leaf.size for leaf in jax.tree.leaves(states.params)) // states.step.size
            jax.block_until_ready(states.step)
            start = time.perf_counter()
            for _, (reached, _) in train(spec, inputs, program, data.train, states, boundaries):
                jax.block_until_ready(reached.step)
            seconds += time.perf_counter() - start
        taken.append(seconds)
    each = float(np.median(taken[1:])) / sweep.runs / sweep.num_steps
    return num_params, each, (peak_bytes() - before) / sweep.runs


def fitted(measured: pd.DataFrame) -> pd.DataFrame:
    """Returns the costs of 2, 4, ... times as many runs as were measured at most, by least squares of relative errors.

    Args:
      measured: the rows of sweeps that differ in their number of runs; the larger half of them, on a logarithmic scale,
        is fitted.
    """
    measured = measured[measured["value"] ** 2 >= measured["value"].min() * measured["value"].max()]
    runs = measured["value"].to_numpy(float)
    largest = runs.max()
    counts = largest * 2.0 ** np.arange(1, np.log2(MAX_RUNS / largest) + 1)
    columns = {"axis": "runs", "value": counts, "is_measured": False}
    for name in ("seconds", "bytes"):
        each = measured[name].to_numpy(float)
        # What a run costs is what it takes by itself, and its share of what all take together.
        shares = np.stack([np.ones(len(runs)), 1 / runs], axis=1)
        (alone, together), _ = nnls(shares / each[:, None], np.ones(len(runs)))
        columns[name] = alone + together / counts
    return pd.DataFrame(columns)[list(COLUMNS)]


def draw(costs: pd.DataFrame, measured_on: dict) -> "Figure":
    """Returns time and memory per run along each axis, what is fitted as open circles."""
    from matplotlib import ticker

    from jaxmnist.plots.style import Figure, house_style, log_ticks, write_caption

    axes_of = [axis for axis in AXES if axis in set(costs["axis"])]
    with house_style():
        figure = Figure(figsize=(3.2 * len(axes_of), 5.2), layout="constrained")
        panels = figure.subplots(2, len(axes_of), squeeze=False, sharex="col")
        for column, axis in zip(panels.T, axes_of, strict=True):
            own = costs[costs["axis"] == axis].sort_values("value")
            for axes, name, unit in zip(column, ("seconds", "bytes"), (1e6, 2.0**-20), strict=True):
                for is_measured, style in ((True, {}), (False, {"markerfacecolor": "white"})):
                    part = own[own["is_measured"] == is_measured]
                    label = "measured" if is_measured else "fitted"
                    if len(part):
                        line = "o-" if is_measured else "o--"
                        axes.plot(part["value"], unit * part[name], line, color="tab:blue", label=label, **style)
                axes.set(xscale="log", yscale="log")
                low, high = unit * own[name].min(), unit * own[name].max()
                axes.set_ylim(low / 1.6, high * 1.6)
                log_ticks(axes, "y", low / 1.6, high * 1.6)
            values = np.unique(own["value"])
            few, many = ticker.FixedLocator(values.tolist()), ticker.LogLocator(numticks=MAX_TICKS)
            column[1].xaxis.set_major_locator(few if len(values) <= MAX_TICKS else many)
            column[1].xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
            column[1].xaxis.set_minor_locator(ticker.NullLocator())
            column[1].set_xlabel(AXES[axis].replace(" (", "\n("))
        panels[0, 0].set_ylabel("time per run and step (µs)")
        panels[1, 0].set_ylabel("peak memory per run (MiB)")
        panels[0, 0].legend()
        write_caption(
            figure,
            f"{measured_on['cpu']}, {measured_on['cores']} cores, {measured_on['date']}",
            f"training alone, medians of {NUM_WARM} calls after a first one; memory with compilation",
        )
    return figure


def save(options: Options, measured_on: dict) -> None:
    """Measures all costs, and saves and draws them."""
    path = options.output_dir / "cost_curves.csv"
    output.write_table(measure(options), path, "%.6g")
    common.save_figure(draw(pd.read_csv(path), measured_on), path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")

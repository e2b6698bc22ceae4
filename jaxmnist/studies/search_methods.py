"""Methods of search beside each other: the best validation loss that each has found, against the seconds it took.

Shapes: S seeds of a setting.
"""

import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from jaxmnist.analysis import results
from jaxmnist.analysis.export import check_installed as check_installed
from jaxmnist.analysis.export import new_study
from jaxmnist.analysis.intervals import half_width
from jaxmnist.core import training
from jaxmnist.core.state import NEVER, init_state
from jaxmnist.data.dataset import Dataset
from jaxmnist.data.order import example_order
from jaxmnist.plots.style import Figure, house_style, line_style, log_ticks, write_caption
from jaxmnist.sweeps.halving import halve
from jaxmnist.sweeps.hyperband import hyperband
from jaxmnist.sweeps.runs import grid, loguniform, sample, uniform, with_seeds
from jaxmnist.sweeps.samplers import distribution_of, parse
from jaxmnist.sweeps.search import search
from jaxmnist.sweeps.sweep import sweep

BATCH_SIZES = (32, 64, 128)
SPACE: dict[str, Any] = {
    "learning_rate": loguniform(1e-3, 3.0),
    "momentum": uniform(0.0, 0.99),
    "weight_decay": loguniform(1e-6, 1e-2),
    "final_share": uniform(0.0, 1.0),
    "batch_size": BATCH_SIZES,
}
FACTOR = 4
MANY_POINTS = 32
ALONE = "Optuna alone (TPE)"
COLUMNS = ("model", "method", "repetition", "settings", "seconds", "validation_loss")


class Budget(NamedTuple):
    """How much each method may do.

    Attributes:
      num_steps: of a run that is not pruned.
      num_seeds: S.
      points: the numbers of grid points of each hyperparameter except the batch size, in the order of the space.
      batch: the settings of a round.
      gp_batch: the settings of a round of the Gaussian process, which takes longer to ask than to train.
      num_rounds: of each search.
      num_halved: the settings that halving and Hyperband begin with.
      seconds: after which Optuna alone begins no other trial.
    """

    num_steps: int
    num_seeds: int
    points: tuple[int, int, int, int]
    batch: int
    gp_batch: int
    num_rounds: int
    num_halved: int
    seconds: float


QUICK = Budget(100, 2, (4, 2, 1, 1), 12, 4, 2, 96, 8.0)
FULL = Budget(150, 2, (4, 4, 2, 2), 48, 8, 4, 768, 20.0)


class Problem(NamedTuple):
    """What is searched, and what differs between repetitions.

    Attributes:
      model: what is trained.
      optimizer: a function of the hyperparameters of the space that returns a gradient transformation.
      dataset: what to train and evaluate on.
      budget: how much each method may do.
      repetition: decides the seeds of all runs, and what samplers draw.
    """

    model: nn.Module
    optimizer: Callable[..., optax.GradientTransformation]
    dataset: Dataset
    budget: Budget
    repetition: int

    @property
    def seeds(self) -> range:
        """The seeds of each setting, which other repetitions do not have."""
        return range(self.repetition * self.budget.num_seeds, (self.repetition + 1) * self.budget.num_seeds)


# Settings so far, the time at which they had been trained, and the best validation loss among them.
Found = tuple[int, float, float]


def sgd(
    learning_rate: jax.typing.ArrayLike,
    momentum: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    final_share: jax.typing.ArrayLike,
    num_steps: int,
) -> optax.GradientTransformation:
    """Returns SGD with momentum and weight decay, whose learning rate falls along a cosine to a share of itself."""
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps, final_share)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum))


def compare(
    models: dict[str, nn.Module], dataset: Dataset, budget: Budget, num_repetitions: int
) -> Iterator[pd.DataFrame]:
    """Yields what each method has found in each repetition, as rows of `COLUMNS`.

    Methods take turns within a repetition. Each begins without compiled programs, so that its seconds include all of
    its compilations.
    """
    for repetition in range(num_repetitions):
        for name, model in models.items():
            optimizer = functools.partial(sgd, num_steps=budget.num_steps)
            problem = Problem(model, optimizer, dataset, budget, repetition)
            for method, run in methods().items():
                jax.clear_caches()
                start = time.time()
                rows = [(name, method, repetition, count, end - start, loss) for count, end, loss in run(problem)]
                yield pd.DataFrame(rows, columns=list(COLUMNS))


def methods() -> dict[str, Callable[[Problem], list[Found]]]:
    """Returns the methods by name; without torch, which the sampler of the Gaussian process needs, GP is left out."""
    found: dict[str, Callable[[Problem], list[Found]]] = {
        "grid": _grid,
        "random": functools.partial(_in_rounds, sampler="random"),
        "Sobol": functools.partial(_in_rounds, sampler="sobol"),
        "TPE": functools.partial(_in_rounds, sampler="optuna"),
        "GP": _gaussian_process,
        "halving": functools.partial(_pruned, function=halve),
        "Hyperband": functools.partial(_pruned, function=hyperband),
        ALONE: _alone,
    }
    if importlib.util.find_spec("torch") is None:
        del found["GP"]
    return found


def _shared(problem: Problem) -> dict[str, Any]:
    return dict(num_steps=problem.budget.num_steps, progress=False)


def _grid(problem: Problem) -> list[Found]:
    """Returns what a grid finds whose points lie in the middles of equal parts of each axis."""
    axes = {
        name: [SPACE[name].at((place + 0.5) / count) for place in range(count)]
        for name, count in zip(SPACE, problem.budget.points, strict=False)
    }
    runs = grid(**axes, batch_size=BATCH_SIZES, seed=problem.seeds)
    return _at_end(problem, sweep(problem.model, problem.optimizer, runs, problem.dataset, **_shared(problem)))


def _pruned(problem: Problem, function: Callable[..., xr.Dataset]) -> list[Found]:
    runs = with_seeds(sample(problem.budget.num_halved, problem.repetition, **SPACE), problem.seeds)
    shared = _shared(problem) | dict(factor=FACTOR)
    return _at_end(problem, function(problem.model, problem.optimizer, runs, problem.dataset, **shared))


def _at_end(problem: Problem, result: xr.Dataset) -> list[Found]:
    """Returns the best setting of a result that says nothing before its end."""
    ranked = results.settings(result, by="loss")
    return [(len(ranked), time.time(), float(ranked["validation_loss"].iloc[0]))]


def _gaussian_process(problem: Problem) -> list[Found]:
    import optuna

    study = new_study(largest=False)
    study.sampler = optuna.samplers.GPSampler(seed=problem.repetition)
    return _in_rounds(problem, "optuna", study, problem.budget.gp_batch)


def _in_rounds(problem: Problem, sampler: str, study: Any = None, batch: int | None = None) -> list[Found]:
    """Returns what a search in rounds has found after each; the files of its folder say when that was."""
    budget = problem.budget
    with tempfile.TemporaryDirectory() as folder:
        result = search(
            problem.model, problem.optimizer, SPACE, problem.dataset, num_rounds=budget.num_rounds,
            batch=batch or budget.batch, seeds=problem.seeds, sampler=sampler, sampler_seed=problem.repetition,
            study=study, folder=folder, **_shared(problem),
        )  # fmt: skip
        ends = [path.stat().st_mtime for path in sorted(Path(folder).glob("round_*/results.nc"))]
    rounds, diverged_steps = result["round"].values, result["diverged_step"].values
    losses = result["validation_loss"].values.reshape(-1, budget.num_seeds).mean(axis=1)
    has_diverged = np.isfinite(diverged_steps).reshape(-1, budget.num_seeds).any(axis=1)
    best = np.minimum.accumulate(np.where(has_diverged, np.inf, losses))
    counts = np.searchsorted(rounds, np.unique(rounds), side="right") // budget.num_seeds
    return [(int(count), end, float(best[count - 1])) for count, end in zip(counts, ends, strict=True)]


def _alone(problem: Problem) -> list[Found]:
    """Returns what Optuna finds by training one setting after another, all seeds of it at once.

    Each batch size is compiled once, for all settings that have it.
    """
    import optuna

    model, budget = problem.model, problem.budget
    splits = [jax.tree.map(jnp.asarray, split) for split in (problem.dataset.train, problem.dataset.validation)]
    seeds = jnp.array(problem.seeds)

    @functools.partial(jax.jit, static_argnames="batch_size")
    def loss_of(values, orders, train, validation, batch_size):
        def one_seed(seed, order):
            optimizer = problem.optimizer(**values)
            state = init_state(model, optimizer, seed, train.inputs)
            state, _ = training.fit(model, optimizer, state, train, order, batch_size, num_steps=budget.num_steps)
            loss = training.evaluate(model, state.params, validation).loss
            return jnp.where(state.diverged_step == NEVER, loss, jnp.nan)

        return jax.vmap(one_seed)(seeds, orders).mean()

    @functools.cache
    def orders_of(batch_size):
        length = budget.num_steps * batch_size
        return jnp.array([example_order(len(splits[0].targets), seed, length) for seed in problem.seeds])

    distributions = {name: distribution_of(axis) for name, axis in parse(SPACE).items()}
    study = new_study(largest=False)
    study.sampler = optuna.samplers.TPESampler(seed=problem.repetition)
    found: list[Found] = []
    stop, best = time.time() + budget.seconds, np.inf
    while time.time() < stop:
        trial = study.ask(distributions)
        values = dict(trial.params)
        batch_size = values.pop("batch_size")
        loss = float(loss_of(values, orders_of(batch_size), *splits, batch_size))
        # Pruned trials count as the worst ones.
        study.tell(trial, loss) if np.isfinite(loss) else study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        best = min(best, loss) if np.isfinite(loss) else best
        found.append((len(found) + 1, time.time(), best))
    return found


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per model and method: what it has found at its end, and how much sooner than Optuna alone.

    Args:
      found: rows of `COLUMNS`.

    Returns:
      Means over repetitions of `settings`, `seconds` and `validation_loss`, the half width of its 95 % t interval, and
      medians of two ratios. `times_settings` compares settings per second with those of Optuna alone. `times_sooner` is
      the time that Optuna alone took to its best loss over the time in which the method found one that is no worse; it
      is nan if the method found none in more than half of the repetitions.
    """
    rows = []
    for (model, method), own in found.groupby(["model", "method"], sort=False):
        last = own.groupby("repetition").last()
        alone = found[(found["model"] == model) & (found["method"] == ALONE)]
        sooner = [_first(alone, number) / _first(own, number, _best(alone, number)) for number in last.index]
        rate, rate_alone = (each["settings"] / each["seconds"] for each in (last, alone.groupby("repetition").last()))
        rows.append(
            {
                "model": model,
                "method": method,
                **last[["settings", "seconds", "validation_loss"]].mean(),
                "half_width": half_width(last["validation_loss"].std(), len(last)),
                "times_settings": (rate / rate_alone).median(),
                # A repetition that never got there counts as 0 times as soon.
                "times_sooner": float(np.median(sooner)) or np.nan,
            }
        )
    return pd.DataFrame(rows)


def _best(found: pd.DataFrame, repetition: int) -> float:
    return found.loc[found["repetition"] == repetition, "validation_loss"].min()


def _first(found: pd.DataFrame, repetition: int, loss: float | None = None) -> float:
    """Returns the seconds until a repetition had this validation loss, default its best; infinity if it never did."""
    own = found[found["repetition"] == repetition]
    reached = own[own["validation_loss"] <= (own["validation_loss"].min() if loss is None else loss)]
    return reached["seconds"].min() if len(reached) else np.inf


def figure(found: pd.DataFrame, caption: str) -> Figure:
    """Returns a panel per model: the best validation loss so far against seconds, means over repetitions.

    Bands and bars are 95 % t intervals. A method that says nothing before its end is a point.

    Args:
      found: rows of `COLUMNS`.
      caption: what was compared, in words.
    """
    models = list(dict.fromkeys(found["model"]))
    names = list(dict.fromkeys(found["method"]))
    with house_style():
        drawn = Figure(figsize=(5.2 * len(models) + 1.8, 4.6), layout="constrained")
        all_axes = drawn.subplots(1, len(models), squeeze=False)[0]
        for axes, model in zip(all_axes, models, strict=True):
            own = found[found["model"] == model]
            for place, name in enumerate(names):
                _draw(axes, own[own["method"] == name], line_style(place, len(names)) | dict(label=name))
            axes.set(xscale="log", yscale="log", xlabel="seconds, with compilations")
            axes.set_title(model, loc="left")
            # The first trials of Optuna alone lie far above everything else.
            others = own[(own["method"] != ALONE) & np.isfinite(own["validation_loss"])]
            means = others.groupby(["method", "settings"])["validation_loss"].mean()
            axes.set_ylim(0.95 * own["validation_loss"].min(), 1.1 * means.max())
            log_ticks(axes, "x", own["seconds"].min(), own["seconds"].max())
            log_ticks(axes, "y", *axes.get_ylim())
        all_axes[0].set_ylabel("best validation loss so far (nats)")
        all_axes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        write_caption(drawn, caption)
    return drawn


def _draw(axes: Axes, found: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draws a method: points if it has one in each repetition, otherwise a line over the counts that all have."""
    num_repetitions = found["repetition"].nunique()
    by_count = found[np.isfinite(found["validation_loss"])].groupby("settings")
    rows = by_count[["seconds", "validation_loss"]].mean()
    width = half_width(by_count["validation_loss"].std(), num_repetitions)
    is_whole = by_count.size() == num_repetitions
    rows, width = rows[is_whole], width[is_whole]
    seconds, losses = rows["seconds"], rows["validation_loss"]
    if len(found) == num_repetitions:
        axes.errorbar(seconds, losses, width, capsize=3, **style | dict(linestyle=""))
        return
    is_long = len(rows) > MANY_POINTS
    axes.plot(seconds, losses, drawstyle="steps-post", **style | (dict(marker="") if is_long else {}))
    axes.fill_between(
        seconds, losses - width, losses + width, step="post", color=style["color"], alpha=0.15, linewidth=0
    )

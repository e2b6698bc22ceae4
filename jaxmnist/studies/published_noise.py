"""The gradient noise scale of MNIST and the critical batch size; see `jaxmnist.studies.published`.

Shapes: N training examples, W windows of consecutive steps.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.analysis.intervals import Interval, t_interval
from jaxmnist.studies.published import Row, Table
from jaxmnist.studies.published_recipes import pytorch_init, standardised, with_validation

if TYPE_CHECKING:
    import xarray as xr

# Of the replication: gradients of 20 consecutive steps of 128 examples stand for one of 2,560 examples.
BATCH_SIZE, LEARNING_RATE, WINDOW, DECAY = 128, 0.01, 20, 0.99
EPOCH = 60_000 // BATCH_SIZE


class ResidualNetwork(nn.Module):
    """The replication's network: strided convolutions with a residual block after each, and batch normalisation.

    Attributes:
      features: output channels of each part.
    """

    features: tuple[int, ...] = (8, 16, 32, 16)

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, 10]` float32."""

        def convolved(inputs, features, stride):
            init = pytorch_init(9 * inputs.shape[-1])
            return nn.Conv(features, (3, 3), (stride, stride), padding=1, **init)(inputs)

        hidden = standardised(images)
        for features in self.features:
            hidden = added = convolved(hidden, features, 2)
            for _ in range(2):
                normalised = nn.BatchNorm(use_running_average=not training, momentum=0.9)
                added = nn.relu(normalised(convolved(added, features, 1)))
            hidden += added
        return convolved(hidden, 10, 2).reshape(images.shape[0], -1)


class Windows(NamedTuple):
    """What the replication's statistic is made of.

    Attributes:
      step: `[]` int32, steps taken.
      total: the sum of the gradients of this window.
      squared_norms: `[W, 2]` float32, the squared norms of each window's mean gradient and of its last one.
    """

    step: jax.Array
    total: optax.Params
    squared_norms: jax.Array


def gradient_windows(num_windows: int) -> optax.GradientTransformation:
    """Returns a transformation that leaves gradients as they are, and remembers the norms that `Windows` holds."""

    def init(params):
        return Windows(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), jnp.zeros((num_windows, 2)))

    def update(grads, state, params=None):
        total = jax.tree.map(jnp.add, state.total, grads)
        norms = jnp.stack([optax.tree.norm(total, squared=True) / WINDOW**2, optax.tree.norm(grads, squared=True)])
        step = state.step + 1
        is_end = step % WINDOW == 0
        squared_norms = jnp.where(is_end, state.squared_norms.at[state.step // WINDOW].set(norms), state.squared_norms)
        return grads, Windows(step, jax.tree.map(lambda leaf: jnp.where(is_end, 0, leaf), total), squared_norms)

    return optax.GradientTransformation(init, update)


def replicated_scale(squared_norms: np.ndarray, batch_size: int = BATCH_SIZE) -> float:
    """Returns the replication's statistic: the mean over windows of the ratio of two running averages.

    These are of the estimates of McCandlish et al. 2018, equations A.2 and A.3, from one batch and from a window's mean
    gradient, with a decay of 0.99.

    Args:
      squared_norms: `[W, 2]`, as in `Windows`.
      batch_size: examples of a step.
    """
    small, large = batch_size, batch_size * WINDOW
    large_norm, small_norm = np.asarray(squared_norms, np.float64).T
    trace = (small_norm - large_norm) / (1 / small - 1 / large)
    squared_norm = (large * large_norm - small * small_norm) / (large - small)
    ages = np.arange(len(trace))
    # The running averages' common factor cancels in their ratio.
    decays = np.where(ages[:, None] >= ages, DECAY ** (ages[:, None] - ages), 0.0)
    return float(np.mean((decays @ trace) / (decays @ squared_norm)))


def gradients_of(dataset: jm.Dataset, seeds: Sequence[int], num_windows: int, model: nn.Module) -> list[np.ndarray]:
    """Returns, for each seed, the squared norms of the gradients of a run of the replication, `[num_windows, 2]`."""
    optimizer = optax.chain(gradient_windows(num_windows), optax.sgd(LEARNING_RATE))
    fit = jax.jit(jm.fit, static_argnums=(0, 1, 5), static_argnames="num_steps")
    num_steps, split, found = num_windows * WINDOW, jax.device_put(dataset.train), []
    for seed in seeds:
        state = jm.init_state(model, optimizer, seed, split.inputs)
        order = jm.example_order(len(split.targets), seed, num_steps * BATCH_SIZE)
        state, _ = fit(model, optimizer, state, split, order, BATCH_SIZE, num_steps=num_steps)
        found.append(np.asarray(state.opt_state[0].squared_norms))
    return found


# Softmax regression reaches these validation accuracies in a few to some thousand steps.
TARGETS = (0.8, 0.84, 0.88, 0.9)
BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
STEPS_BETWEEN = 5
CRITICAL, MEAN_NOISE, NOISE = KINDS = ("critical batch size", "mean noise scale", "noise scale reached")


def scale_interval(scales: Sequence[float]) -> Interval:
    """Returns the geometric mean of ratios, which are above 0 and skewed, and the t interval of their logarithms."""
    mean, low, high, kind = t_interval(np.log(scales))
    return Interval(math.exp(mean), math.exp(low), math.exp(high), kind)


def critical_batch_size(result: "xr.Dataset", target: float) -> Interval | None:
    """Returns the critical batch size that follows from the steps to a target; None if fewer than 3 sizes reach it.

    For each seed, the law of McCandlish et al. 2018, equation 2.11, is fitted to its steps, at the learning rates whose
    means over seeds are the fewest.

    Args:
      result: of a grid over learning rates, batch sizes and seeds, with recorded validation curves.
      target: validation accuracy, a fraction.
    """
    rates = jm.best_rates(jm.target_table(result, target))
    if len(rates) < 3:
        return None
    steps = jm.steps_to_target(result, target)
    sizes, places = rates["batch_size"].tolist(), zip(rates["batch_size"], rates["learning_rate"], strict=True)
    taken = [steps.sel(batch_size=size, learning_rate=rate).values for size, rate in places]
    return scale_interval([jm.fit_scaling(sizes, each).critical_batch_size for each in np.transpose(taken)])


def noise_up_to(result: "xr.Dataset", dataset: jm.Dataset, targets: Sequence[float]) -> dict[float, tuple]:
    """Returns, for each target, the mean noise scale of the largest batch size's runs until it, and that reached.

    The steps of a run that is hardly noisy are those that the law of the critical batch size averages over: a step of
    batch size B makes 1 / (1 + noise scale / B) of the progress of a noiseless one (McCandlish et al. 2018, equation
    2.7).

    Args:
      result: of a grid over learning rates, batch sizes and seeds, with recorded validation curves.
      dataset: what it was trained on.
      targets: validation accuracies that the largest batch size reaches.
    """
    size = int(result["batch_size"].max())
    tables = [jm.target_table(result, target) for target in targets]
    rates = jm.best_rates(tables[-1])
    rate = float(rates["learning_rate"][rates["batch_size"] == size].iloc[0])
    found: dict[float, list] = {target: [] for target in targets}
    for seed in result["seed"].values.tolist():
        run = result.sel(batch_size=size, learning_rate=rate, seed=seed)
        steps = {target: int(jm.steps_to_target(run, target).item()) for target in targets}
        noise = jm.noise_scale_along_training(
            jm.SoftmaxRegression(), optax.sgd(rate), dataset, batch_size=size, seed=seed,
            steps=range(0, max(steps.values()) + 1, STEPS_BETWEEN),
        ).set_index("step")["noise_scale"]  # fmt: skip
        for target, step in steps.items():
            found[target].append((noise.loc[:step].mean(), noise.loc[step]))
    return {target: tuple(map(scale_interval, np.transpose(values))) for target, values in found.items()}


def noise_table(full: bool, folder: Path | None, progress: bool) -> Table:
    """Returns the noise scale of the replication, and critical batch sizes beside noise scales as the target rises.

    Args:
      full: whether to train 10 seeds rather than 3, and for 3,000 steps rather than 600.
      folder: where the sweep is saved and resumed from; None for nowhere.
      progress: whether to show a bar.

    Raises:
      DatasetUnavailable: MNIST is not prepared.
    """
    dataset = jm.load("mnist")
    seeds, num_steps = (range(10), 3000) if full else (range(3), 600)
    begin = time.monotonic()
    norms = gradients_of(with_validation(dataset), seeds, EPOCH // WINDOW, ResidualNetwork())
    scales = [replicated_scale(each) for each in norms]
    spread = f"single runs from {min(scales):.0f} to {max(scales):.0f}"
    seconds = time.monotonic() - begin
    rows = [Row("one epoch, residual network", "examples", 876.0, scale_interval(scales), seconds, note=spread)]
    begin = time.monotonic()
    runs = jm.grid(learning_rate=LEARNING_RATES, batch_size=BATCH_SIZES, seed=seeds)
    result = jm.sweep(
        jm.SoftmaxRegression(), optax.sgd, runs, dataset, num_steps=num_steps, progress=progress, folder=folder,
        num_evaluations=num_steps // STEPS_BETWEEN,
    )  # fmt: skip
    rows += target_rows(result, dataset, TARGETS, begin)
    return Table(
        title="Gradient noise scale and critical batch size, MNIST",
        source="McCandlish et al. 2018, arXiv:1812.06162; replication by shreyansh26",
        recipe="residual network: SGD at rate 0.01, batch size 128; then softmax regression, SGD, rates from 0.03 to 3",
        budget=f"one epoch; then equal steps: {num_steps:,}",
        seeds=f"{len(seeds)} seeds",
        rows=tuple(rows),
        notes=(
            "876 is one run, to be compared with the range of our single runs. The paper has about 900, for its own "
            "network.",
            "A critical batch size sums up all steps to its target, and the noise scale rises by a factor of 10 to 100 "
            "on the way; hence its mean over these steps is the one to compare, and not the noise scale at the end.",
            "So compared, the two rise together. With 10 seeds they differ by less than a factor of 2 up to 88 %; to "
            "90 %, the mean noise scale is 4.7 times the critical batch size. The simple noise scale leaves out "
            "curvature (equation 2.9 in place of 2.8), which tells most where gradients have become small.",
            "Means are geometric, since noise scales are skewed.",
        ),
    )


def target_rows(result: "xr.Dataset", dataset: jm.Dataset, targets: Sequence[float], begin: float) -> list[Row]:
    """Returns three rows for each target that 3 batch sizes reach: the critical batch size, and two noise scales."""
    critical = {target: critical_batch_size(result, target) for target in targets}
    reached = [target for target, found in critical.items() if found is not None]
    noise = noise_up_to(result, dataset, reached) if reached else {}
    seconds = time.monotonic() - begin
    return [
        Row(f"{kind}, to {100 * target:g} %", "examples", None, found, seconds)
        for target in reached
        for kind, found in zip(KINDS, (critical[target], *noise[target]), strict=True)
    ]

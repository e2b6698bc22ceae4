"""The boundary of trainability as it was published: the six conditions of Sohl-Dickstein 2024, arXiv:2402.06184.

The network, its data and its initial weights are those of the paper's notebook (github.com/Sohl-Dickstein/fractal), bit
for bit where jax still draws the same random numbers: a network with one hidden layer of n = 16 units, without biases,
with one output, trained in float64 by plain gradient descent on random numbers. A picture is one sweep; its runs differ
in two positions, each the logarithm of a learning rate or of the offset of the first layer's weights.

Each step is observed by the optimizer, since the paper's measure of convergence takes the loss of every step.

Shapes: B examples, N points of an axis; a picture is `[N, N]`, its rows from bottom to top along the second axis.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.studies import boundary
from jaxmnist.studies.boundary import LAST_STEPS, MAX_LOSS_RATIO, Axis, Window

if TYPE_CHECKING:
    import xarray as xr

ConditionName = Literal["linear", "relu", "single_point", "minibatch", "tanh", "offset"]
WIDTH = 16
NUM_STEPS = 500
WINDOW: Window = (-3.0, 6.0, -3.0, 6.0)
# How many pieces of the boundary a picture has along each axis, of which a typical one is zoomed into.
PIECES = 16
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda z: jnp.tanh(math.sqrt(2) * z),
    "relu": lambda z: math.sqrt(2) * jax.nn.relu(z),
    "identity": lambda z: z,
}


class Condition(NamedTuple):
    """One of the paper's six experiments.

    Attributes:
      words: what it is called in a table.
      dimension: of its boundary, as the paper reports it.
      activation: one of `ACTIVATIONS`.
      num_examples: of the random data; by default as many as the network has parameters.
      batch_size: of a step, drawn with replacement; 0 trains on all examples.
      has_offset: whether the axes are the offset of the first layer's weights and one learning rate for both layers, in
        place of a learning rate for each.
    """

    words: str
    dimension: float
    activation: str = "tanh"
    num_examples: int = WIDTH * WIDTH + WIDTH
    batch_size: int = 0
    has_offset: bool = False


CONDITIONS: dict[str, Condition] = {
    "linear": Condition("linear network", 1.17, "identity", WIDTH),
    "relu": Condition("ReLU", 1.20, "relu"),
    "single_point": Condition("tanh, a single example", 1.41, num_examples=1),
    "minibatch": Condition("tanh, minibatches of 16", 1.55, batch_size=16),
    "tanh": Condition("tanh, full batch", 1.66),
    "offset": Condition("tanh, offset of the weights", 1.98, has_offset=True),
}
AXES = {
    "first": Axis("learning rate of the first layer", *WINDOW[:2]),
    "last": Axis("learning rate of the last layer", *WINDOW[2:]),
    "offset": Axis("offset of the first layer's weights", *WINDOW[:2]),
    "both": Axis("learning rate of both layers", *WINDOW[2:]),
}
assert set(CONDITIONS) == set(get_args(ConditionName))


@functools.cache
def numbers(num_examples: int) -> dict[str, np.ndarray]:
    """Returns the notebook's random numbers: `first` `[16, 16]`, `last` `[1, 16]`, `inputs` `[B, 16]`, `targets` `[B]`.

    Weights are transposed: the notebook multiplies inputs by them from the right.
    """
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        key, weights_key = jax.random.split(jax.random.PRNGKey(0))
        first_key, last_key = jax.random.split(weights_key)
        key, inputs_key = jax.random.split(key)
        key, targets_key = jax.random.split(key)
        drawn = {
            "first": jax.random.normal(first_key, (WIDTH, WIDTH)).T,
            "last": jax.random.normal(last_key, (WIDTH, 1)).T,
            "inputs": jax.random.normal(inputs_key, (num_examples, WIDTH)),
            "targets": jax.random.normal(targets_key, (num_examples, 1))[:, 0],
        }
        return {name: np.asarray(values) for name, values in drawn.items()}


def predictions(first: jax.Array, last: jax.Array, inputs: jax.Array, activation: str) -> jax.Array:
    """Returns the network's outputs `[B]` for inputs `[B, 16]`, in the notebook's mean-field parameterization."""
    hidden = ACTIVATIONS[activation](first @ inputs.T / math.sqrt(WIDTH))
    return (last @ hidden)[0] / WIDTH


class Network(nn.Module):
    """The paper's network, which in evaluation also answers with the measure of its convergence.

    Attributes:
      activation: one of `ACTIVATIONS`.
      num_examples: for which the notebook draws its weights.
      offset_origin: the logarithm of the offset at the edge of the picture; may be traced.
      offset: the distance from that edge; None for no offset.
    """

    activation: str = "tanh"
    num_examples: int = 1
    offset_origin: Any = 0.0
    offset: Any = None

    @nn.compact
    def __call__(self, inputs: jax.Array, training: bool) -> jax.Array:
        """Maps inputs `[B, 16]` to predictions `[B, 1]`, in evaluation to predictions and the measure `[B, 2]`."""
        drawn = numbers(self.num_examples)
        first = self.param("first", lambda key: jnp.asarray(drawn["first"]) + self.shift())
        last = self.param("last", lambda key: jnp.asarray(drawn["last"]))
        # Neither is trained: the optimizer reads the one, and `with_measure` replaces the other.
        self.param("shift", lambda key: self.shift())
        measure = self.param("measure", lambda key: jnp.zeros_like(self.shift()))
        outputs = predictions(first, last, inputs, self.activation)
        if training:
            return outputs[:, None]
        outputs = jnp.where(jnp.isfinite(outputs), jnp.clip(outputs, -MAX_LOSS_RATIO, MAX_LOSS_RATIO), MAX_LOSS_RATIO)
        return jnp.stack([outputs, jnp.broadcast_to(measure, outputs.shape)], axis=1)

    def shift(self) -> jax.Array:
        """Returns the offset of the first layer's weights, `[]`."""
        return jnp.asarray(0.0 if self.offset is None else 10.0 ** (self.offset_origin + self.offset))


class Observed(NamedTuple):
    """What the optimizer remembers of the losses so far, each divided by the first and at most 1e6.

    Attributes:
      num_steps: `[]` int32, training steps taken.
      initial: `[]`, the first loss.
      total: `[]`, the sum of the ratios.
      inverses: `[]`, the sum of their inverses.
      last: `[]`, the mean of the last 20, as far as they have been seen.
    """

    num_steps: jax.Array
    initial: jax.Array
    total: jax.Array
    inverses: jax.Array
    last: jax.Array


def layered_descent(
    first_origin: Any, first: Any, last_origin: Any, last: Any, *, condition: str, num_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Returns gradient descent with a rate for each layer that observes the loss of every step.

    Args:
      first_origin: the logarithm of the first layer's rate at the edge of the picture.
      first: the distance from that edge.
      last_origin: the same of the last layer.
      last: the same of the last layer.
      condition: one of `CONDITIONS`.
      num_steps: of the training.
    """
    return _observed((10.0 ** (first_origin + first), 10.0 ** (last_origin + last)), condition, num_steps)


def descent(both_origin: Any, both: Any, *, condition: str, num_steps: int) -> optax.GradientTransformationExtraArgs:
    """Returns the same with one rate for both layers."""
    return _observed((10.0 ** (both_origin + both),) * 2, condition, num_steps)


def _observed(rates: tuple[Any, Any], condition: str, num_steps: int) -> optax.GradientTransformationExtraArgs:
    """Returns gradient descent with a rate for each layer.

    As in the notebook, the offset of the first layer's weights is added at each step, and not only at the beginning.
    """
    has_minibatches = CONDITIONS[condition].batch_size > 0

    def init(params):
        return Observed(jnp.zeros((), jnp.int32), *(jnp.zeros((), params["first"].dtype) for _ in range(4)))

    def update(grads, state, params, *, value, **_):
        value = loss_on_all(params, condition) if has_minibatches else value
        still = jax.tree.map(jnp.zeros_like, params)
        steps = {"first": params["shift"] - rates[0] * grads["first"], "last": -rates[1] * grads["last"]}
        return still | steps, observe(state, value, num_steps)

    return optax.GradientTransformationExtraArgs(init, update)


def loss_on_all(params: Any, condition: str) -> jax.Array:
    """Returns the mean squared error `[]` on all examples of a condition."""
    setup = CONDITIONS[condition]
    data = numbers(setup.num_examples)
    outputs = predictions(params["first"], params["last"], jnp.asarray(data["inputs"]), setup.activation)
    return jnp.mean((outputs - data["targets"]) ** 2)


def observe(state: Observed, loss: jax.Array, num_steps: int) -> Observed:
    """Returns what is remembered after another loss, `[]`."""
    initial = jnp.where(state.num_steps == 0, loss, state.initial)
    ratio = jnp.minimum(jnp.where(jnp.isfinite(loss), loss, MAX_LOSS_RATIO) / initial, MAX_LOSS_RATIO)
    is_last = state.num_steps >= num_steps - LAST_STEPS
    return Observed(
        state.num_steps + 1,
        initial,
        state.total + ratio,
        state.inverses + 1 / ratio,
        state.last + jnp.where(is_last, ratio, 0.0) / min(LAST_STEPS, num_steps),
    )


def with_measure(state: Observed, params: Any) -> Any:
    """Returns parameters whose measure is the notebook's `convergence_measure` of the losses: negative if converged."""
    return {**params, "measure": jnp.where(state.last < 1, -state.total, state.inverses)}


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the squared error `[B]` of predictions, the first of the outputs `[B, 1 or 2]`."""
    return (outputs[:, 0] - targets) ** 2


def measure_of(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the measure of convergence `[B]`, the last of the outputs `[B, 2]`."""
    return outputs[:, -1]


def dataset(condition: str, num_steps: int) -> jm.Dataset:
    """Returns the data of a condition; of minibatches, as many examples as they take, drawn with replacement.

    Validation and test are the first example, since the measure does not depend on what a network is evaluated on.
    """
    setup = CONDITIONS[condition]
    data = numbers(setup.num_examples)
    chosen = np.arange(setup.num_examples)
    if setup.batch_size:
        chosen = np.random.default_rng(0).integers(setup.num_examples, size=num_steps * setup.batch_size)
    train, one = (jm.Split(data["inputs"][rows], data["targets"][rows]) for rows in (chosen, slice(1)))
    return jm.Dataset(f"random_{setup.num_examples}", (), train, one, one)


def axes(condition: str) -> tuple[str, str]:
    """Returns the names of the horizontal and the vertical axis."""
    return ("offset", "both") if CONDITIONS[condition].has_offset else ("first", "last")


def problem(condition: str, window: Window, resolution: int, num_steps: int = NUM_STEPS) -> dict[str, Any]:
    """Returns the arguments of `jm.sweep` that train each pixel of a picture.

    Args:
      condition: one of `CONDITIONS`.
      window: the edges of the picture, as logarithms.
      resolution: N.
      num_steps: training steps of every run.

    Raises:
      ValueError: the window is empty.
    """
    setup = CONDITIONS[condition]
    for low, high in (window[:2], window[2:]):
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"zoom is from {low:g} to {high:g}; a window begins below its end")
    ends = dict(zip(axes(condition), (window[:2], window[2:]), strict=True))
    # The edge and the distance from it: the values of an axis differ as float32 numbers, too.
    positions = {name: boundary.centres(0, high - low, resolution) for name, (low, high) in ends.items()}
    origins = {f"{name}_origin": low for name, (low, _) in ends.items()}
    return dict(
        model=Network(setup.activation, setup.num_examples),
        optimizer=functools.partial(
            descent if setup.has_offset else layered_descent, condition=condition, num_steps=num_steps
        ),
        runs=jm.grid(**positions, **origins, batch_size=setup.batch_size or setup.num_examples, seed=0),
        dataset=dataset(condition, num_steps),
        num_steps=num_steps, loss=squared_error, metrics={"measure": measure_of}, evaluation_params=with_measure,
        dtype="float64",
    )  # fmt: skip


def picture(result: "xr.Dataset", condition: str) -> np.ndarray:
    """Returns the measure of convergence of a result's runs as `[N, N]`, rows along the second axis.

    Raises:
      ValueError: it is not a finished result of this condition.
    """
    if "finished" in result:
        raise ValueError("the sweep of this picture is not finished; continue it with --resume")
    horizontal, vertical = axes(condition)
    if not {horizontal, vertical} <= set(result.dims) or "validation_measure" not in result:
        raise ValueError(f"a picture needs a sweep over {horizontal} and {vertical} that observed its losses")
    others = [name for name in result["validation_measure"].dims if name not in (horizontal, vertical)]
    return result["validation_measure"].squeeze(others).transpose(vertical, horizontal).values


def zoom(
    condition: str, resolution: int, num_pictures: int, *, num_steps: int = NUM_STEPS, folder: Path | None = None,
    progress: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    """Returns the measures of a sequence of pictures `[N, N]`, each of which zooms into the boundary in the one before.

    A window is two pixels of the one before, so that few pictures are spread evenly over many decades, as the many of
    the paper are. The sequence ends early at a picture that has no boundary.

    Args:
      condition: one of `CONDITIONS`.
      resolution: N.
      num_pictures: the first of them included, which is of the whole window.
      num_steps: training steps of every run.
      folder: where the sweeps save themselves; None for nowhere.
      progress: whether to show bars.
    """
    window, measures = WINDOW, []
    for index in range(num_pictures):
        place = None if folder is None else folder / f"{index:02d}"
        arguments = problem(condition, window, resolution, num_steps)
        measure = picture(jm.sweep(**arguments, folder=place, progress=progress), condition)
        measures.append(measure)
        if not boundary.boundary(measure).any():
            break
        window = boundary.zoomed(measure, window, resolution / 2, PIECES)
    return measures

"""The boundary of trainability: a sweep over a window of two hyperparameters, and its picture.

After Sohl-Dickstein 2024, arXiv:2402.06184, and its notebook (github.com/Sohl-Dickstein/fractal). What differs:
the data are images with labels in place of random numbers, the loss is cross-entropy in place of a squared error, the
logits are not scaled down by the width, and training is in float32 in place of float64.

Shapes: R runs, S steps recorded (step 0 among them), N points of an axis; a picture is `[N, N]`, its rows from bottom
to top along the second axis.
"""

import math
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from jaxmnist.data.dataset import DataError, Dataset, Split
from jaxmnist.sweeps import runs

AxisName = Literal["first_learning_rate", "last_learning_rate", "learning_rate", "init_scale", "momentum"]
Window = tuple[float, float, float, float]

NUM_IMAGES = 16
IMAGE_SIZE = 4
DEFAULT_LEARNING_RATE = 1.0
MAX_RECORDS = 100
MAX_RESOLUTION = 2**12
# Both from the notebook's `convergence_measure`.
LAST_STEPS = 20
MAX_LOSS_RATIO = 1e6


class Axis(NamedTuple):
    """What an axis of the picture is.

    Attributes:
      words: what it is called in a figure.
      low: lower end of its default window, in log10 units if it is logarithmic.
      high: upper end of that window.
      logarithmic: whether positions are powers of ten.
    """

    words: str
    low: float
    high: float
    logarithmic: bool = True


AXES: dict[str, Axis] = {
    "first_learning_rate": Axis("learning rate of the first layer", -2, 4),
    "last_learning_rate": Axis("learning rate of the last layer", -2, 4),
    "learning_rate": Axis("learning rate of both layers", -2, 4),
    "init_scale": Axis("scale of the initial weights (1 / √fan-in)", -2, 2),
    "momentum": Axis("momentum", 0, 1, logarithmic=False),
}
assert set(AXES) == set(get_args(AxisName))


class TanhNetwork(nn.Module):
    """One hidden layer of tanh units, no biases; the network of the paper with an output for each class.

    Attributes:
      hidden_size: number of hidden units.
      num_classes: K.
      init_scale: factor on the standard deviation of the normal initial weights, 1 / sqrt(fan-in); may be traced.
    """

    hidden_size: int = 16
    num_classes: int = 10
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, C]` float32 in `[0, 1]` to logits `[B, K]` float32."""

        def normal(key, shape):
            return self.init_scale / math.sqrt(shape[1]) * jax.random.normal(key, shape, jnp.float32)

        pixels = images.reshape(images.shape[0], -1)
        first = self.param("first", normal, (self.hidden_size, pixels.shape[1]))
        last = self.param("last", normal, (self.num_classes, self.hidden_size))
        return (last @ jnp.tanh(first @ pixels.T)).T


def layered_sgd(
    first_learning_rate: jax.typing.ArrayLike = DEFAULT_LEARNING_RATE,
    last_learning_rate: jax.typing.ArrayLike = DEFAULT_LEARNING_RATE,
    learning_rate: jax.typing.ArrayLike | None = None,
    momentum: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformation:
    """Returns SGD for a `TanhNetwork` with a learning rate for each layer, or one for both: `learning_rate`."""
    first, last = (first_learning_rate, last_learning_rate) if learning_rate is None else (learning_rate,) * 2
    by_layer = {"first": optax.sgd(first, momentum), "last": optax.sgd(last, momentum)}
    return optax.partition(by_layer, {"first": "first", "last": "last"})


def averaged(dataset: Dataset) -> Dataset:
    """Returns the first 16 training images as a data set, averaged to 4x4 pixels; its three splits are the same.

    Averages are rounded to whole grey levels; blocks of pixels have the same size if the image can be divided evenly.

    Raises:
      DataError: there are fewer images, or pixels.
    """
    images, labels = dataset.train.inputs[:NUM_IMAGES], dataset.train.targets[:NUM_IMAGES]
    height, width = images.shape[1:3]
    if len(labels) < NUM_IMAGES or min(height, width) < IMAGE_SIZE:
        raise DataError(
            f"dataset {dataset.name} has {len(labels)} images of {height}x{width} pixels; {NUM_IMAGES} of at least "
            f"{IMAGE_SIZE}x{IMAGE_SIZE} are needed"
        )
    rows, columns = ([round(i * extent / IMAGE_SIZE) for i in range(IMAGE_SIZE + 1)] for extent in (height, width))
    small = np.empty((NUM_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
    for i, j in np.ndindex(IMAGE_SIZE, IMAGE_SIZE):
        block = images[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        small[:, i, j, 0] = np.round(block.mean(axis=(1, 2, 3)))
    split = Split(small, labels)
    return Dataset(dataset.name, dataset.class_names, split, split, split)


def check_axes(axes: tuple[str, str]) -> None:
    """Raises ValueError if two axes are the same, or set the same learning rate."""
    if axes[0] == axes[1]:
        raise ValueError(f"axes are {axes[0]} twice; a picture needs two different ones")
    if "learning_rate" in axes and set(axes) & {"first_learning_rate", "last_learning_rate"}:
        raise ValueError(f"axes are {axes[0]} and {axes[1]}, but learning_rate sets the rates of both layers")


def default_window(axes: tuple[str, str]) -> Window:
    """Returns the window of a picture that is not zoomed into."""
    return AXES[axes[0]].low, AXES[axes[0]].high, AXES[axes[1]].low, AXES[axes[1]].high


def points(name: str, low: float, high: float, resolution: int) -> np.ndarray:
    """Returns the values of one axis: `[N]` float32 numbers in ascending order, at the centres of the pixels.

    Args:
      name: of the axis.
      low: lower end of its window, in log10 units if it is logarithmic.
      high: upper end of its window.
      resolution: N.

    Raises:
      ValueError: the window is empty or not of this axis, or float32 cannot tell its pixels apart.
    """
    if not 2 <= resolution <= MAX_RESOLUTION:
        raise ValueError(f"resolution is {resolution}; from 2 to {MAX_RESOLUTION} points on each axis are allowed")
    axis = AXES[name]
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"zoom is from {low:g} to {high:g} for {name}; a window begins below its end")
    if not axis.logarithmic and not axis.low <= low < high <= axis.high:
        raise ValueError(f"zoom is from {low:g} to {high:g} for {name}, which lies from {axis.low:g} to {axis.high:g}")
    places = centres(low, high, resolution)
    with np.errstate(over="ignore", under="ignore"):
        values = (10**places if axis.logarithmic else places).astype(np.float32)
    tiny = np.finfo(np.float32).tiny if axis.logarithmic else 0  # below it, XLA flushes to zero
    if not np.isfinite(values).all() or values[0] < tiny:
        raise ValueError(f"zoom is from {low:g} to {high:g} for {name}, which is beyond float32 numbers")
    if (np.diff(values) <= 0).any():
        raise ValueError(
            f"zoom is from {low!r} to {high!r} for {name}, too narrow for {resolution} points: neighbouring "
            "ones would be the same float32 number, and training computes in float32"
        )
    return values


def centres(low: float, high: float, resolution: int) -> np.ndarray:
    """Returns the centres of the pixels of a window, `[N]`."""
    return low + (np.arange(resolution) + 0.5) * ((high - low) / resolution)


def grid(axes: tuple[str, str], window: Window, resolution: int) -> dict[str, np.ndarray]:
    """Returns the runs of a picture, `[N * N]`: all from the same initial parameters, on the same batch of all images.

    Raises:
      ValueError: as `check_axes` and `points`.
    """
    check_axes(axes)
    values = {
        name: points(name, low, high, resolution)
        for name, (low, high) in zip(axes, (window[:2], window[2:]), strict=True)
    }
    return runs.grid(**values, batch_size=NUM_IMAGES, seed=0)


def check_frames(axes: tuple[str, str], window: Window, resolution: int, num_frames: int, factor: float) -> None:
    """Raises ValueError if float32 might not tell the pixels of the last frame apart, wherever it lies."""
    for i, name in enumerate(axes):
        low, high = window[2 * i : 2 * i + 2]
        pixel = (high - low) / factor ** (num_frames - 1) / resolution
        # The gap between float32 numbers is at most 2^-23 of them; below 1 at most 2^-24.
        gap = 2.0**-23 / math.log(10) if AXES[name].logarithmic else 2.0**-24
        if num_frames > 1 and pixel <= gap:
            most = 1 + int(math.log((high - low) / resolution / gap, factor))
            raise ValueError(
                f"frames are {num_frames}, of which the last would be finer than float32 can tell apart: "
                f"{max(most, 1)} is the most from this window, resolution and factor"
            )


def num_records(num_steps: int) -> int:
    """Returns how often the loss is recorded after step 0, at most 100 times.

    Training at the edge of stability alternates between two losses; records that are an even number of steps apart
    would see only one of them.
    """
    stride = -(-num_steps // MAX_RECORDS)
    return num_steps // (stride + 1 - stride % 2) or 1


def convergence_measure(losses: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Returns how fast runs converge, negative, or diverge, positive; the closer to zero the faster.

    The notebook's `convergence_measure` ("a single number which looks pretty in an image"): losses are divided by the
    initial one; ratios that are not finite or above 1e6 are set to 1e6. A run converges if their mean over the last 20
    steps is below 1, and its measure is then minus their sum over all steps; otherwise it is the sum of their inverses.
    The notebook sums over each step; here the sums are the means over the recorded steps times the number of steps, and
    the inverses are of ratios not below 1e-6.

    Args:
      losses: `[..., S]`, the loss on all of the training images at the recorded steps.
      steps: `[S]`, from 0 to the last.
    """
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratios = losses / losses[..., :1]
    ratios = np.where(np.isfinite(ratios), np.minimum(ratios, MAX_LOSS_RATIO), MAX_LOSS_RATIO)
    last = np.asarray(steps) >= steps[-1] - LAST_STEPS
    converged = ratios[..., last].mean(axis=-1) < 1
    inverses = 1 / np.maximum(ratios, 1 / MAX_LOSS_RATIO)
    num_steps = float(steps[-1])
    return num_steps * np.where(converged, -ratios.mean(axis=-1), inverses.mean(axis=-1))


def picture(result: xr.Dataset, axes: tuple[str, str]) -> np.ndarray:
    """Returns the convergence measure of a result's runs as `[N, N]`, rows along the second axis.

    Raises:
      ValueError: it is not a finished result over these axes, with the losses recorded on the training images.
    """
    if "finished" in result:
        raise ValueError("the sweep of this picture is not finished; continue it with --resume")
    if not {*axes, "step"} <= set(result.dims) or "recorded_train_loss" not in result:
        raise ValueError(f"a picture needs a sweep over {axes[0]} and {axes[1]} that recorded the training loss")
    curves = result["recorded_train_loss"].squeeze(["batch_size", "seed"]).transpose(axes[1], axes[0], "step")
    return convergence_measure(curves.values, result["step"].values)


def boundary(measure: np.ndarray) -> np.ndarray:
    """Returns which pixels of a picture are on the boundary, `[N, N]` bool.

    Such a pixel and its neighbours above, to the right and between them do not all agree on convergence (the notebook's
    `extract_edges`); the last row and column have no such neighbours and are never on it.
    """
    converged = measure < 0
    blocks = [converged[i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)]
    edges = np.zeros(measure.shape, bool)
    edges[:-1, :-1] = np.logical_or.reduce(blocks) & ~np.logical_and.reduce(blocks)
    return edges


def zoomed(measure: np.ndarray, window: Window, factor: float, pieces: float | None = None) -> Window:
    """Returns a window smaller by `factor`, inside the given one, whose centre is on the boundary.

    Of the boundary pixels whose window lies inside, the centre is one with the median number of others around it, and
    of these the nearest to the picture's centre. That piece of the boundary is neither its smoothest nor its roughest,
    so that no sequence is chosen for being rough. If no such window lies inside, it is moved by as little as needed.

    Args:
      measure: `[N, N]`, the picture of the window.
      window: the edges of that picture.
      factor: above 1.
      pieces: other boundary pixels are counted in a square whose edge is this part of the picture's; default `factor`.

    Raises:
      ValueError: the picture has no boundary.
    """
    from scipy import ndimage

    edges = boundary(measure)
    if not edges.any():
        raise ValueError("the picture has no boundary to zoom into: either all of its runs converge or none does")
    resolution = len(edges)
    extent = max(round(resolution / (pieces or factor)), 1)
    crowd = ndimage.uniform_filter(edges.astype(float), extent, mode="constant")
    # The point between the four pixels that do not agree, in pixels from the lower left corner.
    places = np.arange(resolution) + 1.0
    half = resolution / factor / 2
    inside = (places >= half) & (places <= resolution - half)
    candidates = edges & inside[:, None] & inside[None, :]
    rows, columns = np.nonzero(candidates if candidates.any() else edges)
    numbers = crowd[rows, columns].round(9)
    typical = numbers == np.quantile(numbers, 0.5, method="lower")
    distance = (places[rows] - resolution / 2) ** 2 + (places[columns] - resolution / 2) ** 2
    nearest = np.argmin(np.where(typical, distance, np.inf))
    row, column = rows[nearest], columns[nearest]
    new = []
    for place, low, high in ((places[column], *window[:2]), (places[row], *window[2:])):
        place = min(max(place, half), resolution - half)
        pixel = (high - low) / resolution
        new += [low + (place - half) * pixel, low + (place + half) * pixel]
    return new[0], new[1], new[2], new[3]

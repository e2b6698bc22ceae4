"""The options of experiments/trainability_boundary.py, and which of them go together."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

import jaxmnist as jm
from jaxmnist.studies import boundary, dimension, fractal

from .options import RunOptions, check_whole, memory_bytes

# Frames are numbered by two digits.
MAX_FRAMES, MAX_HIDDEN_SIZE = 99, 2**16


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
    axes: tuple[boundary.AxisName, boundary.AxisName] = ("first_learning_rate", "last_learning_rate")
    """Horizontal and vertical axis of the picture. Without an axis of its own, a layer's learning rate is 1, momentum
    0, and the scale of the initial weights 1, in units of 1 / sqrt(fan-in)."""
    paper: fractal.ConditionName | None = None
    """One of the six experiments of Sohl-Dickstein 2024, in float64, with the network, the data and the axes that it
    has; --dataset, --axes and --hidden-size do not apply then."""
    resolution: int = 256
    """Points on each axis; the picture has this number squared."""
    zoom: Annotated[tuple[float, float, float, float] | None, tyro.conf.arg(metavar="X0 X1 Y0 Y1")] = None
    """Edges of the picture, as log10 of the values; for momentum, the values themselves. By default -2 to 4 for
    learning rates, -2 to 2 for the scale of the initial weights, and 0 to 1 for momentum; with --paper, -3 to 6."""
    hidden_size: int = 16
    """Hidden units."""
    num_steps: int = 500
    """Training steps of every run."""
    frames: int = 1
    """Number of pictures; each after the first zooms into a typical piece of the boundary in the one before."""
    factor: float = 4.0
    """For --frames: how many times smaller each picture's axes are than those of the one before."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GIB")] = None
    """GiB that data, states and intermediate results may take. By default the smaller of 3 and half of the free
    memory."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/trainability_boundary")
    """Folder for results and figures."""
    estimate_dimension: bool = False
    """Print the box-counting dimension of the boundary in each picture, and its fit."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and the estimated time of one picture, and stop."""

    def window(self) -> boundary.Window:
        """Returns the edges of the first picture."""
        return self.zoom or (boundary.default_window(self.axes) if self.paper is None else fractal.WINDOW)

    def data(self) -> jm.Dataset:
        """Returns what the networks are trained on."""
        if self.paper is None:
            return boundary.averaged(self.load())
        return fractal.dataset(self.paper, self.num_steps)

    def problem(self, window: boundary.Window, dataset: jm.Dataset) -> dict:
        """Returns the arguments of `jm.sweep` that train the pixels of a picture."""
        if self.paper is not None:
            return fractal.problem(self.paper, window, self.resolution, self.num_steps)
        return dict(
            model=boundary.TanhNetwork(self.hidden_size, len(dataset.class_names)),
            optimizer=boundary.layered_sgd,
            runs=boundary.grid(self.axes, window, self.resolution),
            dataset=dataset,
            num_steps=self.num_steps,
            num_evaluations=boundary.num_records(self.num_steps),
        )

    def measure(self, result):
        """Returns the measure of convergence of a picture's runs, `[N, N]`."""
        return boundary.picture(result, self.axes) if self.paper is None else fractal.picture(result, self.paper)

    def setting(self) -> str:
        """Returns the hyperparameters that are not on an axis, in words."""
        words = f"{self.hidden_size} hidden units"
        missing = {"first_learning_rate", "last_learning_rate"} - set(self.axes)
        if missing and "learning_rate" not in self.axes:
            name = missing.pop() if len(missing) == 1 else "learning_rate"
            words += f"; {boundary.AXES[name].words} {boundary.DEFAULT_LEARNING_RATE:g}"
        return words

    def frame_folder(self, index: int) -> Path:
        """Returns the folder of a picture's results; the first one's is the output folder itself."""
        return self.output_dir / "frames" / f"{index:02d}" if index else self.output_dir

    def check(self) -> None:
        """Raises ValueError if an option by itself, or two together, make no sense."""
        boundary.check_axes(self.axes)
        for name in ("axes", "hidden_size", "dataset", "data_dir"):
            if self.paper is not None and self.resume is None and getattr(self, name) != getattr(Options, name):
                raise ValueError(f"{name} is {getattr(self, name)}, but --paper {self.paper} has its own")
        limits = (
            ("resolution", 2, boundary.MAX_RESOLUTION),
            ("hidden_size", 1, MAX_HIDDEN_SIZE),
            ("num_steps", 1, jm.limits.MAX_STEPS),
            ("frames", 1, MAX_FRAMES),
        )
        for name, least, most in limits:
            check_whole(name, getattr(self, name), least, most)
        memory_bytes(self.memory)
        if not 1 < self.factor <= self.resolution:
            raise ValueError(
                f"factor is {self.factor:g}; a number above 1 and at most the resolution, {self.resolution}, is needed"
            )
        if self.estimate_dimension:
            dimension.box_sizes(self.resolution)
        if self.paper is None:
            boundary.check_frames(self.axes, self.window(), self.resolution, self.frames, self.factor)

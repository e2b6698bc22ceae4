"""Draws which runs converge, over two hyperparameters: the boundary of trainability (Sohl-Dickstein 2024).

A tanh network with one hidden layer trains by full-batch SGD on 16 training images averaged to 4x4 pixels, once for
each pixel, all from the same initial parameters. Writes results.nc and results.csv (every run), boundary.png and
boundary.svg; with --frames also a sequence of pictures into the boundary, frames/*.png and frames.gif. What was
interrupted goes on with --resume to the same numbers. Another picture needs another --output-dir, or --overwrite.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import common
import tyro

import jaxmnist as jm
from jaxmnist import checks
from jaxmnist.checks import MAX_STEPS
from jaxmnist.studies import boundary

if TYPE_CHECKING:
    import xarray as xr

# Frames are numbered by two digits.
MAX_FRAMES, MAX_HIDDEN_SIZE = 99, 2**16
FILES = (*common.figure_names("boundary"), "frames.gif")


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    axes: tuple[boundary.AxisName, boundary.AxisName] = ("first_learning_rate", "last_learning_rate")
    """What the picture shows across and up. A layer's learning rate that is on no axis is 1, momentum 0, and the scale
    of the initial weights 1, in units of 1 / sqrt(fan-in)."""
    resolution: int = 256
    """Points on each axis; the picture has the square of it."""
    zoom: Annotated[tuple[float, float, float, float] | None, tyro.conf.arg(metavar="X0 X1 Y0 Y1")] = None
    """Edges of the picture, in log10 units; those of momentum as they are. Without it: -2 to 4 for learning rates, -2
    to 2 for the scale of the initial weights, 0 to 1 for momentum."""
    hidden_size: int = 16
    """Hidden units."""
    num_steps: int = 500
    """Training steps of every run."""
    frames: int = 1
    """Pictures to draw: after the first, each zooms into a typical piece of the boundary in the one before."""
    factor: float = 4.0
    """For --frames: by how much each picture is smaller than the one before."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="GIB")] = None
    """GiB that data, states and what is computed may take. Without it: the smaller of 3 and half of what is free."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/trainability_boundary")
    """Folder for results and figures."""
    estimate_dimension: bool = False
    """Print the box-counting dimension of the boundary in each picture, with its fit."""
    overwrite: bool = False
    """Replace what is in the output folder under the names that this script uses. Without it: what was begun with the
    same options is gone on with, and anything else is refused."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and estimated time of one picture, and stop."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an interrupted picture or sequence: go on with it, by the options saved there."""
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Output folder of an earlier picture or sequence: draw it again from its results.nc, without training."""

    def window(self) -> boundary.Window:
        """Returns the edges of the first picture."""
        return self.zoom or boundary.default_window(self.axes)

    def setting(self) -> str:
        """Returns in words what is not on an axis."""
        words = f"{self.hidden_size} hidden units"
        missing = {"first_learning_rate", "last_learning_rate"} - set(self.axes)
        if missing and "learning_rate" not in self.axes:
            name = missing.pop() if len(missing) == 1 else "learning_rate"
            words += f"; {boundary.AXES[name].words} {boundary.DEFAULT_LEARNING_RATE:g}"
        return words


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.plot_only is not None:
            saved = common.load_config(Options, options.plot_only)
            check(saved)
            common.claim_files(figures(saved.output_dir), options.overwrite)
            draw(dataclasses.replace(saved, estimate_dimension=options.estimate_dimension))
            return
        check(options)
        runs = boundary.grid(options.axes, options.window(), options.resolution)
        if not options.dry_run:
            common.make_output_dir(options.output_dir)
        dataset = boundary.averaged(options.load())
        model = boundary.TanhNetwork(options.hidden_size, len(dataset.class_names))
        arguments: dict = dict(
            num_steps=options.num_steps,
            num_evaluations=boundary.num_records(options.num_steps),
            memory=options.memory and options.memory * 2**30,
        )
        jm.check(model, boundary.layered_sgd, runs, dataset, options.num_steps, arguments["num_evaluations"])
        if options.dry_run:
            print(jm.estimate(model, boundary.layered_sgd, runs, dataset, **arguments))
            return
        asked = [frame_folder(options, index) for index in range(options.frames)]
        places = [*asked, *(options.output_dir / "frames").glob("[0-9][0-9]")]
        common.begin_sweeps(options, dataset, list(dict.fromkeys(places)), figures(options.output_dir))
    sweep = functools.partial(jm.sweep, model, boundary.layered_sgd, dataset=dataset, record=("train",), **arguments)
    # What can be known only here is too little memory.
    with common.resumable(options.output_dir), common.usage_errors((ValueError,)):
        for _ in pictures(options, lambda window, folder: train(options, sweep, window, folder)):
            pass
    with common.usage_errors():
        draw(options)


def check(options: Options) -> None:
    """Raises ValueError where an option alone, or two together, make no sense."""
    boundary.check_axes(options.axes)
    limits = (
        ("resolution", 2, boundary.MAX_RESOLUTION),
        ("hidden_size", 1, MAX_HIDDEN_SIZE),
        ("num_steps", 1, MAX_STEPS),
        ("frames", 1, MAX_FRAMES),
    )
    for name, least, most in limits:
        checks.whole(name, getattr(options, name), least, most)
    if options.memory is not None and not 0 < options.memory < math.inf:
        raise ValueError(f"memory is {options.memory}; a number of GiB above 0 is needed")
    if not 1 < options.factor <= options.resolution:
        raise ValueError(
            f"factor is {options.factor:g}; it lies above 1 and at most at resolution, {options.resolution}"
        )
    if options.estimate_dimension:
        boundary.box_sizes(options.resolution)
    boundary.check_frames(options.axes, options.window(), options.resolution, options.frames, options.factor)


def frame_folder(options: Options, index: int) -> Path:
    """Returns where the results of a picture are: the first one's in the output folder itself."""
    return options.output_dir / "frames" / f"{index:02d}" if index else options.output_dir


def figures(folder: Path) -> list[Path]:
    """Returns the paths of all figures of a folder: more than there are, where there are fewer frames."""
    frames = common.figure_names(*(f"{index:02d}" for index in range(MAX_FRAMES)))
    return [*common.files_in([folder], FILES), *common.files_in([folder / "frames"], frames)]


def pictures(options: Options, obtain: Callable) -> Iterator[tuple[int, boundary.Window, "xr.Dataset"]]:
    """Yields number, window and result of each picture; the window follows from the picture before.

    A sequence ends early with a picture that has no boundary to zoom into.

    Args:
      options: of the sequence.
      obtain: returns the result of a window, given the folder it belongs into.
    """
    window = options.window()
    for index in range(options.frames):
        result = obtain(window, frame_folder(options, index))
        yield index, window, result
        measure = boundary.picture(result, options.axes)
        if not boundary.boundary(measure).any():
            return
        window = boundary.zoomed(measure, window, options.factor)


def train(options: Options, sweep: Callable, window: boundary.Window, folder: Path):
    """Returns the result of one picture, trained unless it has been."""
    if folder != options.output_dir:
        print(f"{folder}: {words(window)}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    return sweep(runs=boundary.grid(options.axes, window, options.resolution), folder=folder)


def words(window: boundary.Window) -> str:
    """Returns a window as `--zoom` takes it."""
    return f"--zoom {' '.join(repr(round(float(edge), 12)) for edge in window)}"


def draw(options: Options) -> None:
    """Draws the saved pictures of a folder, and estimates the dimension of their boundary where that was asked for."""
    from jaxmnist.studies import boundary_figures

    folder = options.output_dir
    written = []
    for index, window, result in pictures(options, lambda window, folder: jm.load_results(folder)):
        frame = f"frame {index + 1} of {options.frames}, {options.factor**index:g}x" if options.frames > 1 else ""
        draw_one = functools.partial(boundary_figures.figure, result, options.axes, window, options.setting())
        if index == 0:
            common.save_figure(draw_one(), folder / "boundary.png")
        if options.frames > 1:
            (folder / "frames").mkdir(exist_ok=True)
            written.append(folder / "frames" / f"{index:02d}.png")
            common.save_figure(draw_one(frame), written[-1])
        report(options, boundary.picture(result, options.axes), f"frame {index + 1}: " if options.frames > 1 else "")
    print(f"wrote {folder}/boundary.png and {folder}/boundary.svg")
    if options.frames > 1:
        if len(written) < options.frames:
            print(f"note: frame {len(written)} has no boundary to zoom into: the sequence ends there")
        boundary_figures.save_animation(written, folder / "frames.gif")
        print(f"wrote {len(written)} frames in {folder}/frames and {folder}/frames.gif")


def report(options: Options, measure, which: str) -> None:
    """Prints the share of runs that converge, and the dimension of the boundary where that was asked for."""
    converged = measure < 0
    print(f"{which}{int(converged.sum())} of {converged.size} runs converge ({100 * converged.mean():.1f} %)")
    if not options.estimate_dimension:
        return
    edges = boundary.boundary(measure)
    if not edges.any():
        print(f"{which}no dimension: the picture has no boundary")
        return
    found = boundary.box_dimension(edges)
    print(
        f"{which}box-counting dimension {found.dimension:.3f}, standard error of the fit {found.standard_error:.3f}, "
        f"from boxes of {found.sizes[0]} to {found.sizes[-1]} pixels:"
    )
    for size, count in zip(found.sizes, found.counts, strict=True):
        print(f"  {size:4d} pixels: {count} boxes")


if __name__ == "__main__":
    common.main(main)

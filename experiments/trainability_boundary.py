"""Draws which runs converge, over two hyperparameters: the boundary of trainability (Sohl-Dickstein 2024).

For each pixel, a tanh network with one hidden layer is trained by full-batch SGD on 16 training images, averaged to 4x4
pixels; all of these runs have the same initial parameters. With --paper, they are those of a published experiment.
Writes results.nc and results.csv (every run), boundary.png and boundary.svg, and report.html, a page on which to
explore them (needs the extra page); with --frames also a sequence of pictures that zoom into the boundary, frames/*.png
and frames.gif. An interrupted sequence continues with --resume and ends with the same numbers. Another picture needs
another --output-dir, or --overwrite.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import common
from common.boundary_options import MAX_FRAMES, Options

import jaxmnist as jm
from jaxmnist.studies import boundary, dimension, fractal

if TYPE_CHECKING:
    import xarray as xr

FILES = (*common.figure_names("boundary"), "frames.gif", common.PAGE)


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if options.plot_only is not None:
            saved = common.load_config(Options, options.plot_only)
            saved.check()
            common.claim_files(figures(saved.output_dir), options.overwrite)
            draw(dataclasses.replace(saved, estimate_dimension=options.estimate_dimension))
            return
        options.check()
        if options.paper is None:
            boundary.grid(options.axes, options.window(), options.resolution)
    with common.output_dir_held(None if options.dry_run else options.output_dir, options.wait):
        run(options)


def run(options: Options) -> None:
    """Trains and draws the pictures, or with --dry-run says how much work that is."""
    with common.usage_errors():
        dataset = options.data()
        problem = options.problem(options.window(), dataset)
        memory = common.memory_bytes(options.memory)
        jm.check(**problem)
        if options.dry_run:
            print(jm.estimate(**problem, memory=memory))
            return
        asked = [options.frame_folder(index) for index in range(options.frames)]
        places = [*asked, *(options.output_dir / "frames").glob("[0-9][0-9]")]
        common.begin_sweeps(options, dataset, list(dict.fromkeys(places)), figures(options.output_dir))

    def sweep(window, folder):
        """Returns the result of one window."""
        record = ("train",) if options.paper is None else None
        return jm.sweep(**options.problem(window, dataset), record=record, memory=memory, folder=folder)

    # Only now does it turn out if there is too little memory.
    with common.resumable(options.output_dir), common.usage_errors((ValueError,)):
        for _ in pictures(options, lambda window, folder: train(options, sweep, window, folder)):
            pass
    with common.usage_errors():
        draw(options)


def figures(folder: Path) -> list[Path]:
    """Returns the paths of all figures that a folder may hold, up to the largest number of frames."""
    frames = common.figure_names(*(f"{index:02d}" for index in range(MAX_FRAMES)))
    return [*common.files_in([folder], FILES), *common.files_in([folder / "frames"], frames)]


def pictures(options: Options, obtain: Callable) -> Iterator[tuple[int, boundary.Window, "xr.Dataset"]]:
    """Yields the number, window and result of each picture; a window follows from the picture before.

    A sequence ends early at a picture that has no boundary to zoom into.

    Args:
      options: the options of the sequence.
      obtain: returns the result of a window, given the folder to which it belongs.
    """
    window = options.window()
    for index in range(options.frames):
        result = obtain(window, options.frame_folder(index))
        yield index, window, result
        measure = options.measure(result)
        if not boundary.boundary(measure).any():
            return
        window = boundary.zoomed(measure, window, options.factor)


def train(options: Options, sweep: Callable, window: boundary.Window, folder: Path):
    """Returns the result of one picture, and trains it if that has not been done."""
    if folder != options.output_dir:
        print(f"{folder}: {words(window)}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    return sweep(window, folder)


def words(window: boundary.Window) -> str:
    """Returns a window as `--zoom` takes it."""
    return f"--zoom {' '.join(repr(round(float(edge), 12)) for edge in window)}"


def draw(options: Options) -> None:
    """Draws the saved pictures of a folder, and estimates the dimension of their boundary if requested."""
    from jaxmnist.studies import boundary_figures

    folder = options.output_dir
    written, sets = [], []
    for index, window, result in pictures(options, lambda window, folder: jm.load_results(folder)):
        frame = f"frame {index + 1} of {options.frames}, {options.factor**index:g}x" if options.frames > 1 else ""
        if options.paper is None:
            draw_one = functools.partial(boundary_figures.figure, result, options.axes, window, options.setting())
        else:
            draw_one = functools.partial(boundary_figures.paper_figure, result, options.paper, window)
        if index == 0:
            common.save_figure(draw_one(), folder / "boundary.png")
            page = common.save_page(result, folder)
        if options.frames > 1:
            (folder / "frames").mkdir(exist_ok=True)
            written.append(folder / "frames" / f"{index:02d}.png")
            common.save_figure(draw_one(frame), written[-1])
        report(options, options.measure(result), f"frame {index + 1}: " if options.frames > 1 else "")
        sets.append(boundary.boundary(options.measure(result))[:-1, :-1])
    print(f"wrote {folder}/boundary.png and {folder}/boundary.svg; {page}")
    if options.paper is not None and options.estimate_dimension:
        median = dimension.median_slope([pixels for pixels in sets if pixels.any()]).mean
        published = fractal.CONDITIONS[options.paper].dimension
        print(f"median of the local slopes of all frames {median:.3f}; published {published:.2f}")
    if options.frames > 1:
        if len(written) < options.frames:
            print(f"note: frame {len(written)} has no boundary to zoom into; the sequence ends there")
        boundary_figures.save_animation(written, folder / "frames.gif")
        print(f"wrote {len(written)} frames in {folder}/frames and {folder}/frames.gif")


def report(options: Options, measure, which: str) -> None:
    """Prints the share of runs that converge, and the dimension of the boundary if requested."""
    converged = measure < 0
    print(f"{which}{int(converged.sum())} of {converged.size} runs converge ({100 * converged.mean():.1f} %)")
    if not options.estimate_dimension:
        return
    edges = boundary.boundary(measure)
    if not edges.any():
        print(f"{which}no dimension: the picture has no boundary")
        return
    found = dimension.box_dimension(edges)
    print(
        f"{which}box-counting dimension {found.dimension:.3f}, standard error of the fit {found.standard_error:.3f}, "
        f"from boxes of {found.sizes[0]} to {found.sizes[-1]} pixels:"
    )
    for size, count in zip(found.sizes, found.counts, strict=True):
        print(f"  {size:4d} pixels: {count} boxes")


if __name__ == "__main__":
    common.main(main)

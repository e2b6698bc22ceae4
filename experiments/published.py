"""Runs published tables again: theirs, ours with its 95 % interval, and whether theirs lies inside.

Prints each table, and writes published.csv (every row of every table), and of each table a figure, NAME.png and
NAME.svg, and a file NAME.json from which it is drawn again. The sweeps of a table are in the folder NAME; an
interrupted table continues with --resume and ends with the same numbers. A table whose data cannot be had is left out.

fractal takes about 5 minutes on 2 cores, and 80 with --full; mnist1d 5 and 40; noise 3 and 10; speed 3 and 20;
tutorial 3 and 150; kmnist 2 and 50; deepobs 5, and a week with --full, which is for a GPU.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import common
import tyro

import jaxmnist as jm
from jaxmnist.studies import output, published
from jaxmnist.studies.published_deepobs import deepobs_table
from jaxmnist.studies.published_fractal import fractal_table
from jaxmnist.studies.published_kmnist import kmnist_table
from jaxmnist.studies.published_mnist1d import mnist1d_table
from jaxmnist.studies.published_noise import noise_table
from jaxmnist.studies.published_speed import speed_table
from jaxmnist.studies.published_tutorial import tutorial_table

# Each a function of `full`, the folder of its sweeps, and whether to show progress.
TABLES: dict[str, Callable[[bool, Path | None, bool], published.Table]] = {
    "fractal": fractal_table,
    "mnist1d": mnist1d_table,
    "noise": noise_table,
    "speed": speed_table,
    "tutorial": tutorial_table,
    "deepobs": deepobs_table,
    "kmnist": kmnist_table,
}
RESULTS = "published.csv"


@dataclasses.dataclass(frozen=True)
class Options(common.FolderOptions):
    table: Literal["fractal", "mnist1d", "noise", "speed", "tutorial", "deepobs", "kmnist", "all"] = "all"
    """The table to run."""
    full: bool = False
    """The budget, the seeds and the resolution of the source, rather than smaller ones that take minutes."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/published")
    """Folder for results and figures."""

    def tables(self) -> list[str]:
        """Returns the names of the tables to run."""
        return list(TABLES) if self.table == "all" else [self.table]

    def grows_from(self, begun: "Options") -> set[str]:
        """Returns the options in which a call differs from the one that was begun, and only adds to it."""
        return {"table"}


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.output_dir_held(options.output_dir, options.wait):
        run(options)


def run(options: Options) -> None:
    """Runs the tables that the folder does not hold, and draws all of them that were asked for."""
    folder = options.output_dir
    with common.usage_errors():
        names = [*common.figure_names(*TABLES), *(f"{name}.json" for name in TABLES), RESULTS]
        places = [place for name in TABLES for place in (folder / name).rglob("**") if place.is_dir()]
        common.begin_sweeps(options, None, places, common.files_in([folder], names))
    with common.resumable(folder):
        for name in options.tables():
            train(options, name)
    with common.usage_errors():
        draw(options)


def train(options: Options, name: str) -> None:
    """Makes a table and saves it, unless the folder holds it, or its data cannot be had."""
    path = options.output_dir / f"{name}.json"
    if path.is_file():
        return
    try:
        table = TABLES[name](options.full, options.output_dir / name, True)
    except jm.DataError as error:
        print(f"the table {name} is left out: {error}")
        return
    published.save(table, path)


def draw(options: Options) -> None:
    """Prints and draws the saved tables, and writes all their rows as one CSV file."""
    from jaxmnist.studies import published_figures, published_noise_figures

    folder = options.output_dir
    saved = {name: folder / f"{name}.json" for name in TABLES}
    tables = {name: published.load(path) for name, path in saved.items() if path.is_file()}
    for name in options.tables():
        if name in tables:
            print(published.table_text(tables[name]), end="\n\n")
            figures = published_noise_figures if name == "noise" else published_figures
            common.save_figure(figures.figure(tables[name]), folder / f"{name}.png")
    if tables:
        output.write_table(published.frame(tables), folder / RESULTS, "%.6g")
        print(f"wrote {folder / RESULTS}")


if __name__ == "__main__":
    common.main(main)

"""What the benchmark has measured: rows of seconds, as a table, a file and a figure."""

import dataclasses
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmnist.host.files import write_text

if TYPE_CHECKING:
    from jaxmnist.plots.style import Figure

TABLE_WIDTH = 110
# Rounds whose ratios differ by more than this share of the median do not tell which is faster, and neither does one.
MAX_SCATTER = 0.25


@dataclasses.dataclass(frozen=True)
class Row:
    """One peer's times for one kind of work, each of a warm round; rounds of a work's peers were taken in turns.

    Attributes:
      work: what was done.
      peer: who did it; the first of a work's rows is the one that others are compared with.
      seconds: of each round.
      first_seconds: of the first call, with compilation.
    """

    work: str
    peer: str
    seconds: list[float]
    first_seconds: float

    @property
    def median(self) -> float:
        """Returns the median in seconds."""
        return statistics.median(self.seconds)


FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def ratio(row: Row, other: Row) -> float:
    """Returns how many times as long `row` takes: the median of the ratios of rounds taken side by side."""
    return statistics.median(_ratios(row, other))


def is_told(row: Row, other: Row) -> bool:
    """Returns whether the rounds agree well enough on how many times as long `row` takes."""
    ratios = _ratios(row, other)
    return len(ratios) > 1 and max(ratios) - min(ratios) <= MAX_SCATTER * statistics.median(ratios)


def times_ours(row: Row, ours: Row) -> str:
    """Returns the ratio in words, in parentheses where the rounds scatter too much to tell."""
    words = _short(ratio(row, ours))
    return words if row is ours or is_told(row, ours) else f"({words})"


def _ratios(row: Row, other: Row) -> list[float]:
    return [mine / theirs for mine, theirs in zip(row.seconds, other.seconds, strict=True)]


def by_work(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each work, in their order."""
    works: dict[str, list[Row]] = {}
    for row in rows:
        works.setdefault(row.work, []).append(row)
    return works


def print_table(rows: list[Row]) -> None:
    """Prints the rows of one work."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=rows[0].work, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("median", "fastest to slowest", "times ours", "first call"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        spread = f"{in_words(min(row.seconds))} to {in_words(max(row.seconds))}"
        table.add_row(row.peer, in_words(row.median), spread, times_ours(row, rows[0]), in_words(row.first_seconds))
    if not all(is_told(row, rows[0]) for row in rows[1:]):
        table.caption = "in parentheses: a single round, or rounds that differ by more than a quarter, decide nothing"
    Console(width=TABLE_WIDTH).print(table)


def in_words(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.{1 if seconds >= 0.01 else 2}f} ms"


def _short(value: float) -> str:
    """Returns a ratio with three digits, or as a whole number from 100 on."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def save(rows: list[Row], numbers: dict, measured_on: dict, path: Path) -> None:
    """Writes everything as JSON: the machine, the rows with their medians and ratios, and single numbers by name."""
    works = by_work(rows)
    table = [
        {
            **dataclasses.asdict(row),
            "median": row.median,
            "times_ours": ratio(row, works[row.work][0]),
            "is_told": row is works[row.work][0] or is_told(row, works[row.work][0]),
        }
        for row in rows
    ]
    write_text(path, json.dumps({"machine": measured_on, "rows": table, "numbers": numbers}, indent=2) + "\n")


def draw(rows: list[Row], measured_on: dict) -> "Figure":
    """Returns medians, and the range of all rounds, of every peer: one panel for each work, ours on top."""
    from jaxmnist.plots.style import Figure, house_style, log_ticks

    works = by_work(rows)
    heights = [len(peers) + 1.2 for peers in works.values()]
    with house_style():
        figure = Figure(figsize=(8.5, 0.3 * sum(heights) + 0.8), layout="constrained")
        panels = figure.subplots(len(works), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (work, work_rows) in zip(panels, works.items(), strict=True):
            for place, row in enumerate(work_rows):
                color = "tab:blue" if row.peer.startswith(work_rows[0].peer.split(",")[0]) else "0.55"
                axes.plot([min(row.seconds), max(row.seconds)], [place, place], color=color, linewidth=2, alpha=0.5)
                axes.plot(row.median, place, "o", color=color)
                times = "" if place == 0 else f" · {times_ours(row, work_rows[0])} x"
                axes.annotate(
                    f"{in_words(row.median)}{times}", (max(row.seconds), place), (8, 0),
                    textcoords="offset points", va="center", fontsize=9,
                )  # fmt: skip
            axes.set_title(work, loc="left")
            axes.set(xscale="log", yticks=range(len(work_rows)), yticklabels=[row.peer for row in work_rows])
            axes.set_ylim(len(work_rows) - 0.5, -0.5)
            low, high = min(min(row.seconds) for row in work_rows), max(max(row.seconds) for row in work_rows)
            limits = low / 1.3, high * max(high / low, 2) ** 0.35
            axes.set_xlim(limits)
            log_ticks(axes, "x", *limits)
            axes.set_xlabel("seconds (median; line: fastest to slowest round)")
        figure.supxlabel(
            f"{measured_on['cpu']}, {measured_on['cores']} cores, {', '.join(measured_on['devices'])}; "
            f"{measured_on['date']}",
            fontsize=9,
        )  # fmt: skip
    return figure

"""Published tables, run again: what a source reports, what we find, and whether the two agree.

A table is made by a function of its own, such as `published_mnist1d.mnist1d_table`; here is what all of them share.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxmnist.analysis.intervals import Interval
from jaxmnist.host.files import FORMAT, check_format, read_json, write_text

if TYPE_CHECKING:
    import pandas as pd

# Decimals that a quantity is shown with, by its unit.
DECIMALS = {"%": 2, "dimension": 3, "examples": 0, "s": 1}
ANSWERS = {True: "yes", False: "no", None: ""}
COLUMNS = ("", "theirs", "ours", "95 % interval", "inside?", "time")


class Row(NamedTuple):
    """One number of a table.

    Attributes:
      name: what it is the number of.
      unit: of the number, one of `DECIMALS`.
      theirs: the published number; None if there is none.
      ours: our mean and its 95 % interval, whose ends are nan if there is none.
      seconds: of the call that trained it.
      theirs_interval: the ends of the published interval; None if none is published.
      note: what has to be known of this row, such as a shorter budget.
    """

    name: str
    unit: str
    theirs: float | None
    ours: Interval
    seconds: float
    theirs_interval: tuple[float, float] | None = None
    note: str = ""

    @property
    def inside(self) -> bool | None:
        """Whether the published number lies in our interval, or its own interval meets ours; None if one is missing."""
        if self.theirs is None or math.isnan(self.ours.low):
            return None
        low, high = self.theirs_interval or (self.theirs, self.theirs)
        return self.ours.low <= high and low <= self.ours.high


class Table(NamedTuple):
    """A published table and ours.

    Attributes:
      title: what it is a table of.
      source: who published it, and where.
      recipe: what is trained.
      budget: how long, and on what.
      seeds: over what our intervals are.
      rows: its numbers.
      notes: a sentence each on what differs from the source, or explains a difference.
    """

    title: str
    source: str
    recipe: str
    budget: str
    seeds: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def shown(value: float | None, unit: str) -> str:
    """Returns a number with the decimals of its unit; nothing for None."""
    return "" if value is None else f"{_number(value, unit)} {unit}".removesuffix(" dimension")


def interval_words(low: float, high: float, unit: str) -> str:
    """Returns an interval in brackets; nothing if it has no ends."""
    return "" if math.isnan(low) else f"[{_number(low, unit)}, {_number(high, unit)}]"


def _number(value: float, unit: str) -> str:
    return f"{value:,.{DECIMALS[unit]}f}"


def table_text(table: Table) -> str:
    """Returns a table as text: "theirs, ours with its interval, inside?", between its recipe and its notes."""
    lines = [list(COLUMNS)]
    for row in table.rows:
        theirs = " ".join(filter(None, (shown(row.theirs, row.unit), _theirs_interval(row))))
        ours = shown(row.ours.mean, row.unit), interval_words(row.ours.low, row.ours.high, row.unit)
        lines.append([row.name, theirs, *ours, ANSWERS[row.inside], shown(row.seconds, "s")])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [f"{table.title}: {table.source}"]
    words += [f"{name}: {getattr(table, name)}" for name in ("recipe", "budget", "seeds")]
    for name, *others in lines:
        cells = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        words.append("  ".join(cells).rstrip())
    notes = [f"{row.name}: {row.note}" for row in table.rows if row.note]
    return "\n".join([*words, *(f"- {note}" for note in (*notes, *table.notes))])


def _theirs_interval(row: Row) -> str:
    return interval_words(*row.theirs_interval, row.unit) if row.theirs_interval is not None else ""


def frame(tables: dict[str, Table]) -> "pd.DataFrame":
    """Returns the rows of tables by their names as one table with a row each, for a CSV file."""
    import pandas as pd

    return pd.DataFrame(list(_records(tables.items())))


def _records(tables: Iterable[tuple[str, Table]]) -> Iterable[dict[str, Any]]:
    for name, table in tables:
        for row in table.rows:
            low, high = row.theirs_interval or (None, None)
            yield dict(
                table=name, row=row.name, unit=row.unit, theirs=row.theirs, theirs_low=low, theirs_high=high,
                ours=row.ours.mean, ours_low=row.ours.low, ours_high=row.ours.high, interval=row.ours.words,
                inside=ANSWERS[row.inside], seconds=row.seconds, note=row.note,
            )  # fmt: skip


def save(table: Table, path: Path) -> None:
    """Writes a table to a JSON file, atomically."""
    rows = [row._asdict() | {"ours": row.ours._asdict()} for row in table.rows]
    write_text(path, json.dumps({"format": FORMAT, **table._asdict(), "rows": rows}, indent=2) + "\n")


def load(path: Path) -> Table:
    """Returns the table that `save` wrote.

    Raises:
      OSError: there is no such file.
      ValueError: it cannot be read, or comes from a later version.
    """
    found = read_json(path)
    check_format(found.pop("format", FORMAT), path)
    try:
        rows = tuple(_row(**row) for row in found.pop("rows"))
        table = Table(**found, rows=rows)._replace(notes=tuple(found["notes"]))
        table_text(table)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no table: {error}") from None
    return table


def _row(ours: dict, theirs_interval: list | None, **others: Any) -> Row:
    ends = None if theirs_interval is None else (theirs_interval[0], theirs_interval[1])
    return Row(ours=Interval(**ours), theirs_interval=ends, **others)

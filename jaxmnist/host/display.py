"""How values show themselves: in one line of a REPL, as a table in a notebook, and progress as a line that is updated.

IPython is never imported here unless a notebook has done so already.
"""

import html
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jaxmnist.values import MAX_SHOWN, as_scalar, described, shown

# A class, which is returned as it was given.
C = TypeVar("C", bound=type)
# What goes wrong if the fields of a value are not what they should be, as in a tree of shapes.
WRONG_FIELDS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
MAX_LISTED = 8
# The line of the cell that ran last, by the number of the cell.
_LINES: dict[int, Any] = {}


def shown_by(rows: Callable[[Any], Mapping[str, str]]) -> Callable[[C], C]:
    """Returns a decorator of a class: its values show themselves by these rows, in a line and as an HTML table.

    A value whose fields are not what they should be is shown as it would be without.

    Args:
      rows: returns what a value is in words, by name.
    """

    def decorate(cls: Any) -> Any:
        plain = cls.__repr__

        def line(self: Any) -> str:
            try:
                found = rows(self)
            except WRONG_FIELDS:
                return plain(self)
            return f"{cls.__name__}({'; '.join(f'{name}: {words}' for name, words in found.items())})"

        cls.__repr__ = line
        return with_table(rows)(cls)

    return decorate


def with_table(rows: Callable[[Any], Mapping[str, str]]) -> Callable[[C], C]:
    """Returns a decorator of a class: a notebook shows its values as an HTML table of these rows."""

    def decorate(cls: Any) -> Any:
        def table(self: Any) -> str | None:
            try:
                return html_table(cls.__name__, rows(self))
            except WRONG_FIELDS:
                return None  # a notebook then shows the line

        cls._repr_html_ = table
        return cls

    return decorate


def html_table(title: str, rows: Mapping[str, str]) -> str:
    """Returns an HTML table with a title and a row for each name; nothing in its text is taken for HTML."""
    left = ' style="text-align: left"'
    cells = (
        f"<tr><th{left}>{html.escape(name)}</th><td{left}>{html.escape(words)}</td></tr>"
        for name, words in rows.items()
    )
    return f"<table><caption{left}>{html.escape(title)}</caption>{''.join(cells)}</table>"


def in_words(value: Any) -> str:
    """Returns a number with few digits, a function by its name, and anything else as `shown` does."""
    value = as_scalar(value)
    if callable(value):
        return getattr(value, "__name__", None) or described(value)[:MAX_SHOWN]
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def listed(values: Sequence, noun: str = "values") -> str:
    """Returns distinct values in words: how many they are, and all of them if they are few."""
    if len(values) == 1:
        return in_words(values[0])
    if len(values) <= MAX_LISTED:
        return f"{len(values)} {noun}: {', '.join(map(in_words, values))}"
    if all(isinstance(value, int | float) for value in values):
        return f"{len(values):,} {noun} from {in_words(min(values))} to {in_words(max(values))}"
    return f"{len(values):,} {noun}: {', '.join(map(in_words, values[: MAX_LISTED - 1]))}, ..."


def notebook_line() -> Callable[[str], None] | None:
    """Returns a function that shows text in one line of the cell that runs; None if this is no notebook.

    Whatever a cell shows in this way takes the place of what it showed before, also for the rounds of a search.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    def show(words: str) -> None:
        line, cell = {"text/plain": words}, shell.execution_count
        if cell in _LINES:
            _LINES[cell].update(line, raw=True)
        else:
            _LINES.clear()
            _LINES[cell] = display(line, raw=True, display_id=True)

    return show

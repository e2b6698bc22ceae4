"""Progress of long work: a bar in a terminal, one line in a notebook, and plain lines elsewhere."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from jaxmnist.checks import FLAG, STRING, Number, checked_by
from jaxmnist.host.display import notebook_line

if TYPE_CHECKING:
    import xarray as xr

LINE_INTERVAL_S, UPDATE_INTERVAL_S = 10.0, 0.2
# Of the time, at most this share is spent on results and maps of what is not yet complete.
MAX_SHARE = 0.03
MAX_MAP_ROWS, MAX_MAP_COLUMNS = 24, 32
# A few points of matplotlib's viridis, whose import would take longer than many a sweep.
COLORS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


class Pace:
    """Says when work along the way is due: not too often, and so seldom that it takes a small share of the time.

    Args:
      seconds: at least this long between its end and its next beginning.
      clock: returns the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._seconds, self._clock = seconds, clock
        self._due = clock() + seconds

    def is_due(self) -> bool:
        """Returns whether to do the work now."""
        return self._clock() >= self._due

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measures how long the block, which does the work, takes."""
        start = self._clock()
        yield
        end = self._clock()
        self._due = end + max(self._seconds, (end - start) / MAX_SHARE)


@checked_by(title=STRING, total=Number("a number above 0", lambda value: value > 0), enabled=FLAG)
@contextlib.contextmanager
def progress_bar(title: str, total: float, enabled: bool = True) -> Iterator[Callable[..., None]]:
    """Shows progress while the block runs: in a notebook a line that is updated, and otherwise, on standard error, a
    bar in a terminal or plain lines.

    Args:
      title: the name of the work.
      total: the amount of work, in any unit.
      enabled: False shows nothing.

    Yields:
      A function of the amount done so far, a short text to show beside it, and, if there is news, a function that
      returns the result so far (an `xarray.Dataset` of a sweep), whose map is shown beneath a terminal's bar.

    Raises:
      ValueError: an argument is not as described above, or `total` is not above 0.
    """
    if not enabled:
        yield lambda done, text, result=None: None
        return
    update = notebook_line()
    if update is not None:
        yield _lines(title, total, update, UPDATE_INTERVAL_S)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        write = functools.partial(console.print, highlight=False, soft_wrap=True)
        yield _lines(title, total, write, LINE_INTERVAL_S)
        return
    from rich.console import Group
    from rich.live import Live

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task(title, total=total, text="")
    pace = Pace(0.0)
    with Live(bar, console=console, refresh_per_second=8) as live:

        def show(done, text, result=None):
            bar.update(task, completed=done, text=text)
            if result is None or not (pace.is_due() or done >= total):
                return
            with pace.measured():
                drawn = accuracy_map(result())
                if drawn is not None:
                    live.update(Group(bar, drawn))

        yield show


def _lines(title: str, total: float, write: Callable[[str], None], interval: float) -> Callable[..., None]:
    """Returns a function that writes progress as lines of text, at least this many seconds apart."""
    last = time.monotonic()
    first = None

    def show(done, text, result=None):
        nonlocal first, last
        now = time.monotonic()
        # What an earlier, interrupted process did, and compilation, say nothing of the time that is left.
        if first is None or done <= first[1]:
            first = now, done
        if now - last >= interval or done >= total:
            last = now
            rate = (done - first[1]) / (now - first[0]) if done > first[1] else 0.0
            left = f"{(total - done) / rate:.0f} s left" if rate else "time left not known yet"
            write(f"{title}: {100 * done / total:.0f} %, {text}, {'0 s left' if done >= total else left}")

    return show


def accuracy_map(result: "xr.Dataset") -> Any:
    """Returns a picture in characters of the validation accuracy by batch size and learning rate, or None.

    Runs that have not ended are a dot, and those that diverged a cross. None if the result is not a grid of these two,
    or has no accuracy.
    """
    from rich.text import Text

    plane = ("batch_size", "learning_rate")
    if not set(plane) <= set(result.dims) or "validation_accuracy" not in result:
        return None
    others = [name for name in result["validation_accuracy"].dims if name not in plane]
    accuracy = result["validation_accuracy"].mean(others, skipna=True).transpose(*plane).values
    diverged = result["diverged_step"].notnull().any(others).transpose(*plane).values
    known = accuracy[~diverged & (accuracy == accuracy)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    rows, columns = (
        range(0, count, -(-count // most))
        for count, most in zip(accuracy.shape, (MAX_MAP_ROWS, MAX_MAP_COLUMNS), strict=True)
    )
    text = Text()
    for i in reversed(rows):
        text.append(f"{result['batch_size'].values[i]:>8} ")
        for j in columns:
            value = accuracy[i, j]
            if diverged[i, j]:
                text.append("x ")
            elif value != value:
                text.append("· ")
            else:
                text.append("  ", style="on rgb({},{},{})".format(*_color((value - low) / (high - low or 1.0))))
        text.append("\n")
    rates = result["learning_rate"].values
    text.append(f"batch size ↑, learning rate → {rates[0]:g} … {rates[-1]:g}, ")
    text.append(f"validation accuracy {100 * low:.1f} … {100 * high:.1f} %")
    return text


def _color(share: float) -> tuple[int, ...]:
    """Returns the colour at a share in [0, 1] of the scale."""
    place = float(share) * (len(COLORS) - 1)
    index = min(int(place), len(COLORS) - 2)
    return tuple(round(a + (b - a) * (place - index)) for a, b in zip(COLORS[index], COLORS[index + 1], strict=True))

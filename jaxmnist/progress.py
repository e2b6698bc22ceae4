"""Progress of long work on standard error: a bar in a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

LINE_INTERVAL_S = 10.0


@contextlib.contextmanager
def progress_bar(title: str, total: float, enabled: bool = True) -> Iterator[Callable[[float, str], None]]:
    """Shows progress while the block runs.

    Args:
      title: what is going on.
      total: the amount of work, in any unit.
      enabled: False shows nothing.

    Yields:
      A function of the amount done so far and a short text to show beside it.
    """
    if not enabled:
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(title, total, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)


def _plain_lines(title, total, console):
    start = last = time.monotonic()

    def show(done, text):
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_INTERVAL_S or done >= total:
            last = now
            left = (now - start) * (total - done) / done if done else float("nan")
            console.print(
                f"{title}: {100 * done / total:.0f} %, {text}, {left:.0f} s left", highlight=False, soft_wrap=True
            )

    return show

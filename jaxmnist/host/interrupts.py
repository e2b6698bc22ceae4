"""Ctrl-C in long work that saves itself: the first one asks for a good moment to stop, the second one stops at once."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

NOTICE = "Ctrl-C: stops after this segment, once it is saved; a second Ctrl-C stops at once"


@contextlib.contextmanager
def defer_interrupt(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Keeps the first Ctrl-C for the block to ask after; a second one does what Ctrl-C did before.

    A Ctrl-C that the block does not act upon ends it with KeyboardInterrupt after its last line: none is lost.

    Args:
      enabled: False changes nothing, as do other threads than the main one, in which Python runs no handlers, and
        processes that ignore Ctrl-C or have it handled outside of Python.

    Yields:
      A function that returns whether Ctrl-C has been pressed.
    """
    before = signal.getsignal(signal.SIGINT)
    if not enabled or not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def handle(number, frame):
        nonlocal pressed
        if pressed:
            return before(number, frame)
        pressed = True
        # What it interrupts may be writing to the same file, which then cannot be written.
        with contextlib.suppress(RuntimeError):
            print(f"\n{NOTICE}", file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt

"""The one loop over long work that the host drives in segments: evaluate, report, save, and stop at Ctrl-C."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

SECONDS_PER_CHECKPOINT = 10.0
S = TypeVar("S")


def run_segments(
    segments: Iterable[tuple[int, S]],
    *,
    evaluate: Callable[[int, S], None],
    report: Callable[[int, S], None],
    save: Callable[[int, S], None] | None,
    is_interrupted: Callable[[], bool],
    is_last: Callable[[int], bool] = lambda step: False,
) -> S:
    """Returns the last state of work that is done segment by segment.

    Whatever moment an interruption falls on, the work can be resumed from the last state that was saved: one is saved
    every `SECONDS_PER_CHECKPOINT`, and at once if Ctrl-C was pressed.

    Args:
      segments: the steps at which the host takes over, ascending, each with the state there; the first of them is
        where the work begins, or is resumed.
      evaluate: is called with each step and its state.
      report: is called with each step and its state, after that.
      save: is called with a step and its state if they are to be saved; None if nothing is.
      is_interrupted: whether to save the state of this step, and to stop.
      is_last: whether the state of a step is saved in any case.

    Raises:
      KeyboardInterrupt: the work was interrupted; its state has been saved.
    """
    first, last_save = None, time.monotonic()
    for step, state in segments:
        first = step if first is None else first
        evaluate(step, state)
        report(step, state)
        stops = is_interrupted()
        is_due = time.monotonic() - last_save > SECONDS_PER_CHECKPOINT
        if save is not None and step > first and (is_due or stops or is_last(step)):
            save(step, state)
            last_save = time.monotonic()
        if stops:
            raise KeyboardInterrupt(f"saved at step {step}: the same call resumes from there")
    return state

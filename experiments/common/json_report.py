"""What experiments/sweep_grid.py prints with --json."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxmnist as jm

from .config import OPTIONS_OF_ONE_CALL, load_config

REPORT_FORMAT = 1


@contextlib.contextmanager
def apart(is_apart: bool) -> Iterator[None]:
    """Sends what the block prints to standard error, so that standard output stays free; or not."""
    with contextlib.redirect_stdout(sys.stderr) if is_apart else contextlib.nullcontext():
        yield


def json_report(options: Any, estimate: Any) -> str:
    """Returns the report of a sweep as JSON; docs/command_line.md describes it.

    Args:
      options: of the script.
      estimate: what `jm.estimate` returned, with --dry-run; otherwise None.
    """
    from jaxmnist.studies.summary import as_json

    folder = options.plot_only or options.output_dir
    places = {} if options.dry_run else {"sweep": folder} | ({"refined": folder / "refined"} if options.refine else {})
    report = {
        "format": REPORT_FORMAT,
        "asked": _asked(options, folder),
        "estimate": estimate and estimate._asdict(),
        **dict.fromkeys(("sweep", "refined")),
        **{name: _of_folder(place, options.by) for name, place in places.items()},
    }
    return as_json(report)


def _asked(options: Any, folder: Path) -> dict[str, Any] | None:
    """Returns the options with which a sweep was begun, without those of one call; None if they are not known."""
    if not options.dry_run:
        try:
            options = load_config(type(options), folder)
        except ValueError:
            return None
    found = dataclasses.asdict(options)
    return {name: value for name, value in found.items() if name not in OPTIONS_OF_ONE_CALL}


def _of_folder(folder: Path, by: str | None) -> dict[str, Any] | None:
    """Returns what the results in a folder say, or None while some of its shards have not ended."""
    from jaxmnist.studies import summary

    if not (folder / "results.nc").is_file():
        return None
    return {**summary.summary(jm.load_results(folder), by), "files": summary.files_of_ours(folder)}

"""How an experiment runs as a program: its errors, Ctrl-C, and the cache of compiled programs."""

import codecs
import contextlib
import io
import os
import platform
import shlex
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax

import jaxmnist as jm

# What tables and the map of a running sweep hold; other characters are those of names, and shown as \xe9.
IN_ASCII = {"±": "+-", "↑": "^", "→": ">", "…": "..", "·": "."}


def main(experiment: Callable[[], None]) -> None:
    """Runs an experiment as a program; Ctrl-C and a full disk end it with one line and the usual exit status."""
    # A notebook's `!python` passes on its own backend, which need not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    show_everything()
    keep_compiled_programs()
    # If a test or a notebook runs the script in its own process, the devices are already chosen.
    with contextlib.suppress(RuntimeError):
        jm.use_cores()
    try:
        experiment()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # The usual end would wait for the segment that is still being computed, minutes in a large sweep.
        os._exit(128 + signal.SIGINT)


@contextlib.contextmanager
def usage_errors(kinds: tuple[type[Exception], ...] = (ValueError, OSError)) -> Iterator[None]:
    """Turns errors in the options, the data or the files into one sentence and exit status 2."""
    try:
        yield
    except kinds as error:
        fail(str(error))


def fail(problem: str) -> NoReturn:
    """Ends the program with one sentence and exit status 2."""
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def resumable(folder: Path, code: Sequence[str] = ()) -> Iterator[None]:
    """Prints how to continue if Ctrl-C or the file system ends a training that saves its states in a folder.

    Args:
      folder: that of the states.
      code: the arguments that name a person's own code.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError):
        command = shlex.join(["python", sys.argv[0], "--resume", str(folder), *code])
        print(f"to continue: {command}", file=sys.stderr)
        raise


def show_everything() -> None:
    """Lets standard output and error show what their encoding lacks in ASCII, rather than raise an error."""
    codecs.register_error("in_ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # that of a notebook is another kind
            stream.reconfigure(errors="in_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Returns what is shown for the first character that cannot be, and where the next one begins."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in IN_ASCII:
        return IN_ASCII[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


def keep_compiled_programs() -> None:
    """Keeps compiled programs for the next start, in JAX_COMPILATION_CACHE_DIR or else in the user's cache folder."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # Machines that share a home may have different instruction sets.
    folder = Path(named) if named else caches / "jaxmnist" / f"{zlib.crc32(_instruction_set()):08x}"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # there is no home that can be written: programs are compiled again at each start
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _instruction_set() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor()).encode()

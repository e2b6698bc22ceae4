"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Calls `write` with a passing name in the same folder, and moves the file into place once it is whole."""
    descriptor, passing = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(descriptor)
    try:
        write(passing)
        # Without this, a machine that loses its power may keep the name and lose the content.
        with open(passing, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(passing, 0o644)
        os.replace(passing, path)
    except BaseException:
        os.unlink(passing)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda passing: Path(passing).write_text(text))

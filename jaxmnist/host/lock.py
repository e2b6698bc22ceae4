"""One writer per folder: a lock that says who holds it, and that ends with its process, however that ends.

The lock is the kernel's, on a hidden file in the folder. Linux carries it over NFS to all machines, and frees it when
the process or its machine dies. The file holds the owner's note for those who find the folder in use, and is removed
when the lock is released; one that a crash left, perhaps empty, is taken over.

A file system that has no locks is used without one, after a warning: a file with a heartbeat would need a thread and
clocks that agree, and could still be wrong. A forked child shares the lock of its parent.
"""

import contextlib
import errno
import json
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxmnist.host.files import FORMAT, check_folder, check_ours, read_json

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FILE_NAME = ".jaxmnist-lock.json"
REMEDY = "wait for it (wait=True), or choose another folder"
SECONDS_PER_TRY = 0.5
# A note is written at once after its file was locked.
NUM_READS, SECONDS_PER_READ = 20, 0.05
WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
# On Windows a locked byte cannot be read: it lies behind the note.
LOCKED_BYTE = 2**30


class _Held(threading.local):
    """The folders that a thread holds."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()


_held = _Held()


@contextlib.contextmanager
def hold(folder: Path | None, wait: bool = False, remedy: str = REMEDY) -> Iterator[None]:
    """Keeps all other processes and threads that hold a folder out of it while the block runs.

    A thread that holds the folder already may do so again.

    Args:
      folder: created if it does not exist; None holds nothing.
      wait: whether to wait for another holder, until Ctrl-C; a line on standard error says for whom.
      remedy: what the user can do instead of waiting, for the message.

    Raises:
      ValueError: somebody else holds the folder, or a file that this package did not write has the name of the lock.
      OSError: the folder cannot be created.
    """
    if folder is None or (place := folder.resolve()) in _held.folders:
        yield
        return
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        # Nobody can write there, but a finished result can be read.
        yield
        return
    path = place / FILE_NAME
    descriptor = _acquire(folder, path, wait, remedy)
    _held.folders.add(place)
    try:
        yield
    finally:
        _held.folders.remove(place)
        _release(descriptor, path)


def _acquire(folder: Path, path: Path, wait: bool, remedy: str) -> int:
    """Returns the descriptor of the locked file, with this process's note in it."""
    is_told = False
    while (descriptor := _locked(path)) is None:
        if not wait:
            raise ValueError(f"folder {folder} is in use by {_owner(path)}; {remedy}")
        if not is_told:
            print(f"waiting for {_owner(path)}, to use folder {folder}; Ctrl-C stops", file=sys.stderr, flush=True)
            is_told = True
        time.sleep(SECONDS_PER_TRY)
    return descriptor


def _locked(path: Path) -> int | None:
    """Returns the descriptor of the locked file, or None if somebody else has locked it."""
    try:
        # A link would lead to somebody else's file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError:
        check_ours(path)
        raise
    try:
        is_locked = _lock(descriptor, path.parent)
        if is_locked and _is_at(descriptor, path):
            _write_note(descriptor, path)
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    # The one before removed the file after it was opened here: there is another one by now, or none.
    return _locked(path) if is_locked else None


def _lock(descriptor: int, folder: Path) -> bool:
    """Locks a file, and returns whether nobody else had locked it; warns if there are no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(f"{folder} is on a file system without locks: let nothing else write there", stacklevel=2)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Returns whether a path is still that of an open file."""
    try:
        # Opened, since NFS looks up what is opened, and may remember for a while what was removed elsewhere.
        with path.open("rb") as file:
            return os.path.samestat(os.fstat(descriptor), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _write_note(descriptor: int, path: Path) -> None:
    """Writes who holds the lock into its file.

    Raises:
      ValueError: something else is in it. If it is empty, its owner died before it had written anything.
    """
    if not path.is_file() or path.stat().st_size > 0:
        check_ours(path)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    note = {"format": FORMAT, "process": os.getpid(), "machine": platform.node(), "since": since}
    # On a full disk, the lock holds without a note.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(note).encode())
        # Other machines see it from now on.
        os.fsync(descriptor)


def _owner(path: Path) -> str:
    """Returns in words who holds a lock."""
    for _ in range(NUM_READS):
        try:
            note = read_json(path)
            return f"process {note['process']} on machine {note['machine']} since {note['since']}"
        except (OSError, ValueError, KeyError):  # not written yet, or removed by now
            time.sleep(SECONDS_PER_READ)
    return "another process"


def _release(descriptor: int, path: Path) -> None:
    """Removes the file while it is locked, so that it is nobody else's, and frees the lock."""
    is_windows = sys.platform == "win32"
    if is_windows:
        # An open file cannot be removed there: if somebody else has opened it by then, it stays.
        os.close(descriptor)
    with contextlib.suppress(OSError):  # one that stays is taken over
        if is_windows or _is_at(descriptor, path):
            path.unlink()
    if not is_windows:
        os.close(descriptor)

"""One writer per folder: within a process, among processes, and after a crash."""

import contextlib
import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from locks_for_tests import held_elsewhere, is_held

from jaxmnist.host import files, lock

OWNER = rf"process {os.getpid()} on machine {re.escape(platform.node())} since \d{{4}}-\d\d-\d\d [\d:]{{8}}"


def test_others_are_told_who_holds_a_folder_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "folder"
    with held_elsewhere(folder):
        note = json.loads((folder / lock.FILE_NAME).read_text())
        assert note["process"] == os.getpid() and files.is_ours(folder / lock.FILE_NAME)
        files.remove_temporary_files(folder)
        with pytest.raises(ValueError, match=f"folder {folder} is in use by {OWNER}; wait for it"), lock.hold(folder):
            pytest.fail("entered")
    with lock.hold(folder):
        assert is_held(folder)
    assert not list(folder.iterdir())
    with pytest.raises(ZeroDivisionError), lock.hold(folder):
        raise ZeroDivisionError
    assert not list(folder.iterdir()) and not is_held(folder)


def test_the_holder_may_hold_it_again_by_whatever_name(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.chdir(tmp_path)
    with lock.hold(Path("folder")):
        with lock.hold(tmp_path / "link"), lock.hold(None):
            pass
        assert is_held(tmp_path / "folder")


def test_who_waits_says_so_once_and_enters_at_the_end(tmp_path, monkeypatch, capsys):
    with held_elsewhere(tmp_path) as end:
        pauses = []
        monkeypatch.setattr(lock.time, "sleep", lambda seconds: (pauses.append(1), len(pauses) > 3 and end.set()))
        with lock.hold(tmp_path, wait=True):
            assert end.is_set() and is_held(tmp_path)
    err = capsys.readouterr().err
    assert re.fullmatch(f"waiting for {OWNER}, to use folder {tmp_path}; Ctrl-C stops\n", err)


def test_ctrl_c_ends_the_wait(tmp_path, monkeypatch):
    def press(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.time, "sleep", press)
    with held_elsewhere(tmp_path), pytest.raises(KeyboardInterrupt), lock.hold(tmp_path, wait=True):
        pytest.fail("entered")
    assert not is_held(tmp_path)


@pytest.mark.parametrize("left", ["", '{"format": 1, "process": 1, "machine": "m", "since": "then"}', '{"format": 1}'])
def test_what_a_crash_left_is_taken_over(tmp_path, left):
    (tmp_path / lock.FILE_NAME).write_text(left)
    with lock.hold(tmp_path):
        assert json.loads((tmp_path / lock.FILE_NAME).read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_persons_file_of_that_name_stays(tmp_path):
    (tmp_path / "outside").write_text("")
    makers = {
        "text": lambda path: path.write_text("mine"),
        "json": lambda path: path.write_text('{"mine": 1}'),
        "link": lambda path: path.symlink_to("../outside"),
        "dangling": lambda path: path.symlink_to("../none"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
    }
    for name, make in makers.items():
        path = tmp_path / name / lock.FILE_NAME
        path.parent.mkdir()
        make(path)
        before = path.lstat()[:2], path.lstat().st_mtime_ns
        with pytest.raises(ValueError, match="was not written by jaxmnist"), lock.hold(path.parent):
            pytest.fail("entered")
        assert (path.lstat()[:2], path.lstat().st_mtime_ns) == before
    assert (tmp_path / "outside").read_text() == "" and not (tmp_path / "none").exists()


def test_a_file_that_is_removed_as_it_is_locked_is_not_the_lock(tmp_path, monkeypatch):
    path, calls = tmp_path / lock.FILE_NAME, []

    def flock(descriptor, operation, real=lock.fcntl.flock):
        calls.append(descriptor)
        if len(calls) <= 2:
            path.unlink()
            if len(calls) == 2:  # the next one has made its own
                path.write_text("")
        real(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.hold(tmp_path):
        assert len(calls) == 3 and is_held(tmp_path)


def test_a_lock_that_a_person_removed_is_not_taken_from_the_next_one(tmp_path):
    with contextlib.ExitStack() as others:
        with lock.hold(tmp_path):
            (tmp_path / lock.FILE_NAME).unlink()
            others.enter_context(held_elsewhere(tmp_path))
        assert (tmp_path / lock.FILE_NAME).exists() and is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_used_after_a_warning(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="file system without locks: let nothing else"), lock.hold(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_another_error_of_the_file_system_is_none_of_these(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), lock.hold(tmp_path):
        pytest.fail("entered")


def test_on_a_full_disk_the_lock_holds_without_a_note(tmp_path, monkeypatch):
    def write(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lock.os, "write", write)
    with held_elsewhere(tmp_path), pytest.raises(ValueError, match="in use by another process; "), lock.hold(tmp_path):
        pytest.fail("entered")


def test_a_folder_that_cannot_be_written_is_read_without_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.os, "access", lambda path, mode: False)
    with lock.hold(tmp_path):
        assert not list(tmp_path.iterdir())


SWEEPING = """
import sys
import optax
import jaxmnist as jm
from conftest import make_tiny
from jaxmnist.host import lock, loop
from jaxmnist.sweeps import planning, programs

planning.SEGMENT_FLOPS, loop.SECONDS_PER_CHECKPOINT, lock.SECONDS_PER_TRY = 1.0, 0.0, 0.05
taken, advance = [], programs.advance

def paused(*args, **kwargs):
    taken.append(1)
    if len(taken) == 4:
        print("training", flush=True)
        sys.stdin.readline()
    return advance(*args, **kwargs)

programs.advance = paused
runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=4, seed=range(2))
for line in filter(str.strip, iter(sys.stdin.readline, "")):
    folder, wait = line.split()
    taken.clear()
    shared = dict(num_steps=10, progress=False, folder=folder, wait=wait == "wait")
    try:
        result = jm.sweep(jm.SoftmaxRegression(4), optax.sgd, runs, make_tiny(), **shared)
        print(len(taken), float(result["validation_loss"].sum()).hex(), flush=True)
    except ValueError as error:
        print(error, flush=True)
"""
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def three():
    """Three processes that sweep in the folders they are told, and pause before their fourth segment."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command, pipe = [sys.executable, "-c", SWEEPING], subprocess.PIPE
    shared: dict = dict(env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    processes = [subprocess.Popen(command, **shared) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def tell(processes, words) -> None:
    for process in processes:
        process.stdin.write(f"{words}\n")
        process.stdin.flush()


def heard(processes) -> list[str]:
    return [process.stdout.readline().strip() for process in processes]


@pytest.mark.slow
def test_of_three_processes_one_trains_and_the_next_goes_on_from_its_state(three, tmp_path):
    def begin(folder, wait):
        """Starts all three; returns which of them trains, and what the two others say first."""
        tell(three, f"{tmp_path}/{folder} {wait}")
        lines = heard(three)
        training = three[lines.index("training")]
        lines.remove("training")
        return training, lines

    training, lines = begin("first", "stop")
    owner = f"process {training.pid} on machine {platform.node()} since "
    assert all(line.startswith(f"folder {tmp_path}/first is in use by {owner}") for line in lines)
    tell([training], "")
    num_taken, whole = heard([training])[0].split()
    assert num_taken == "10"

    training, lines = begin("second", "wait")
    owner = f"process {training.pid} on machine {platform.node()} since "
    assert all(line.startswith(f"waiting for {owner}") for line in lines)
    tell([training], "")
    assert sorted(heard(three)) == [f"0 {whole}", f"0 {whole}", f"10 {whole}"]

    training, _ = begin("third", "wait")
    training.send_signal(signal.SIGKILL)
    others = [process for process in three if process is not training]
    tell(others, "")
    lines = heard(others)
    next_one = others[lines.index("training")]
    lines.remove("training")
    num_taken, last = heard([next_one])[0].split()
    # It had saved at least two segments.
    assert lines == [f"0 {whole}"] and last == whole and int(num_taken) in (7, 8)

    for name in ("first", "second", "third"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["results.csv", "results.nc"]

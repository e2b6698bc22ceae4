"""What may go wrong with files while something trains: a full disk, damage, kills."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import optax
import pytest
import xarray as xr
from results_for_tests import make_result
from scripts_for_tests import EXPERIMENTS
from test_report import predictions

import jaxmnist as jm
from jaxmnist.data import loading
from jaxmnist.host import files
from jaxmnist.host import loop as host_loop
from jaxmnist.host.checkpoints import Checkpoints, saved_states
from jaxmnist.networks import run
from jaxmnist.studies import report
from jaxmnist.sweeps import programs
from jaxmnist.sweeps.folder import SweepFolder, is_unfinished

MODEL = jm.SoftmaxRegression(4)
ADAM = optax.adam(0.01)
RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=[1, 2, 40], seed=range(2))


@pytest.fixture
def saving_always(monkeypatch):
    """States after each segment, results after each program."""
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    monkeypatch.setattr("jaxmnist.host.progress.MAX_SHARE", 1e9)


def sweep(tiny, folder=None):
    return jm.sweep(MODEL, optax.sgd, RUNS, tiny, num_steps=4, num_evaluations=2, progress=False, folder=folder)


def train(tiny, folder, warn=pytest.fail):
    numbers = dict(batch_size=5, num_steps=37, evaluation_steps=20)
    return run.train_run(MODEL, ADAM, tiny, 3, **numbers, folder=folder, warn=warn)[0]


def fill_the_disk(monkeypatch, after):
    """Makes every write fail after so many; returns a list of the files that were written."""
    written = []

    def fsync(descriptor, real=os.fsync):
        if len(written) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return written


@pytest.mark.slow
def test_a_sweep_whose_disk_is_full_loses_nothing(tiny, tmp_path, monkeypatch, two_programs, saving_always):
    whole = sweep(tiny)
    written = fill_the_disk(monkeypatch, None)
    sweep(tiny, tmp_path / "all")
    # The lock, plan and description, three states of each program and its result, the first one's in results.nc, and
    # all of it.
    assert len(written) == 1 + 2 + 2 * 4 + 1 + 2
    finished_before = -1
    for after in range(len(written)):
        folder = tmp_path / str(after)
        with monkeypatch.context() as context:
            fill_the_disk(context, after)
            with pytest.raises(OSError, match=r"No space left on device: '/.*(npz|json|nc|csv)'"):
                sweep(tiny, folder)
        finished = len(list((folder / "progress").glob("[0-9]*.npz")))
        assert finished >= finished_before
        finished_before = finished
        advance, calls = programs.advance, []
        with monkeypatch.context() as context:
            context.setattr(programs, "advance", lambda *args, **kw: (calls.append(1), advance(*args, **kw))[1])  # noqa: B023
            xr.testing.assert_identical(sweep(tiny, folder), whole)
        assert len(calls) <= 4 * (2 - finished)
        assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.nc"]
    assert finished_before == 2


def test_a_long_run_whose_disk_is_full_loses_nothing(tiny, tmp_path, monkeypatch, saving_always):
    whole = train(tiny, tmp_path / "whole")
    # The first write is the lock's note, without which training goes on.
    for after in range(5):
        with monkeypatch.context() as context:
            fill_the_disk(context, after)
            with pytest.raises(OSError, match=r"No space left on device: '.*/[0-9]*\.npz'"):
                train(tiny, tmp_path / str(after))
        kept = [int(path.stem) for path in saved_states(tmp_path / str(after))]
        assert kept == [10, 20, 30][: max(after - 1, 0)][::-1][:2]
        assert not list((tmp_path / str(after)).glob(".*"))
        jax.tree.map(np.testing.assert_array_equal, train(tiny, tmp_path / str(after)).params, whole.params)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [28, 60])
def test_a_disk_that_really_fills_up(tmp_path, kib):
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(mount))
    may_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not may_mount or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    arguments = ("--dataset", "digits", "--learning-rates", "0.1", "--batch-sizes", "1", "8", "--num-steps", "50")

    def run(*given, status):
        command = [sys.executable, str(EXPERIMENTS / "sweep_grid.py"), *given]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stderr.splitlines()

    try:
        run(*arguments, "--output-dir", "whole", status=0)
        err = run(*arguments, "--output-dir", "disk/out", status=1)
        assert err[-2].startswith("to continue: python ") and err[-2].endswith("--resume disk/out")
        assert err[-1].startswith("error: [Errno 28] No space left on device: 'disk/out/")
        assert sum(not line.startswith("sweep: ") for line in err) == 2
        subprocess.run(["mount", "-o", "remount,size=50m", str(mount)], check=True)
        run("--resume", "disk/out", status=0)
        names = [sorted(path.name for path in (tmp_path / place).iterdir()) for place in ("whole", "disk/out")]
        assert names[0] == names[1]
        whole, parts = ((tmp_path / place / "results.csv").read_bytes() for place in ("whole", "disk/out"))
        assert whole == parts
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def flipped(content, num_places=30):
    """Yields the content with one bit flipped in many places, the first and last 60 bytes among them, and cut."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(content), num_places).tolist()
    places = [*range(60), *range(len(content) - 60, len(content)), *drawn]
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1 << int(generator.integers(8))
        yield bytes(broken)
    yield from (content[:length] for length in (0, 1, len(content) // 2, len(content) - 1))


def test_no_damaged_state_is_taken_for_another(tmp_path):
    state = jm.init_state(MODEL, optax.adam(0.1), 0, np.zeros((1, 6, 5, 1), np.uint8))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, state, [{"loss": 1.5}])
    content = (tmp_path / "10.npz").read_bytes()
    num_noticed = 0
    for broken in flipped(content):
        (tmp_path / "10.npz").write_bytes(broken)
        sentences = []
        if len(broken) < 2:  # nothing tells whose it is
            with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="not written by"):
                checkpoints.restore(state)
            assert (tmp_path / "10.npz").read_bytes() == broken
            continue
        with Checkpoints(tmp_path) as checkpoints:
            restored = checkpoints.restore(state, sentences.append)
        if restored is None:
            num_noticed += 1
            assert len(sentences) == 2 and not (tmp_path / "10.npz").exists()
            # Set aside, each under a name of its own.
            (name,) = re.findall(r"10\.unreadable-[0-9]+", sentences[0])
            assert (tmp_path / name).read_bytes() == broken and not saved_states(tmp_path)
        else:  # a date, or what else says nothing
            same = jax.tree.map(lambda a, b: bool((a == b).all()), restored[1], state)
            assert jax.tree.all(same) and restored[0] == 10 and restored[2] == [{"loss": 1.5}]
    assert len(list(tmp_path.glob("*.unreadable-*"))) == num_noticed > 50


def test_no_damaged_result_of_a_program_is_taken_for_another(tmp_path):
    outcome = {"test_loss": np.arange(6, dtype=np.float32).reshape(2, 3), "diverged_step": np.full((2, 3), np.nan)}
    kept = SweepFolder(tmp_path)
    (tmp_path / "progress").mkdir()
    shapes = {name: array.shape for name, array in outcome.items()}
    kept.finish({0: outcome})
    path = tmp_path / "progress" / "000000.npz"
    num_noticed = 0
    for broken in flipped(path.read_bytes()):
        path.write_bytes(broken)
        found = dict(kept.outcomes({0: shapes}.__getitem__)).get(0)
        num_noticed += found is None
        if found is not None:
            assert set(found) == set(outcome)
            assert all(np.array_equal(found[name], outcome[name], equal_nan=True) for name in outcome)
    assert num_noticed > 50


def read_predictions(folder):
    with contextlib.suppress(ValueError):
        return list(report.load_predictions(folder))


def read_data(folder):
    found = loading._read_cache("tiny", folder / "data.npz", "x")
    if found is not None:
        return [np.array(found.class_names), *found.train, *found.validation, *found.test]


@pytest.mark.parametrize(
    ("name", "read"),
    [pytest.param(report.FILE_NAME, read_predictions, marks=pytest.mark.slow), ("data.npz", read_data)],
)
def test_no_damaged_predictions_or_data_are_taken_for_others(tiny, tmp_path, name, read):
    report.save_predictions(tmp_path, predictions(tiny)[0])
    loading._write_cache(tmp_path / "data.npz", tiny, "x")
    content = (tmp_path / name).read_bytes()
    whole = read(tmp_path)
    first = content.index(b"PK\1\2")  # entry of the directory, which has no checksum
    second = content.index(b"PK\1\2", first + 1)
    bits = itertools.product(range(first, second), range(8))
    entries = (content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :] for at, bit in bits)
    num_noticed = 0
    for broken in (*flipped(content), *entries):
        (tmp_path / name).write_bytes(broken)
        found = read(tmp_path)
        num_noticed += found is None
        if found is not None:
            jax.tree.map(np.testing.assert_array_equal, found, whole)
    assert num_noticed > 200


def test_no_damaged_result_is_taken_for_another(tmp_path):
    result = make_result()
    jm.save(result, tmp_path)
    path = tmp_path / "results.nc"
    whole = path.read_bytes()
    num_broken = num_noticed = 0
    for broken in flipped(whole, 200):
        path.write_bytes(broken)
        num_broken += 1
        try:
            # In what the checksum is known by, a flipped bit says nothing.
            xr.testing.assert_identical(jm.load_results(tmp_path), result)
        except ValueError as error:
            num_noticed += 1
            assert str(error).startswith(f"{path} is damaged, or was not written by jaxmnist: ")
            assert "\n" not in str(error)
    assert num_broken > num_noticed > num_broken - 25


def test_a_result_that_was_changed_by_another_program_is_read(tmp_path):
    jm.save(make_result(), tmp_path)
    with h5py.File(tmp_path / "results.nc", "a") as file:
        file["validation_loss"][0, 0, 0] = 4.0
    assert jm.load_results(tmp_path)["validation_loss"].values[0, 0, 0] == 4.0


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_a_sweep_falls_back_to_the_state_before(tiny, tmp_path, monkeypatch, two_programs, saving_always, num_damaged):
    whole = sweep(tiny)
    advance = programs.advance
    counter = itertools.count(1)

    def stopping(*args, **kwargs):
        if next(counter) == 4:
            raise ZeroDivisionError
        return advance(*args, **kwargs)

    with monkeypatch.context() as context, pytest.raises(ZeroDivisionError):
        context.setattr(programs, "advance", stopping)
        sweep(tiny, tmp_path)
    states = saved_states(tmp_path / "progress" / "states_000000")
    assert [path.stem for path in states] == ["3", "2"] and is_unfinished(tmp_path)
    for path in states[:num_damaged]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    calls = []
    monkeypatch.setattr(programs, "advance", lambda *args, **kw: (calls.append(1), advance(*args, **kw))[1])
    with pytest.warns(UserWarning) as caught:
        xr.testing.assert_identical(sweep(tiny, tmp_path), whole)
    assert len(calls) == (2 if num_damaged == 1 else 4) + 4
    sentences = ["step 3 in", "step 2 in", "starts again"][: 1 if num_damaged == 1 else 3]
    assert all(words in str(one.message) for words, one in zip(sentences, caught, strict=True))
    # Only they are left of what was needed to resume.
    left = [path.relative_to(tmp_path / "progress").as_posix() for path in (tmp_path / "progress").rglob("*.*")]
    assert sorted(left) == [f"states_000000/{step}.unreadable-1" for step in (2, 3)[-num_damaged:]]


def test_a_state_that_cannot_be_read_now_is_not_removed(tiny, tmp_path, monkeypatch):
    train(tiny, tmp_path)

    def refuse(self):
        raise PermissionError(errno.EACCES, "denied", str(self))

    with monkeypatch.context() as context, pytest.raises(PermissionError, match=r"37\.npz"):
        context.setattr(Path, "read_bytes", refuse)
        train(tiny, tmp_path)
    assert (tmp_path / "37.npz").is_file()


@pytest.mark.slow
def test_half_written_files_of_a_kill_go_away(tiny, tmp_path):
    (tmp_path / ".jaxmnist-abcd_123.nc").write_text("half")
    (tmp_path / ".jaxmnist-abcd_123.csv").write_text("half")
    sweep(tiny, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.nc"]

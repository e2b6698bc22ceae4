"""Ctrl-C: by itself, in a sweep, in a long run, and in the scripts."""

import functools
import importlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from conftest import mostly_slow
from scripts_for_tests import EXPERIMENTS

import jaxmnist as jm
from jaxmnist.host.checkpoints import saved_states
from jaxmnist.host.interrupts import NOTICE, defer_interrupt
from jaxmnist.networks import run, spreading
from jaxmnist.sweeps import programs

MODEL = jm.SoftmaxRegression(4)
ADAM = optax.adam(0.01)
RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=[1, 2, 40], seed=range(2))
sweep_module = importlib.import_module("jaxmnist.sweeps.sweep")


@pytest.fixture(autouse=True)
def usual_handler():
    """Python's own handler, where the tests were started by something that ignores Ctrl-C too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


def counting(function, events):
    """Returns the function, which does what `events` has for the number of the call before it returns."""
    calls = []

    @functools.wraps(function)
    def counted(*args, **kwargs):
        calls.append(1)
        result = function(*args, **kwargs)
        events.get(len(calls), lambda: None)()
        return result

    counted.calls = calls
    return counted


def test_the_first_press_is_asked_after_and_the_second_raises(capsys):
    with pytest.raises(KeyboardInterrupt), defer_interrupt() as is_stopped:
        assert not is_stopped()
        press()
        assert is_stopped() and capsys.readouterr().err.count(NOTICE) == 1
        press()
        pytest.fail("a second Ctrl-C did not stop")


def test_a_press_that_nobody_asked_after_is_not_lost():
    done = []
    with pytest.raises(KeyboardInterrupt), defer_interrupt():
        press()
        done.append("the rest of the block")
    assert done
    with pytest.raises(ZeroDivisionError), defer_interrupt():
        press()
        raise ZeroDivisionError


def test_where_it_is_not_enabled_nothing_changes():
    with pytest.raises(KeyboardInterrupt), defer_interrupt(enabled=False) as is_stopped:
        assert not is_stopped()
        press()
        pytest.fail("Ctrl-C did not stop")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with defer_interrupt() as is_stopped:
        press()
        assert not is_stopped()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_in_another_thread_nothing_changes(tiny, tmp_path):
    results = []
    arguments = (MODEL, optax.sgd, RUNS, tiny)
    call = functools.partial(jm.sweep, *arguments, num_steps=4, progress=False, folder=tmp_path)
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    xr.testing.assert_identical(results[0], call())


@pytest.mark.parametrize("at", mostly_slow((1, 5, 12, 13, 24), 5, 12))
def test_a_sweep_saves_the_segment_and_goes_on(tiny, tmp_path, monkeypatch, two_programs, at):
    call = functools.partial(jm.sweep, MODEL, optax.sgd, RUNS, tiny, num_steps=12, num_evaluations=3, progress=False)
    whole = call()
    advance = counting(programs.advance, {at: press})
    monkeypatch.setattr(programs, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        call(folder=tmp_path)
    assert len(advance.calls) == at
    # Nothing is done twice: the second of two programs of 12 segments goes on where it was.
    xr.testing.assert_identical(call(folder=tmp_path), whole)
    assert len(advance.calls) == 24


def test_a_sweep_stops_at_once_at_the_second_press_or_without_a_folder(tiny, tmp_path, monkeypatch, many_segments):
    call = functools.partial(jm.sweep, MODEL, optax.sgd, RUNS, tiny, num_steps=12, num_evaluations=3, progress=False)
    whole = call()
    reached = []

    def twice():
        press()
        reached.append("first")
        press()
        reached.append("second")

    for folder, events in ((tmp_path, {5: twice}), (None, {5: lambda: (press(), reached.append("second"))})):
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(programs, "advance", counting(programs.advance, events))
            call(folder=folder)
    assert reached == ["first"]
    xr.testing.assert_identical(call(folder=tmp_path), whole)


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_long_run_saves_the_segment_and_goes_on(tiny, tmp_path, monkeypatch, at):
    numbers = dict(batch_size=5, num_steps=37, evaluation_steps=20)
    whole, _ = run.train_run(MODEL, ADAM, tiny, 3, **numbers, folder=tmp_path / "whole")
    fit = counting(spreading.fit, {at: press})
    monkeypatch.setattr(spreading, "fit", fit)
    call = functools.partial(run.train_run, MODEL, ADAM, tiny, 3, **numbers, folder=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        call()
    assert [int(path.stem) for path in saved_states(tmp_path / "parts")] == [min(10 * at, 37)]
    parts, _ = call()
    assert len(fit.calls) == 4
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)


RATES = (word for name in ("sgd", "momentum", "adam", "adamw") for word in (f"--{name}-rates", 0.01))
SCRIPTS = {
    "sweep_grid": ("--num-seeds", 2, "--num-steps", 20, "--learning-rates", 0.1, 0.2, "--batch-sizes", 10),
    "accuracy_vs_steps": ("--num-seeds", 2, "--num-steps", 20),
    "accuracy_vs_steps comparing": ("--compare", "--num-seeds", 6, "--num-steps", 20, *RATES),
    "trainability_boundary": ("--resolution", 4, "--num-steps", 20),
    "train_cnn": ("--features", 2, "--kernel-sizes", 3, "--pool-after", 1, "--hidden-size", 4, "--num-steps", 30),
}


# A comparison trains its curves last.
@pytest.mark.slow
@pytest.mark.parametrize("what", mostly_slow(SCRIPTS, "sweep_grid"))
def test_scripts_say_how_to_go_on(no_home, monkeypatch, capsys, many_segments, what):
    at = -1 if "comparing" in what else 2
    # In this process, since starting one takes seconds; others start the scripts as a person does.
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.chdir(no_home)
    script = what.split()[0]
    place, name = (spreading, "fit") if script == "train_cnn" else (programs, "advance")
    train = getattr(place, name)
    undisturbed = counting(train, {})
    monkeypatch.setattr(place, name, undisturbed)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        importlib.import_module("common").main(importlib.import_module(script).main)

    arguments = ("--dataset", "digits", *SCRIPTS[what])
    run(*arguments, "--output-dir", "whole")
    num_segments = len(undisturbed.calls)
    with monkeypatch.context() as context, pytest.raises(SystemExit) as ended:
        context.setattr("os._exit", sys.exit)
        context.setattr(place, name, counting(train, {at % num_segments: press}))
        capsys.readouterr()
        run(*arguments, "--output-dir", "cut off")
    err = capsys.readouterr().err
    assert ended.value.code == 130 and NOTICE in err
    assert err.endswith(f"to continue: python {script}.py --resume 'cut off'\ninterrupted\n")
    run("--resume", "cut off")
    assert len(undisturbed.calls) == 2 * num_segments - at % num_segments
    results = ("results.csv", "accuracy_vs_steps.csv", "comparison.csv", "predictions.npz")
    written = [path.relative_to("whole") for path in Path("whole").rglob("*") if path.name in results]
    assert written
    for path in written:
        assert (Path("cut off") / path).read_bytes() == (Path("whole") / path).read_bytes()
    assert json.loads((no_home / "cut off" / "config.json").read_text())["format"] == 1


ADVANCING = """
import os, runpy, signal, sys
from jaxmnist.sweeps import capacity, programs
signal.signal(signal.SIGINT, signal.default_int_handler)
advance = programs.advance
def announced(*args, **kwargs):
    states = advance(*args, **kwargs)
    print("advancing", flush=True)
    return states
programs.advance = announced
capacity.MAX_STATE_BYTES = 2**27
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_second_press_does_not_wait_for_the_segment(tmp_path):
    # A segment is 500 steps of 2,560 runs with a batch of 1,000: 40 TFLOP, minutes.
    sizes = ("--num-seeds", "512", "--batch-sizes", "1000", "--num-steps", "10000")
    script = str(EXPERIMENTS / "sweep_grid.py")
    command = [sys.executable, "-c", ADVANCING, script, "--dataset", "digits", *sizes, "--output-dir", "out"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "advancing\n"
        process.send_signal(signal.SIGINT)
        assert any(NOTICE in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == f"to continue: python {script} --resume out\ninterrupted\n"
        assert process.stdout.read() == ""
    assert not list((tmp_path / "out" / "progress").glob("states_*"))

"""Kills sweeps and a training at random moments and goes on with them; the results must be those of undisturbed ones.

As a program, `python tests/kill_at_random.py`, it kills each 20 times; the slow tests do a few.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
NUM_KILLS = 20
NUM_EARLY = 3
# States are saved after each segment, so that many of the kills fall into a save.
SAVING_ALWAYS = """
import importlib, os, runpy, sys
for name in ("host.loop",):
    importlib.import_module(f"jaxmnist.{name}").SECONDS_PER_CHECKPOINT = 0.0
importlib.import_module("jaxmnist.sweeps.collector").SECONDS_PER_REFRESH = 0.0
importlib.import_module("jaxmnist.host.progress").MAX_SHARE = 1e9
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
DIGITS = ("--dataset", "digits")
# By script: its options but the number of steps, the steps for each kill, and the file to compare.
WORK: dict[str, tuple[tuple, int, str]] = {
    "sweep_grid": (
        (*DIGITS, "--num-seeds", 2, "--learning-rates", 0.1, 0.2, "--batch-sizes", 1, 8, 64, 300), 2000, "results.csv",
    ),
    "accuracy_vs_steps": (
        (*DIGITS, "--num-seeds", 8, "--learning-rates", 0.1, 0.2, "--batch-size", 8), 2000, "accuracy_vs_steps.csv",
    ),
    "train_cnn": (
        (*DIGITS, "--features", 4, 8, "--hidden-size", 32, "--evaluation-steps", 50), 300, "predictions.npz",
    ),
}  # fmt: skip


def start(script: str, *arguments: object, folder: Path) -> subprocess.Popen:
    """Starts a script that saves all the time."""
    command = [sys.executable, "-c", SAVING_ALWAYS, str(EXPERIMENTS / f"{script}.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(script: str, *arguments: object, folder: Path) -> None:
    """Runs a script to its end."""
    with start(script, *arguments, folder=folder) as process:
        assert process.wait() == 0, f"{script} ended with status {process.returncode}"


def files(folder: Path) -> set[str]:
    """Returns the files below a folder, by os.walk, which does not mind what goes away as it looks."""
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


def saved(folder: Path) -> set[str]:
    """Returns the files below a folder, without those that say who is using it."""
    return {path for path in files(folder) if Path(path).name != ".jaxmnist-lock.json"}


def kill_once(script: str, arguments: tuple, folder: Path, early: bool, generator: np.random.Generator) -> None:
    """Starts a script and kills it while it starts, or right after it has saved something."""
    before = saved(folder)
    with start(script, *arguments, folder=folder) as process:
        if early:
            time.sleep(generator.uniform(0.5, 4))
        else:
            while saved(folder) == before:
                assert process.poll() is None, f"{script} ended before it could be killed"
                time.sleep(0.001)
            time.sleep(generator.uniform(0, 0.3))  # a few of its segments
        assert process.poll() is None, f"{script} ended before it could be killed"
        process.kill()


def kill_and_compare(script: str, folder: Path, num_kills: int) -> None:
    """Raises AssertionError where a script that is killed at random moments does not end as an undisturbed one."""
    options, steps_per_kill, name = WORK[script]
    begin = (*options, "--num-steps", num_kills * steps_per_kill, "--output-dir")
    finish(script, *begin, "whole", folder=folder)
    generator = np.random.default_rng(num_kills)
    for attempt in range(num_kills):
        is_begun = (folder / "killed" / "config.json").exists()
        arguments = ("--resume", "killed") if is_begun else (*begin, "killed")
        kill_once(script, arguments, folder, attempt < NUM_EARLY, generator)
    assert not (folder / "killed" / name).exists()
    finish(script, "--resume", "killed", folder=folder)
    whole, killed = ((folder / place / name).read_bytes() for place in ("whole", "killed"))
    assert whole == killed, f"{script}: {name} differs after {num_kills} kills"
    left = [path for path in files(folder / "killed") if Path(path).name.startswith(".")]
    assert not left, f"hidden files are left: {left}"


if __name__ == "__main__":
    for each in WORK:
        with tempfile.TemporaryDirectory() as passing:
            kill_and_compare(each, Path(passing), NUM_KILLS)
        print(f"{each}: killed {NUM_KILLS} times, the same {WORK[each][2]}")

"""The script that draws accuracy against steps, in an empty folder, with the embedded digits."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import mostly_slow
from scripts_for_tests import picture_size, run, start

import jaxmnist as jm

SMALL = ("--dataset", "digits", "--num-seeds", "2", "--num-steps", "20")


@pytest.mark.slow
def test_without_network_and_mnist_the_digits_are_used_and_named(tmp_path):
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*args, **kwargs):\n"
        "    raise OSError('unreachable')\n"
        "socket.create_connection = refuse\n"
    )
    arguments = ("--num-seeds", 2, "--num-steps", 30, "--output-dir", "out")
    path = os.pathsep.join((str(tmp_path / "offline"), *filter(None, [os.environ.get("PYTHONPATH")])))
    _, err = start("accuracy_vs_steps", *arguments, cwd=tmp_path, env={"PYTHONPATH": path})
    assert err.count("\n") == 2 and "using the embedded 'digits' (1,797 images, not MNIST)" in err
    with xr.open_dataset(tmp_path / "out" / "results.nc") as result:
        assert result.attrs["dataset"] == "digits"


@pytest.mark.slow
def test_without_a_home_a_script_trains_on_the_digits_and_keeps_no_programs(tmp_path, monkeypatch):
    def expanduser(path):
        if path.parts[0].startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", expanduser)
    kept = []
    monkeypatch.setattr("jax.config.update", lambda *option: kept.append(option))
    env = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": ""}
    _, err = run("accuracy_vs_steps", "--num-seeds", 2, "--num-steps", 4, cwd=tmp_path, env=env)
    assert "using the embedded 'digits'" in err and "that home is not known here" in err
    assert "jax_compilation_cache_dir" not in dict(kept)
    assert (tmp_path / "results" / "accuracy_vs_steps" / "results.csv").is_file()


@pytest.mark.slow
def test_accuracy_vs_steps(tmp_path):
    out, _ = run("accuracy_vs_steps", *SMALL, "--num-seeds", 3, "--output-dir", "out", cwd=tmp_path)
    with (tmp_path / "out" / "accuracy_vs_steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 10, 20] and {row["num_seeds"] for row in rows} == {"3"}
    means = [float(row["test_accuracy_mean"]) for row in rows]
    assert means[0] < 0.15 < 0.5 < means[-1] and float(rows[0]["test_accuracy_std"]) == 0
    assert min(picture_size(tmp_path / "out" / "accuracy_vs_steps.png")) > 500
    assert f"test accuracy after 20 steps: {100 * means[-1]:.2f} %" in out
    assert list(rows[0])[:3] == ["step", "num_seeds", "test_accuracy_mean"]
    for split in ("train", "validation", "test"):
        losses = [float(row[f"{split}_loss_mean"]) for row in rows]
        assert losses[0] == pytest.approx(np.log(10), rel=1e-4) and losses[-1] < losses[0]
    figures = [tmp_path / "out" / f"{name}.png" for name in ("accuracy_vs_steps", "learning_curves")]
    before = [path.read_bytes() for path in figures]
    run("accuracy_vs_steps", "--plot-only", "out", cwd=tmp_path)
    assert [path.read_bytes() for path in figures] == before
    run("accuracy_vs_steps", "--plot-only", "out", "--log-log", cwd=tmp_path)
    assert not {path.read_bytes() for path in figures} & set(before)
    assert min(min(picture_size(path)) for path in figures) > 500


@pytest.mark.slow
def test_accuracy_vs_steps_at_several_learning_rates(tmp_path):
    arguments = ("--learning-rates", 0.5, 0.1, 1e6, "--log-log", "--output-dir", "out")
    out, err = run("accuracy_vs_steps", *SMALL, *arguments, cwd=tmp_path)
    assert "6/6 runs" in err and "diverged: 2 of 6 runs" in out
    with (tmp_path / "out" / "accuracy_vs_steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["learning_rate"]), int(row["step"])) for row in rows] == [
        (rate, step) for rate in (0.5, 0.1, 1e6) for step in (0, 10, 20)
    ]
    for rate in (0.5, 0.1):
        (last,) = (row for row in rows if float(row["learning_rate"]) == rate and row["step"] == "20")
        mean = 100 * float(last["test_accuracy_mean"])
        assert f"test accuracy after 20 steps, learning rate {rate}: {mean:.2f} %" in out
    assert [row["test_accuracy_mean"] == "" for row in rows[-3:]] == [False, True, True]
    assert "learning rate 1e+06: 2 of its runs diverged" in out
    assert {row["num_diverged"] for row in rows[:6]} == {"0"} and rows[-1]["num_diverged"] == "2"


@pytest.mark.slow
def test_the_comparison_of_optimizers(tmp_path):
    rates = ("--sgd-rates", 0.01, 0.1, "--momentum-rates", 1e6, "--adam-rates", 1e-4, 0.01, 3)
    arguments = ("--num-seeds", 6, *rates, "--adamw-rates", 0.01, "--output-dir", "out")
    out, _ = run("accuracy_vs_steps", *SMALL, "--compare", *arguments, cwd=tmp_path)
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = {row["optimizer"]: row for row in csv.DictReader(file)}
    rates = {name: row["learning_rate"] for name, row in rows.items()}
    assert rates == {"sgd": "0.1", "momentum": "", "adam": "0.01", "adamw": "0.01"}
    assert "warning: the best learning_rate of sgd, 0.1, lies on the edge" in out and out.count("warning") == 1
    assert "none: all diverged" in out and "t interval over 6 seeds" in out

    grid = jm.table(jm.load_results(tmp_path / "out" / "learning_rates"))
    for name in ("sgd", "adam", "adamw"):
        of_name = grid[(grid["optimizer"] == name) & grid["diverged_step"].isna()]
        means = of_name.groupby("learning_rate")["validation_accuracy"].mean()
        assert float(rows[name]["learning_rate"]) == means.idxmax()
        test = of_name[of_name["learning_rate"] == means.idxmax()]["test_accuracy"]
        interval = jm.interval(test, 360)
        written = [float(rows[name][f"test_accuracy{end}"]) for end in ("", "_low", "_high")]
        assert written == pytest.approx(interval[:3], rel=1e-5)
        assert f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" in out
    # The curves of the chosen ones end where the runs they were chosen for ended.
    with (tmp_path / "out" / "accuracy_vs_steps.csv").open() as file:
        lasts = [row for row in csv.DictReader(file) if row["step"] == "20"]
    for row in lasts:
        expected = float(rows[row["optimizer"]]["test_accuracy"])
        assert float(row["test_accuracy_mean"]) == pytest.approx(expected, abs=1e-3)
    assert [row["optimizer"] for row in lasts] == ["sgd", "adam", "adamw"]

    figures = [tmp_path / "out" / f"{name}.png" for name in ("learning_rates", "learning_curves", "test_accuracy")]
    before = [path.read_bytes() for path in figures]
    assert all(min(picture_size(path)) > 500 for path in figures)
    for path in figures:
        path.unlink()
    _, err = run("accuracy_vs_steps", "--plot-only", "out", cwd=tmp_path)
    assert [path.read_bytes() for path in figures] == before and "sweep:" not in err


SHORT, ROUGH, WILD = ("--num-steps", 5), ("--num-evaluations", 1), ("--learning-rates", 1e6)


@pytest.mark.parametrize("arguments", mostly_slow((SHORT, ROUGH, WILD)))
def test_short_and_wild_curves(tmp_path, arguments):
    out, _ = run("accuracy_vs_steps", *SMALL, *arguments, "--output-dir", "out", cwd=tmp_path)
    assert f"diverged: {2 if 1e6 in arguments else 0} of 2 runs" in out
    assert (tmp_path / "out" / "accuracy_vs_steps.png").stat().st_size > 10_000

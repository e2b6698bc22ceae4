"""The scripts as a person runs them: in an empty folder, with the embedded digits.

Each of them is started at least once as a process of its own; the rest runs in this one.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import kill_at_random
import matplotlib.figure
import numpy as np
import pytest
import xarray as xr
from conftest import mostly_slow
from locks_for_tests import held_elsewhere
from scripts_for_tests import EXPERIMENTS, ONE_DEVICE, environment_of, load, picture_size, run, start

import jaxmnist as jm
from jaxmnist.host import lock

PACKAGE = Path(jm.__file__).parent
SMALL = ("--dataset", "digits", "--num-seeds", "2", "--num-steps", "20")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    arguments = ("--learning-rates", 1e6, 0.5, 0.1, "--batch-sizes", 10, 20, "--output-dir", "out")
    return folder, *run("sweep_grid", *SMALL, *arguments, cwd=folder)


def test_sweep_writes_results_and_figures(swept):
    folder, _, err = swept
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "config.json", "heatmap.png", "heatmap.svg", "report.html", "results.csv", "results.nc", "scatter.png",
        "scatter.svg",
    ]  # fmt: skip
    with (folder / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "learning_rate", "batch_size", "seed", "validation_accuracy", "validation_loss",
        "test_accuracy", "test_loss", "diverged_step",
    ]  # fmt: skip
    assert [float(row["learning_rate"]) for row in rows] == [1e6] * 4 + [0.5] * 4 + [0.1] * 4
    assert all((row["diverged_step"] != "") == (row["learning_rate"] == "1000000.0") for row in rows)
    with xr.open_dataset(folder / "out" / "results.nc") as result:
        assert dict(result.sizes) == {"learning_rate": 3, "batch_size": 2, "seed": 2}
        assert result.attrs["dataset"] == "digits" and result.attrs["num_steps"] == 20
    for name in ("heatmap", "scatter"):
        assert min(picture_size(folder / "out" / f"{name}.png")) > 500
    assert "100 %, 12/12 runs" in err


def test_sweep_reports_the_choice_and_what_diverged(swept):
    folder, out, _ = swept
    assert "best settings on validation" in out
    assert "t interval over 2 seeds" in out
    chosen = dict(pair.split(" ") for pair in re.search("chosen on validation: (.*)", out)[1].split(", "))
    table = jm.table(jm.load_results(folder / "out"))
    rows = table[np.logical_and.reduce([table[name] == float(value) for name, value in chosen.items()])]
    assert f"its test accuracy: {100 * rows['test_accuracy'].mean():.2f} %" in out
    sane = table[table["diverged_step"].isna()].groupby(["learning_rate", "batch_size"])["validation_accuracy"].mean()
    assert rows["validation_accuracy"].mean() == sane.max()
    assert "lies on the edge of the grid" in out
    assert "diverged: 4 of 12 runs" in out


def test_the_same_command_works_twice_and_another_one_needs_another_folder(swept):
    folder, out, _ = swept
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    arguments = ("--learning-rates", 1e6, 0.5, 0.1, "--batch-sizes", 10, 20, "--output-dir", "out")
    again, err = run("sweep_grid", *SMALL, *arguments, cwd=folder)
    assert again == out and err == ""
    _, err = run("sweep_grid", *SMALL, *arguments, "--learning-rates", 0.5, cwd=folder, status=2)
    assert err == (
        "error: output_dir out holds a training that was begun with learning_rates (1000000.0, 0.5, 0.1), not (0.5,); "
        "give --overwrite to replace it, or another --output-dir\n"
    )
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_a_terminal_without_unicode_or_width_shows_the_same_table(swept, tmp_path):
    folder, _, _ = swept
    shutil.copytree(folder / "out", tmp_path / "é")
    env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "20"}
    shown, _ = run("sweep_grid", "--resume", "é", cwd=tmp_path)
    plain, err = run("sweep_grid", "--resume", "é", cwd=tmp_path, env=env)
    assert "±" in shown and plain == shown.replace("±", "+-") and not err
    _, err = run("sweep_grid", "--resume", "é", "--num-steps", 30, cwd=tmp_path, env=env, status=2)
    assert "the training in \\xe9 was begun with 20" in err


def test_all_that_the_package_prints_is_known_in_ascii():
    common, _ = load("sweep_grid")
    words = "".join((PACKAGE / name).read_text() for name in ("host/progress.py", "analysis/report.py"))
    assert set(re.findall(r"[^\x00-\x7f]", words)) == set(common.program.IN_ASCII)


@pytest.mark.slow
def test_a_script_waits_for_its_folder_if_told_to(tmp_path, monkeypatch):
    with held_elsewhere(tmp_path / "out") as end:
        monkeypatch.setattr(lock.time, "sleep", lambda seconds: end.set())
        arguments = ("--learning-rates", 0.5, "--batch-sizes", 10, "--output-dir", "out", "--wait")
        _, err = run("sweep_grid", *SMALL, *arguments, cwd=tmp_path)
    assert err.startswith(f"waiting for process {os.getpid()} on machine ") and "100 %, 2/2 runs" in err
    assert "wait" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_plot_only_draws_again_without_training(swept):
    folder, _, _ = swept
    heatmap = folder / "out" / "heatmap.png"
    before = heatmap.read_bytes()
    heatmap.unlink()
    _, err = run("sweep_grid", "--plot-only", "out", cwd=folder)
    assert heatmap.read_bytes() == before and "sweep:" not in err


def test_dry_run_prints_the_work_and_writes_nothing(tmp_path):
    out, err = run("sweep_grid", "--dataset", "digits", "--dry-run", cwd=tmp_path)
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["runs"] == "160" and lines["programs"].startswith("1,") and lines["memory"].endswith("MiB")
    assert re.match(r"about \d+ s", lines["time"])
    assert 2.5e10 < float(lines["FLOPs"].split()[0]) < 3e10  # 160 runs x 100 steps x 50 examples x 31,360, and a little
    assert list(tmp_path.iterdir()) == [] and "sweep:" not in err


@pytest.mark.slow
def test_pretty_is_the_finer_setting(tmp_path):
    few = ("--dataset", "digits", "--num-seeds", 1, "--num-steps", 2)
    out, _ = run("sweep_grid", "--pretty", *few, "--dry-run", cwd=tmp_path)
    assert "runs: 1088\n" in out
    out, _ = run("sweep_grid", "--pretty", "--help", cwd=tmp_path)
    assert "(default: 0.001 0.001778 " in out and " 10.0)" in out and "(default: 500)" in out
    for arguments, steps in (((), 490), (("--pretty",), 990)):
        out, _ = run("accuracy_vs_steps", *arguments, "--help", cwd=tmp_path)
        assert f"(default: {steps})" in out and "(default: 0.5)" in out and "(default: 100)" in out


@pytest.mark.slow
def test_every_option_together(tmp_path):
    run(
        "sweep_grid", *SMALL, "--optimizer", "momentum", "--momentum", 0.5, "--model", "mlp", "--num-evaluations", 4,
        "--learning-rates", 0.1, 0.2, "--batch-sizes", 16, "--data-dir", tmp_path, "--output-dir", "out", cwd=tmp_path,
    )  # fmt: skip
    with xr.open_dataset(tmp_path / "out" / "results.nc") as result:
        assert result["step"].values.tolist() == [0, 5, 10, 15, 20]
        assert result["recorded_validation_accuracy"].dims[-1] == "step"
        assert result["momentum"].values.tolist() == [0.5] and result.attrs["model"].startswith("MLP")


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.slow
def test_adaptive_optimizers(tmp_path, optimizer):
    run("sweep_grid", *SMALL, "--optimizer", optimizer, "--learning-rates", 0.01, "--batch-sizes", 16, cwd=tmp_path)
    with xr.open_dataset(tmp_path / "results" / "sweep_grid" / "results.nc") as result:
        assert result.attrs["optimizer"] == optimizer and (result["validation_accuracy"] > 0.5).all()


def test_mnist_asked_for_by_name_and_not_there_is_an_error(tmp_path):
    _, err = run("sweep_grid", "--dataset", "mnist", "--data-dir", "/dev/null", cwd=tmp_path, status=2)
    assert err.count("\n") == 1 and "mnist" in err


@pytest.mark.parametrize(
    "script", ["sweep_grid", "accuracy_vs_steps", "train_cnn", pytest.param("benchmark", marks=pytest.mark.slow)]
)
def test_help_explains_every_option(tmp_path, script):
    out, _ = (start if script == "benchmark" else run)(script, "--help", cwd=tmp_path)
    assert "--data-dir" in out and "(default: None)" in out


@pytest.mark.slow
def test_what_the_curves_say(tmp_path, monkeypatch):
    arguments = (
        *("--dataset", "digits", "--learning-rates", 0.02, 0.1, 0.5, "--batch-sizes", 8, 16, 32, 64, "--num-seeds", 3),
        *("--num-steps", 60, "--num-evaluations", 20, "--noise-scale", "--refine", "--output-dir", "out"),
    )
    out, _ = run("sweep_grid", *arguments, cwd=tmp_path)
    for name in ("heatmap", "scatter", "budgets", "steps_to_target", "noise_scale"):
        assert min(picture_size(tmp_path / "out" / f"{name}.png")) > 500
        assert "<svg" in (tmp_path / "out" / f"{name}.svg").read_text()[:1000]
    target = float(re.search(r"steps to ([\d.]+) % validation accuracy", out)[1]) / 100
    result = jm.load_results(tmp_path / "out")
    assert target == pytest.approx(jm.default_target(result))
    table = jm.best_rates(jm.target_table(result, target))
    row = table.iloc[0]
    assert f"  batch size {row['batch_size']:.0f}: {row['steps']:.0f}" in out and "critical batch size" in out
    with (tmp_path / "out" / "noise_scale.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(0, 61, 3))
    finer = jm.load_results(tmp_path / "out" / "refined")
    best = jm.best(result).setting
    for name, value in best.items():
        values = finer[name].values
        assert values.min() <= value <= values.max() and len(values) > 1
    assert np.ptp(np.log(finer["learning_rate"].values)) < np.ptp(np.log(result["learning_rate"].values)) + 1e-6
    assert out.count("chosen on validation") == 2
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, path, **keywords: Path(path).touch())
    again, err = run("sweep_grid", "--plot-only", "out", "--target", 0.5, cwd=tmp_path)
    assert "steps to 50 % validation accuracy" in again and "sweep:" not in err
    _, err = run("sweep_grid", "--resume", "out", cwd=tmp_path)
    assert "sweep:" not in err


@pytest.mark.slow
def test_random_search(tmp_path):
    space = ("--num-samples", 5, "--sample", "learning_rate=log:0.01:1", "batch_size=8,16")
    arguments = (*space, "--output-dir", "out")
    out, _ = run("sweep_grid", *SMALL, *arguments, cwd=tmp_path)
    with xr.open_dataset(tmp_path / "out" / "results.nc") as result:
        assert dict(result.sizes) == {"run": 10} and len(np.unique(result["learning_rate"])) == 5
        assert result["learning_rate"].min() >= 0.01 and result["learning_rate"].max() <= 1
    assert "chosen on validation" in out and not (tmp_path / "out" / "heatmap.png").exists()
    assert min(picture_size(tmp_path / "out" / "scatter.png")) > 500


@pytest.mark.slow
def test_halving_prunes(tmp_path):
    arguments = ("--halving", 4, "--rungs", 5, "--batch-sizes", 16, "--output-dir", "out")
    out, _ = run("sweep_grid", *SMALL, *arguments, cwd=tmp_path)
    assert "pruned: 6 of 10 runs" in out
    with (tmp_path / "out" / "results.csv").open() as file:
        steps = [row["pruned_step"] for row in csv.DictReader(file)]
    assert steps.count("5") == 6 and steps.count("") == 4
    assert min(picture_size(tmp_path / "out" / "heatmap.png")) > 500


@pytest.mark.slow
def test_the_cnn_in_a_sweep(tmp_path):
    arguments = (
        "--num-seeds",
        2,
        "--num-steps",
        2,
        "--learning-rates",
        0.01,
        "--batch-sizes",
        4,
        "--output-dir",
        "out",
    )
    run("sweep_grid", "--dataset", "digits", "--model", "cnn", *arguments, cwd=tmp_path)
    with xr.open_dataset(tmp_path / "out" / "results.nc") as result:
        assert result.attrs["model"].startswith("CNN") and result["test_loss"].notnull().all()


@pytest.mark.slow
def test_shards_of_a_sweep(tmp_path, monkeypatch):
    # More softmax regressions than one program holds: six of 784 x 10 weights and 10 biases.
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 6 * 4 * 7850)
    grid = ("--learning-rates", 0.1, 0.2, "--batch-sizes", 1, 8, 300, "--num-seeds", 3)
    run("sweep_grid", *SMALL, *grid, "--output-dir", "whole", cwd=tmp_path)
    for folder, shard in (("all", "1/1"), ("parts", "1/2"), ("parts", "2/2")):
        out, _ = run("sweep_grid", *SMALL, *grid, "--output-dir", folder, "--shard", shard, cwd=tmp_path)
        assert f"the shard {shard}" in out
    merged = jm.merge([tmp_path / "parts" / f"shard_{part}_of_2" / "results.nc" for part in (1, 2)])
    assert merged.equals(jm.load_results(tmp_path / "all")) and merged.equals(jm.load_results(tmp_path / "parts"))
    # Shards have a plan of their own, the same for any number of cores; runs are equal to rounding.
    xr.testing.assert_allclose(merged, jm.load_results(tmp_path / "whole"), rtol=1e-5, atol=1e-6)


def test_resuming_what_has_ended_and_what_differs(swept):
    folder, out, _ = swept
    before = (folder / "out" / "results.nc").stat().st_mtime_ns
    again, err = run("sweep_grid", "--resume", "out", cwd=folder)
    assert again == out.split("\n", 1)[1] and "sweep:" not in err
    _, err = run("sweep_grid", "--resume", "out", "--num-steps", 30, cwd=folder, status=2)
    assert "num_steps is 30, but the training in out was begun with 20" in err
    assert (folder / "out" / "results.nc").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_results(tmp_path):
    sizes = (1, 8, 64, 300)
    arguments = (*SMALL, "--num-seeds", 4, "--learning-rates", 0.1, 0.2, "--batch-sizes", *sizes, "--num-steps", 200)
    run("sweep_grid", *arguments, "--output-dir", "whole", cwd=tmp_path)
    command = [sys.executable, str(EXPERIMENTS / "sweep_grid.py"), *map(str, arguments), "--output-dir", "killed"]
    progress = tmp_path / "killed" / "progress"
    environment = environment_of(tmp_path, ONE_DEVICE)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as process:
        while not list(progress.glob("[0-9]*.npz")):
            assert process.poll() is None
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
    assert not (tmp_path / "killed" / "results.csv").exists()
    _, err = run("sweep_grid", *arguments, "--output-dir", "killed", cwd=tmp_path, status=2)
    assert "holds an interrupted training: continue it with --resume killed, or give --overwrite" in err
    run("sweep_grid", "--resume", "killed", cwd=tmp_path)
    whole, killed = ((tmp_path / name / "results.csv").read_bytes() for name in ("whole", "killed"))
    assert whole == killed and not progress.exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", kill_at_random.WORK)
def test_killed_at_any_moment_it_goes_on_to_the_same_results(tmp_path, script):
    kill_at_random.kill_and_compare(script, tmp_path, num_kills=8)


@pytest.mark.slow
def test_default_sweep_on_mnist(tmp_path, mnist_dir):
    out, _ = start("sweep_grid", cwd=tmp_path, env={"TFDS_DATA_DIR": str(mnist_dir.resolve())})
    assert "chosen on validation: learning_rate 0.4, batch_size 80" in out
    assert "diverged: 0 of 160 runs" in out


@pytest.mark.slow
def test_compiled_programs_are_kept_for_the_next_start(tmp_path):
    folder = tmp_path / "compiled"
    kept = []
    for place in ("first", "second"):
        env = {"JAX_COMPILATION_CACHE_DIR": str(folder)}
        start("sweep_grid", *SMALL, "--learning-rates", 0.1, "--output-dir", place, cwd=tmp_path, env=env)
        kept.append(sorted(path.name for path in folder.iterdir()))
    assert kept[0] and kept[0] == kept[1]
    first, second = ((tmp_path / place / "results.csv").read_bytes() for place in ("first", "second"))
    assert first == second
    run("sweep_grid", "--help", cwd=tmp_path, env={"JAX_COMPILATION_CACHE_DIR": "/dev/null"})


@pytest.mark.slow
def test_benchmark_works_to_its_end(tmp_path, mnist_dir):
    out, _ = start("benchmark", "--small", "--num-rounds", 1, "--data-dir", mnist_dir.resolve(), cwd=tmp_path)
    folder = tmp_path / "results" / "benchmark"
    measured = json.loads((folder / "benchmark.json").read_text())
    rows = {(row["work"].split(":")[0].split(",")[0], row["peer"]): row for row in measured["rows"]}
    assert all(row["median"] > 0 and row["times_ours"] > 0 for row in rows.values())
    assert {"JAX, scan per cell", "JAX, one jitted step in a loop"} <= {peer for _, peer in rows}
    assert measured["machine"]["versions"]["jax"] == jax.__version__
    assert picture_size(folder / "benchmark.png")[0] > 1000 and (folder / "benchmark.svg").is_file()
    for library, peer in (("torch", "PyTorch, eager loop"), ("tf", "TensorFlow 1, sessions")):
        left_out = f"left out: the peers in peers_{library}.py" in out
        assert (peer in {name for _, name in rows}) != left_out


BACKENDS = ("module://matplotlib_inline.backend_inline_that_is_missing", "nonsense")


@pytest.mark.parametrize("backend", mostly_slow(BACKENDS))
def test_scripts_draw_the_same_whatever_the_settings_of_matplotlib(swept, tmp_path, backend):
    folder, _, _ = swept
    shutil.copytree(folder / "out", tmp_path / "out")
    pictures = sorted((tmp_path / "out").glob("*.*g"))
    assert len(pictures) == 4
    expected = [picture.read_bytes() for picture in pictures]
    for picture in pictures:
        picture.unlink()
    settings = {"backend": "nonsense", "text.usetex": True, "axes.grid": True, "font.family": "no such font"}
    (tmp_path / "matplotlibrc").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    start("sweep_grid", "--plot-only", "out", cwd=tmp_path, env={"MPLBACKEND": backend})
    assert [picture.read_bytes() for picture in pictures] == expected

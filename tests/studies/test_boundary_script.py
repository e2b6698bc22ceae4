"""The script that draws the boundary of trainability."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scripts_for_tests import EXPERIMENTS, ONE_DEVICE, environment_of, run

import jaxmnist as jm
from jaxmnist.studies import boundary, fractal

AXES = ("first_learning_rate", "last_learning_rate")
SMALL = ("--dataset", "digits", "--num-steps", "40", "--output-dir", "out")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, *run("trainability_boundary", *SMALL, "--resolution", 8, "--frames", 2, cwd=folder)


@pytest.mark.slow
def test_frames_and_animation(drawn):
    folder, out, err = drawn
    out_dir = folder / "out"
    assert sorted(path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()) == [
        "boundary.png", "boundary.svg", "config.json", "frames.gif",
        "frames/00.png", "frames/00.svg", "frames/01.png", "frames/01.svg",
        "frames/01/results.csv", "frames/01/results.nc", "report.html", "results.csv", "results.nc",
    ]  # fmt: skip
    with Image.open(out_dir / "frames.gif") as animation:
        assert animation.n_frames == 2 and min(animation.size) > 500
    assert (out_dir / "boundary.svg").read_text().startswith("<?xml")
    assert "frame 2: " in out and "of 64 runs converge" in out and "100 %, 64/64 runs" in err
    assert err.count("--zoom") == 1


@pytest.mark.slow
def test_the_second_frame_lies_in_the_first_ones_boundary(drawn):
    folder, _, err = drawn
    first, second = (jm.load_results(folder / "out" / place) for place in (".", "frames/01"))
    window = boundary.zoomed(boundary.picture(first, AXES), boundary.default_window(AXES), 4.0)
    np.testing.assert_array_equal(second[AXES[0]], boundary.points(AXES[0], *window[:2], 8))
    # The window is printed as --zoom takes it.
    given = err.split("--zoom ")[1].split("\n")[0].split(" ")
    np.testing.assert_allclose([float(edge) for edge in given], window, atol=1e-11)


@pytest.mark.slow
def test_plot_only_draws_the_saved_pictures(drawn):
    folder, _, _ = drawn
    before = {name: (folder / "out" / name).read_bytes() for name in ("boundary.png", "frames/01.png", "frames.gif")}
    for name in before:
        (folder / "out" / name).unlink()
    _, err = run("trainability_boundary", "--plot-only", "out", cwd=folder)
    assert "sweep:" not in err
    assert {name: (folder / "out" / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_resuming_what_is_finished_trains_nothing(drawn):
    folder, out, _ = drawn
    again, err = run("trainability_boundary", "--resume", "out", cwd=folder)
    assert again == out and "sweep:" not in err


@pytest.mark.slow
def test_a_killed_sequence_goes_on_to_the_same_results(drawn, tmp_path):
    whole, _, _ = drawn
    # States are saved after each segment, so that the kill falls into a picture.
    patch = "import importlib; importlib.import_module('jaxmnist.host.loop').SECONDS_PER_CHECKPOINT = 0.0"
    code = f"{patch}; import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    script = str(EXPERIMENTS / "trainability_boundary.py")
    path = {"PYTHONPATH": os.pathsep.join([str(EXPERIMENTS), *sys.path])}
    environment = environment_of(tmp_path, path | ONE_DEVICE)
    command = [sys.executable, "-c", code, script, *SMALL, "--resolution", "8", "--frames", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    second = tmp_path / "out" / "frames" / "01"
    try:
        deadline = time.monotonic() + 120
        while not list(second.glob("progress/states_*/[0-9]*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        status = process.wait()
    assert status == -signal.SIGKILL and not (second / "results.csv").exists()
    _, err = run("trainability_boundary", *SMALL, cwd=tmp_path, status=2)
    assert "continue it with --resume out" in err
    run("trainability_boundary", "--resume", "out", cwd=tmp_path)
    for place in ("results.csv", "frames/01/results.csv", "frames/01.png"):
        assert (tmp_path / "out" / place).read_bytes() == (whole / "out" / place).read_bytes()
    ours, theirs = (jm.load_results(folder / "out" / "frames" / "01") for folder in (tmp_path, whole))
    xr.testing.assert_identical(ours, theirs)


@pytest.mark.slow
def test_dimension_is_printed_with_its_fit(tmp_path):
    arguments = (*SMALL, "--resolution", 32, "--num-steps", 10, "--estimate-dimension")
    out, _ = run("trainability_boundary", *arguments, cwd=tmp_path)
    assert "box-counting dimension" in out and "standard error of the fit" in out
    assert "from boxes of 1 to 4 pixels" in out and out.count(" boxes\n") == 3


@pytest.mark.slow
def test_dry_run_writes_nothing(tmp_path):
    out, err = run("trainability_boundary", *SMALL, "--dry-run", cwd=tmp_path)
    assert out.startswith("runs: 65536\n") and list(tmp_path.iterdir()) == [] and "sweep:" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--zoom", "0", "1e-6", "0", "1"), "same float32 number"),
        (("--zoom", "1", "0", "0", "1"), "begins below its end"),
        (("--zoom", "0", "50", "0", "1"), "beyond float32"),
        (("--frames", "20"), "frames are 20"),
        (("--frames", "0"), "frames is 0"),
        (("--factor", "1"), "factor is 1"),
        (("--resolution", "1"), "resolution is 1"),
        (("--resolution", "16", "--estimate-dimension"), "from 32 on"),
        (("--num-steps", "0"), "num_steps is 0"),
        (("--hidden-size", "-1"), "hidden_size is -1"),
        (("--memory", "0"), "memory is 0"),
        (("--axes", "learning_rate", "first_learning_rate"), "both layers"),
        (("--axes", "momentum", "momentum"), "twice"),
        (("--dataset", "no_such"), "no_such"),
        (("--plot-only", "nowhere"), "config.json cannot be read"),
        (("--resume", "nowhere"), "config.json cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(tmp_path, arguments, words):
    given = () if "nowhere" in arguments else ("--dataset", "digits", "--output-dir", "out")
    given = (*given, *arguments)
    _, err = run("trainability_boundary", *given, cwd=tmp_path, status=2)
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_options_are_saved(drawn):
    folder, _, _ = drawn
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["axes"] == list(AXES) and config["resolution"] == 8 and config["dataset"] == "digits"


@pytest.mark.slow
def test_a_published_condition_is_drawn_resumed_and_its_dimension_printed(tmp_path):
    arguments = ("--paper", "single_point", "--resolution", 32, "--num-steps", 40, "--frames", 2, "--factor", 8)
    out, _ = run("trainability_boundary", *arguments, "--estimate-dimension", "--output-dir", "out", cwd=tmp_path)
    assert "median of the local slopes of all frames" in out and "published 1.41" in out
    results = [jm.load_results(tmp_path / "out" / place) for place in (".", "frames/01")]
    measures = [fractal.picture(result, "single_point") for result in results]
    assert all((measure < 0).any() and (measure >= 0).any() for measure in measures)
    window = boundary.zoomed(measures[0], fractal.WINDOW, 8.0)
    assert results[1]["first_origin"].item() == window[0] and results[1]["last_origin"].item() == window[2]
    again, err = run("trainability_boundary", "--resume", "out", cwd=tmp_path)
    assert "sweep:" not in err and "frame 2: " in again

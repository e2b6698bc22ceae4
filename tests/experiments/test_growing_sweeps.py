"""A sweep in an output folder grows, and shards share one, as a person starts them."""

import pytest
from scripts_for_tests import run

import jaxmnist as jm

GRID = ("--dataset", "digits", "--num-seeds", 2, "--num-steps", 20, "--output-dir", "out")
RATES, SIZES = ("--learning-rates", 0.05, 0.1), ("--batch-sizes", 16, 32)


@pytest.mark.slow
def test_a_larger_grid_trains_only_what_is_new(tmp_path):
    _, err = run("sweep_grid", *GRID, *RATES, *SIZES, "--keep-states", cwd=tmp_path)
    assert "8/8 runs" in err
    first = jm.load_results(tmp_path / "out")
    out, err = run("sweep_grid", *GRID, *RATES, 0.2, *SIZES, "--keep-states", "--refine", cwd=tmp_path)
    assert "12/12 runs" in err and "diverged: 0 of 12 runs" in out
    grown = jm.load_results(tmp_path / "out")
    assert grown.sel(learning_rate=[0.05, 0.1])["test_loss"].equals(first["test_loss"])
    finer = jm.load_results(tmp_path / "out" / "refined")
    common = sorted(set(finer["learning_rate"].values.tolist()) & {0.05, 0.1, 0.2})
    sizes = sorted(set(finer["batch_size"].values.tolist()) & {16, 32})
    # What both grids have was taken from the first.
    place = dict(learning_rate=common, batch_size=sizes)
    assert common and sizes and finer.sel(place)["test_loss"].equals(grown.sel(place)["test_loss"])
    _, err = run("sweep_grid", *GRID, *RATES, *SIZES, "--num-steps", 40, cwd=tmp_path, status=2)
    assert "holds a training that was begun with learning_rates (0.05, 0.1, 0.2), not (0.05, 0.1)" in err
    run("sweep_grid", *GRID, *RATES, 0.2, *SIZES, "--num-steps", 40, cwd=tmp_path)
    assert jm.load_results(tmp_path / "out").attrs["num_steps"] == 40
    assert jm.load_results(tmp_path / "out" / "refined").attrs["num_steps"] == 20


@pytest.mark.slow
def test_a_grid_grows_by_values_of_a_further_axis(tmp_path):
    few = (*GRID, "--learning-rates", 0.1, "--batch-sizes", 16)
    _, err = run("sweep_grid", *few, "--axes", "momentum=0,0.9", cwd=tmp_path)
    assert "4/4 runs" in err
    _, err = run("sweep_grid", *few, "--axes", "momentum=0,0.5,0.9", "nesterov=false,true", cwd=tmp_path)
    assert "12/12 runs" in err
    grown = jm.load_results(tmp_path / "out")
    assert dict(grown.sizes) == {"learning_rate": 1, "batch_size": 1, "momentum": 3, "nesterov": 2, "seed": 2}
    _, err = run("sweep_grid", *few, "--axes", "momentum=0,0.9", cwd=tmp_path, status=2)
    assert "was begun with axes ('momentum=0,0.5,0.9', 'nesterov=false,true'), not ('momentum=0,0.9',)" in err


@pytest.mark.slow
def test_a_random_search_takes_further_samples(tmp_path):
    space = (*GRID, "--sample", "learning_rate=log:0.05:0.1", "batch_size=16,32", "init_std=none,0.1")
    run("sweep_grid", *space, "--num-samples", 4, cwd=tmp_path)
    first = jm.load_results(tmp_path / "out")
    for count in (7, 7):
        _, err = run("sweep_grid", *space, "--num-samples", count, cwd=tmp_path)
    assert "sweep:" not in err
    longer = jm.load_results(tmp_path / "out")
    assert longer.isel(run=slice(8))["test_loss"].equals(first["test_loss"]) and longer.sizes["run"] == 14
    _, err = run("sweep_grid", *space, "--num-samples", 4, cwd=tmp_path, status=2)
    assert "was begun with num_samples 7, not 4" in err


@pytest.mark.slow
def test_further_axes_are_widened_and_refined_too(tmp_path):
    few = (*GRID, "--learning-rates", 0.01, 0.02, "--batch-sizes", 16, "--axes", "momentum=0,0.4")
    run("sweep_grid", *few, "--widen", "--refine", cwd=tmp_path)
    wide, finer = jm.load_results(tmp_path / "out"), jm.load_results(tmp_path / "out" / "refined")
    assert wide["momentum"].max() > 0.4 and wide["learning_rate"].max() > 0.02
    assert finer["momentum"].size > 1 and finer["batch_size"].values.tolist() == [16]


@pytest.mark.slow
def test_a_grid_is_widened_until_the_best_is_on_no_edge(tmp_path):
    out, _ = run("sweep_grid", *GRID, "--learning-rates", 0.001, 0.01, *SIZES, "--widen", cwd=tmp_path)
    assert "widening: learning_rate 0.001 to 0.1" in out
    wide = jm.load_results(tmp_path / "out")
    assert wide["learning_rate"].max() >= 0.1 and "run" not in wide.dims
    again, err = run("sweep_grid", "--resume", "out", cwd=tmp_path)
    assert again.splitlines()[-1] == out.splitlines()[-1] and "sweep:" not in err
    # The same command again trains nothing, and so does the one that asked for less.
    for arguments in (("--widen",), ()):
        again, err = run("sweep_grid", *GRID, "--learning-rates", 0.001, 0.01, *SIZES, *arguments, cwd=tmp_path)
        assert again.splitlines()[-1] == out.splitlines()[-1] and "sweep:" not in err


@pytest.mark.slow
def test_another_halving_is_refused_and_the_folder_stays_that_of_the_first(tmp_path):
    halving = (*GRID, *SIZES, "--halving", 2, "--learning-rates", 0.05, 0.1)
    out, _ = run("sweep_grid", *halving, cwd=tmp_path)
    _, err = run("sweep_grid", *halving, 1.0, cwd=tmp_path, status=2)
    assert "was begun with learning_rates (0.05, 0.1), not (0.05, 0.1, 1.0)" in err
    again, err = run("sweep_grid", *halving, cwd=tmp_path)
    assert again == out and "sweep:" not in err


@pytest.mark.slow
def test_a_search_takes_further_rounds_and_begins_no_other(tmp_path):
    space = ("--sample", "learning_rate=log:0.05:0.1", "batch_size=16,32")
    search = (*GRID, *space, "--search", "optuna", "--batch", 3)
    out, err = run("sweep_grid", *search, "--num-rounds", 2, cwd=tmp_path)
    assert err.count("6/6 runs") == 2 and "diverged: 0 of 12 runs" in out
    assert "wrote out/scatter.png" in out
    first = jm.load_results(tmp_path / "out")
    for arguments in ((*search, "--num-rounds", 2), ("--resume", "out")):
        again, err = run("sweep_grid", *arguments, cwd=tmp_path)
        assert again.splitlines()[-1] == out.splitlines()[-1] and "sweep:" not in err
    _, err = run("sweep_grid", *search, "--num-rounds", 3, cwd=tmp_path)
    assert err.count("6/6 runs") == 1
    longer = jm.load_results(tmp_path / "out")
    assert longer.isel(run=slice(12))["test_loss"].equals(first["test_loss"]) and longer.sizes["run"] == 18
    others = {"num_rounds 3, not 2": ("--num-rounds", 2), "optimizer sgd": ("--num-rounds", 3, "--optimizer", "adam")}
    for words, arguments in others.items():
        _, err = run("sweep_grid", *search, *arguments, cwd=tmp_path, status=2)
        assert words in err
    run("sweep_grid", *GRID, *RATES, *SIZES, "--overwrite", cwd=tmp_path)
    assert not list((tmp_path / "out").rglob("se*.json"))
    out, _ = run("sweep_grid", *search, "--num-rounds", 2, "--dry-run", cwd=tmp_path)
    assert out.startswith("runs: 12\n")


@pytest.mark.parametrize("last", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_share_a_folder(tmp_path, monkeypatch, last):
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 1)
    arguments = ("--dataset", "digits", "--num-seeds", 9, "--num-steps", 10, "--output-dir", "out", *RATES, *SIZES)
    for part in (3 - last, last):
        assert not (tmp_path / "out" / "results.nc").exists()
        run("sweep_grid", *arguments, "--shard", f"{part}/2", cwd=tmp_path)
    assert jm.load_results(tmp_path / "out")["test_loss"].size == 36
    out, err = run("sweep_grid", *arguments, cwd=tmp_path)
    assert "diverged: 0 of 36 runs" in out and "sweep:" not in err

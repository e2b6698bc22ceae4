import dataclasses
import functools
import importlib

import numpy as np
import optax
import pytest
import xarray as xr
from conftest import mostly_slow

import jaxmnist as jm
from jaxmnist.host import files
from jaxmnist.host import loop as host_loop
from jaxmnist.sweeps.folder import SweepFolder, is_begun, is_unfinished

# The package's attribute of that name is the function.
sweep_module = importlib.import_module("jaxmnist.sweeps.sweep")
MODEL = jm.SoftmaxRegression(4)
RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=[3, 40], seed=range(3), momentum=[0.0, 0.9])


FEW = jm.grid(learning_rate=[0.1, 0.5], batch_size=[3, 4], seed=range(3))


class InterruptionError(Exception):
    pass


@pytest.fixture(autouse=True)
def small_programs(monkeypatch, many_segments):
    """Programs of at most 4 runs, in many segments."""
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 4 * 1100)
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    monkeypatch.setattr("jaxmnist.host.progress.MAX_SHARE", 1e9)


def sweep(tiny, folder, **options):
    options = dict(num_steps=12, num_evaluations=3, progress=False) | options
    return jm.sweep(MODEL, optax.sgd, options.pop("runs", RUNS), tiny, folder=folder, **options)


def interrupt(monkeypatch, at):
    """Makes the sweep fail when the segments of all its programs have been taken `at` times."""
    taken = []

    def advance(*args, real=sweep_module.programs.advance, **kwargs):
        taken.append(1)
        if len(taken) > at:
            raise InterruptionError
        return real(*args, **kwargs)

    monkeypatch.setattr(sweep_module.programs, "advance", advance)
    return taken


def test_an_interrupted_sweep_ends_as_if_it_had_not_been(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    whole = sweep(tiny, tmp_path / "whole")
    csv = (tmp_path / "whole" / "results.csv").read_bytes()
    total = interrupt(monkeypatch, 10**9)
    folder = tmp_path / "parts"
    folder.mkdir()
    for at in (0, 1, 7, 20):
        with monkeypatch.context() as context:
            interrupt(context, at)
            with pytest.raises(InterruptionError):
                sweep(tiny, folder)
        assert is_begun(folder) and not (folder / "results.csv").exists()
        assert is_unfinished(folder) == (at > 0)
    parts = sweep(tiny, folder)
    # Each segment of each program was taken once.
    assert len(total) == 12 * 6
    assert (folder / "results.csv").read_bytes() == csv
    xr.testing.assert_identical(whole, parts)
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.nc"]


def test_it_goes_on_from_a_step_where_no_segment_ends_any_more(tiny, tmp_path, monkeypatch):
    whole = sweep(tiny, None)
    with monkeypatch.context() as context, pytest.raises(InterruptionError):
        context.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
        interrupt(context, 5)
        sweep(tiny, tmp_path)
    monkeypatch.setattr("jaxmnist.sweeps.planning.SEGMENT_FLOPS", 1e10)
    taken = interrupt(monkeypatch, 10**9)
    xr.testing.assert_identical(sweep(tiny, tmp_path), whole)
    # From step 5 to 8 and 12; the other programs in three segments each.
    assert len(taken) == 2 + 5 * 3


def test_a_plan_of_another_version_is_refused(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as context, pytest.raises(InterruptionError):
        interrupt(context, 5)
        sweep(tiny, tmp_path)
    plan = tmp_path / "progress" / "plan.npz"
    arrays = files.read_arrays(plan.read_bytes())
    files.write_arrays(plan, {name: array for name, array in arrays.items() if not name.endswith("at_once")})
    with pytest.raises(ValueError, match=r"cannot be read: plan.npz has no at_once; another version of jaxmnist began"):
        sweep(tiny, tmp_path)


def test_a_finished_sweep_is_not_trained_again(tiny, tmp_path, monkeypatch):
    first = sweep(tiny, tmp_path)
    taken = interrupt(monkeypatch, 0)
    xr.testing.assert_identical(sweep(tiny, tmp_path), first)
    assert not taken


def test_the_file_shows_what_has_ended_in_the_grids_order(tiny, tmp_path, monkeypatch):
    whole = sweep(tiny, tmp_path / "whole")
    interrupt(monkeypatch, 45)
    folder = tmp_path / "part"
    folder.mkdir()
    with pytest.raises(InterruptionError):
        sweep(tiny, folder)
    with xr.open_dataset(folder / "results.nc", engine="h5netcdf") as part:
        assert part["validation_loss"].dims == whole["validation_loss"].dims
        done = part["finished"].values
        assert 0 < done.sum() < done.size
        assert (np.isfinite(part["validation_loss"].values) == done).all()
        np.testing.assert_array_equal(part["test_loss"].values[done], whole["test_loss"].values[done])
        # Programs go in a shuffled order: what has ended is not the first part of the grid.
        assert not done.ravel()[: done.sum()].all()
        assert set(jm.settings(part)["num_seeds"]) <= {1, 2, 3}
        jm.heatmap(part.sel(momentum=[0.9]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_evaluations=4), "its num_evaluations is 3, not 4"),
        pytest.param(dict(record=["test"]), "its record is 'validation', not 'test'", marks=pytest.mark.slow),
        (dict(dtype="float64"), "its dtype is 'float32', not 'float64'"),
    ],
)
def test_going_on_with_another_sweep_names_the_difference(tiny, tmp_path, monkeypatch, options, words):
    options = dict(runs=FEW) | options
    sweep(tiny, tmp_path / "finished", runs=FEW)
    with pytest.raises(ValueError, match=f"finished is another one: {words}"):
        sweep(tiny, tmp_path / "finished", **options)
    (tmp_path / "begun").mkdir()
    interrupt(monkeypatch, 3)
    with pytest.raises(InterruptionError):
        sweep(tiny, tmp_path / "begun", runs=FEW)
    with pytest.raises(ValueError, match=f"begun is another one: {words}"):
        sweep(tiny, tmp_path / "begun", **options)


def doubled(learning_rate):
    return optax.sgd(2 * learning_rate)


def compared(result):
    """Returns what a result says about what it is."""
    return {name: value for name, value in result.attrs.items() if name not in files.NOT_COMPARED}


def with_images(dataset, split):
    """Returns the data set with one pixel of one split altered."""
    images, labels = getattr(dataset, split)
    altered = images.copy()
    altered[0, 0, 0] ^= 1
    return dataclasses.replace(dataset, **{split: jm.Split(altered, labels)})


def train(tiny, folder, model=MODEL, optimizer=lambda learning_rate: optax.sgd(learning_rate), dataset=None, **options):
    return jm.sweep(model, optimizer, FEW, dataset or tiny, num_steps=12, folder=folder, progress=False, **options)


def other_body(learning_rate):
    return optax.adam(learning_rate)


other_body.__name__ = "<lambda>"


@pytest.mark.parametrize("state", mostly_slow(("finished", "begun"), "begun"))
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(optimizer=lambda learning_rate: optax.adam(learning_rate)), "computation.* differs"),
        (dict(optimizer=lambda learning_rate, decay=0.1: optax.sgd(learning_rate - decay)), "computation.* differs"),
        (dict(optimizer=other_body), "computation.* differs"),
        *((dict(split=split), "inputs differ") for split in ("train", "validation", "test")),
    ],
)
def test_the_same_names_of_something_else_are_refused(tiny, tmp_path, monkeypatch, state, given, words):
    given = dict(given)
    if "split" in given:
        given["dataset"] = with_images(tiny, given.pop("split"))
    if state == "finished":
        first = train(tiny, tmp_path)
        xr.testing.assert_identical(train(tiny, tmp_path), first)
    else:
        interrupt(monkeypatch, 3)
        with pytest.raises(InterruptionError):
            train(tiny, tmp_path)
    with pytest.raises(ValueError, match=f"is another one: its {words}"):
        train(tiny, tmp_path, **given)


@pytest.mark.slow
def test_a_part_of_a_sweep_is_not_taken_for_the_whole(tiny, tmp_path):
    part = train(tiny, tmp_path, shard=(1, 2))
    with pytest.raises(ValueError, match="is another one: its shard is '1/2', not None"):
        train(tiny, tmp_path / "shard_1_of_2")
    assert part["run"].size < train(tiny, tmp_path)["validation_loss"].size
    halved = tmp_path / "halved"
    jm.halve(MODEL, doubled, FEW, tiny, num_steps=12, factor=2, rungs=[6], folder=halved, progress=False)
    with pytest.raises(ValueError, match="is another one: its rungs is '6 12', not None"):
        train(tiny, halved, optimizer=doubled)


def test_a_result_that_does_not_say_what_it_was_trained_on_is_refused(tiny, tmp_path):
    result = train(tiny, None)
    del result.attrs["computation_sha256"], result.attrs["inputs_crc32"]
    jm.save(result, tmp_path)
    with pytest.raises(ValueError, match="its record, written by an earlier version, does not include its inputs"):
        train(tiny, tmp_path)


def test_the_plan_is_the_saved_one_whatever_the_memory_is_now(tiny, tmp_path, monkeypatch):
    whole = sweep(tiny, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    with monkeypatch.context() as context:
        interrupt(context, 7)
        with pytest.raises(InterruptionError):
            sweep(tiny, tmp_path / "parts")
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 10**9)
    xr.testing.assert_identical(sweep(tiny, tmp_path / "parts"), whole)


def test_a_damaged_plan_and_a_damaged_program_are_noticed(tiny, tmp_path, monkeypatch):
    interrupt(monkeypatch, 30)
    with pytest.raises(InterruptionError):
        sweep(tiny, tmp_path)
    monkeypatch.undo()
    whole = functools.partial(sweep, tiny, tmp_path)
    (finished, *_) = sorted((tmp_path / "progress").glob("[0-9]*.npz"))
    finished.write_bytes(finished.read_bytes()[:50])
    plan = tmp_path / "progress" / "plan.npz"
    content = plan.read_bytes()
    plan.write_bytes(content[:-30])
    with pytest.raises(ValueError, match="cannot be read"):
        whole()
    plan.write_bytes(content)
    assert not whole()["validation_loss"].isnull().any()


def test_shards_unite_to_the_whole(tiny, tmp_path):
    whole = sweep(tiny, None)
    files = [tmp_path / f"shard_{part}_of_3" / "results.nc" for part in (1, 2, 3)]
    for part in (1, 2, 3):
        assert not (tmp_path / "results.nc").exists()
        result = sweep(tiny, tmp_path, shard=(part, 3))
        assert result.attrs["shard"] == f"{part}/3" and result["validation_loss"].dims == ("run",)
    merged = jm.merge([files[2], files[0].parent, files[1]])
    # Whoever ends last unites them.
    xr.testing.assert_identical(jm.load_results(tmp_path), merged)
    with pytest.raises(ValueError, match="is another one: its budget"):
        sweep(tiny, tmp_path, shard=(1, 3), num_steps=24)
    # Their plan is their own, the same for any number of cores: bit for bit its whole, and to rounding the sweep.
    sweep(tiny, tmp_path / "all", shard=(1, 1))
    xr.testing.assert_equal(merged, jm.merge([tmp_path / "all"]))
    xr.testing.assert_allclose(merged, whole, rtol=1e-5, atol=1e-6)
    assert compared(merged) == compared(whole)
    for broken, words in (
        (files[:2], "shards are missing: 3/3"),
        ([*files, files[0]], "are both the shard 1/3"),
        ([], "needs the files"),
    ):
        with pytest.raises(ValueError, match=words):
            jm.merge(broken)
    other = tmp_path / "other"
    sweep(tiny, other, shard=(3, 3), num_steps=24)
    with pytest.raises(ValueError, match="are not of one sweep"):
        jm.merge([*files[:2], other])
    sweep(tiny, tmp_path / "again", shard=(2, 3))
    with pytest.raises(ValueError, match="are both the shard 2/3"):
        jm.merge([*files, tmp_path / "again"])
    with pytest.raises(ValueError, match="is not a shard, as others of the files are"):
        jm.merge([*files, tmp_path])


def test_a_sweep_of_one_program_divides_into_shards_of_their_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmnist.sweeps.capacity.MAX_STATE_BYTES", 2**24)

    def train(**more):
        runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=8, seed=range(16))
        model = jm.SoftmaxRegression(num_classes=4)
        return jm.sweep(model, optax.sgd, runs, tiny, num_steps=3, progress=False, **more)

    for part in (1, 2):
        assert train(folder=tmp_path, shard=(part, 2)).sizes["run"] == 16
    xr.testing.assert_allclose(jm.load_results(tmp_path), train(), rtol=1e-5, atol=1e-6)
    for part in (1, 9):  # none of them trains in vain
        with pytest.raises(ValueError, match=f"shard is {part}/9, but the sweep divides into 4 programs"):
            train(folder=tmp_path / "other", shard=(part, 9))
    assert not (tmp_path / "other").exists()


def test_programs_that_end_together_are_one_file(tmp_path):
    generator = np.random.default_rng(0)
    shapes = {number: {"loss": (1, number), "curve": (1, number, 3)} for number in (7, 2, 5)}
    expected = {
        number: {name: generator.random(shape) for name, shape in each.items()} for number, each in shapes.items()
    }
    kept = SweepFolder(tmp_path)
    (tmp_path / "progress").mkdir()
    kept.finish(expected)
    found = dict(kept.outcomes(shapes.__getitem__))
    assert len(list((tmp_path / "progress").iterdir())) == 1
    assert found.keys() == expected.keys()
    for number, outcome in expected.items():
        assert found[number].keys() == outcome.keys()
        for name, values in outcome.items():
            np.testing.assert_array_equal(found[number][name], values)
    # A file whose programs are unknown counts for nothing.
    assert not dict(kept.outcomes({7: shapes[7]}.__getitem__))

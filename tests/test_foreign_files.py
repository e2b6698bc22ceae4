"""A person's files in our folders: what writes there works or refuses by a sentence, and leaves them as they are."""

import contextlib
import functools
import importlib
import io
import os
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import optax
import pytest
import xarray as xr
from conftest import mostly_slow
from locks_for_tests import held_elsewhere, is_held
from PIL import Image
from results_for_tests import make_result
from scripts_for_tests import DATASET, EXPERIMENTS

import jaxmnist as jm
from jaxmnist.host import files, lock
from jaxmnist.host import loop as host_loop
from jaxmnist.host.checkpoints import Checkpoints, saved_states
from jaxmnist.networks import run, spreading
from jaxmnist.sweeps import folder, programs

MODEL = jm.SoftmaxRegression(4)
SGD = optax.sgd(0.1)
RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=[1, 2, 40], seed=range(2))
FEW = ("--num-seeds", 2, "--num-steps", 4, "--learning-rates", 0.1, 0.2, "--batch-sizes", 4, 8)
RATES = (word for name in ("sgd", "momentum", "adam", "adamw") for word in (f"--{name}-rates", 0.01))
NETWORK = ("--features", 2, "--kernel-sizes", 3, "--pool-after", 1, "--hidden-size", 4, "--batch-size", 5)
SCRIPTS = {
    "sweep_grid": (*FEW, "--num-evaluations", 2, "--noise-scale", "--refine", "--target", 0.99),
    "sweep_grid halving": (*FEW, "--halving", 2),
    "accuracy_vs_steps": ("--num-seeds", 2, "--num-steps", 4, "--batch-size", 4),
    "accuracy_vs_steps comparing": ("--compare", "--num-seeds", 6, "--num-steps", 4, "--batch-size", 4, *RATES),
    "trainability_boundary": ("--resolution", 8, "--num-steps", 4, "--frames", 2),
    "train_cnn": (*NETWORK, "--num-steps", 12, "--evaluation-steps", 6, "--members", 2),
}
FAST_SCRIPTS = ("sweep_grid", "accuracy_vs_steps", "trainability_boundary")
# What draws, by module of `plots`.
DRAWING = {
    "report": ("scatter", "heatmap", "budget_maps", "target_maps", "noise_curve"),
    "networks": ("training_curves", "confusion", "mistakes", "filters"),
}
FUNCTIONS = ("sweep", "halve", "save", "save_model", "train_run")
# Names that nothing of ours has, hidden ones and near ones among them.
OTHER_NAMES = (
    "diary.md", "notes.npz", ".abcdefgh.nc", ".abcd_123.npz", ".results.nc", "results.nc.bak", "5.npy", "x5.npz",
    "\u00b2.npz", "0000000.npz.old", "results2.csv", ".jaxmnist-notes", "model.json~", "heatmap.pdf", "07.txt",
)  # fmt: skip
OUR_NAMES = (
    "results.nc", "results.csv", "config.json", "sweep.json", "plan.npz", "000000.npz", "000001.npz", "2.npz", "12.npz",
    "model.json", "heatmap.png", "scatter.svg", "boundary.png", "frames.gif", "00.png", "01.svg", "metrics.csv",
    "predictions.npz", "curves.png", "noise_scale.csv", "comparison.csv", "accuracy_vs_steps.csv", "_METADATA",
)  # fmt: skip
PLACES = (
    "", "progress", "progress/states_000000", "checkpoints", "checkpoints/seed_0", "checkpoints/seed_1", "model",
    "model/params_7", "rung_00000001", "rung_00000004", "refined", "refined/progress", "learning_rates", "frames",
    "frames/01",
)  # fmt: skip


def content_of(suffix: str) -> bytes:
    """Returns a whole file of another origin, of the kind that its name tells."""
    file = io.BytesIO()
    if suffix == ".npz":
        np.savez(file, mine=np.arange(3))
    elif suffix == ".nc":
        return bytes(xr.Dataset({"mine": 3.0}).to_netcdf(engine="h5netcdf"))
    elif suffix in (".png", ".gif"):
        Image.new("L", (3, 3)).save(file, suffix[1:])
    return file.getvalue() or {".json": b'{"mine": 1}', ".csv": b"day,seed\n1,2\n", ".svg": b"<svg/>"}.get(suffix, b"")


CONTENTS = (lambda suffix: b"mine" + suffix.encode(), content_of, lambda suffix: b"")


def sweep(tiny, folder, optimizer=optax.sgd):
    return jm.sweep(MODEL, optimizer, RUNS, tiny, num_steps=4, progress=False, folder=folder)


@functools.cache
def make_classifier():
    params = jm.init_state(MODEL, SGD, 0, np.zeros((1, 6, 5, 1), np.uint8)).params
    return jm.Classifier(MODEL, (params,), (6, 5, 1), tuple("abcd"))


@pytest.fixture
def write(tiny, monkeypatch, capsys, many_segments):
    """A function that lets one of `FUNCTIONS` or `SCRIPTS` write into a folder, saving its states all the time."""
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    monkeypatch.setattr("jaxmnist.host.progress.MAX_SHARE", 1e9)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr(importlib.import_module("common").DataOptions, "load", lambda options: DATASET)
    # Drawing takes most of the time, and other tests look at figures.
    blank = matplotlib.figure.Figure(figsize=(1, 1))
    draw = blank.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, *args, **kwargs: draw(*args, **kwargs))
    for module, names in DRAWING.items():
        for name in names:
            monkeypatch.setattr(f"jaxmnist.plots.{module}.{name}", lambda *args, **kwargs: blank)

    def write(what, folder, *further):
        if what == "sweep":
            sweep(tiny, folder)
        elif what == "halve":
            jm.halve(MODEL, optax.sgd, RUNS, tiny, factor=2, num_steps=4, progress=False, folder=folder)
        elif what == "save":
            jm.save(make_result(), folder)
        elif what == "save_model":
            jm.save_model(folder, make_classifier(), [0])
        elif what == "train_run":
            place = folder / "checkpoints" / "seed_0"
            numbers = dict(batch_size=5, num_steps=12, evaluation_steps=6)
            run.train_run(MODEL, SGD, tiny, 0, **numbers, folder=place)
        else:
            script = what.split()[0]
            # What is resumed has its options.
            arguments = further if "--resume" in further else [*SCRIPTS[what], "--output-dir", folder, *further]
            monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
            capsys.readouterr()
            importlib.import_module(script).main()

    return write


@pytest.fixture
def refusal(write, monkeypatch, capsys):
    """A function that returns the sentence by which a call refuses to write, before it trains anything."""

    def refusal(what, folder, *further):
        with monkeypatch.context() as context:
            context.setattr(programs, "advance", lambda *args, **kwargs: pytest.fail("trained"))
            context.setattr(spreading, "fit", lambda *args, **kwargs: pytest.fail("trained"))
            with pytest.raises((ValueError, SystemExit)) as caught:
                write(what, folder, *further)
        if what in FUNCTIONS:
            sentence = str(caught.value)
        else:
            assert caught.value.code == 2
            sentence = capsys.readouterr().err.removeprefix("error: ").removesuffix("\n")
        assert sentence and "\n" not in sentence
        return sentence

    return refusal


@pytest.fixture
def written(write, monkeypatch):
    """A function that returns all paths below a folder to which a call moves a file, the ones that go away too."""

    def written(what, folder):
        paths = []

        def replace(source, target, real=os.replace):
            if Path(source).name.startswith(files.TEMPORARY_PREFIX):
                paths.append(Path(target).relative_to(folder))
            real(source, target)

        with monkeypatch.context() as context:
            context.setattr(files.os, "replace", replace)
            write(what, folder)
        return sorted(set(paths))

    return written


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


TRAINING = ("sweep", "halve", "train_run", *SCRIPTS)


@pytest.mark.parametrize("what", mostly_slow(TRAINING, "sweep", "halve", "train_run", "sweep_grid"))
def test_what_trains_keeps_others_out_of_its_folder(tmp_path, write, refusal, monkeypatch, what):
    place = tmp_path / "checkpoints" / "seed_0" if what == "train_run" else tmp_path
    mine = [] if what in FUNCTIONS else ["--overwrite"]
    with held_elsewhere(place):
        assert " is in use by process " in (sentence := refusal(what, tmp_path, *mine))
        assert ("wait=True" if what in FUNCTIONS else "give --wait to wait for it") in sentence
        assert set(files_below(tmp_path)) == {(place / lock.FILE_NAME).relative_to(tmp_path).as_posix()}

    def replace(source, target, real=os.replace):
        assert is_held(place), f"{target} was written while others may write there"
        real(source, target)

    with monkeypatch.context() as context:
        context.setattr(files.os, "replace", replace)
        write(what, tmp_path)
    assert files_below(tmp_path) and not list(tmp_path.rglob(lock.FILE_NAME))


@pytest.mark.parametrize("what", [*FUNCTIONS, *mostly_slow(SCRIPTS, "accuracy_vs_steps")])
def test_files_of_other_names_stay_and_are_in_nobodys_way(tmp_path, write, what):
    write(what, tmp_path / "clean")
    for index, place in enumerate(PLACES):
        for name in OTHER_NAMES:
            put(tmp_path / "shared" / place / name, CONTENTS[index % 2](Path(name).suffix) + bytes([index]))
    before = files_below(tmp_path / "shared")
    # Twice, since the second call finds what the first has left; then with what scripts are told to remove.
    for further in ((), (), *([("--overwrite",)] if what in SCRIPTS else [])):
        write(what, tmp_path / "shared", *further)
        after = files_below(tmp_path / "shared")
        assert {name: after.get(name) for name in before} == before
    ours, clean = set(after) - set(before), set(files_below(tmp_path / "clean"))
    # orbax names its files at random.
    assert {name for name in ours if "params_" not in name} == {name for name in clean if "params_" not in name}
    assert all(files.is_ours(tmp_path / "shared" / name) for name in ours if "params_" not in name)


@pytest.mark.parametrize("what", [*FUNCTIONS, *mostly_slow(SCRIPTS, *FAST_SCRIPTS)])
def test_a_file_in_the_place_of_ours_is_refused_before_training(tmp_path, written, refusal, what):
    paths = written(what, tmp_path / "clean")
    assert paths
    folders = {parent for path in paths for parent in path.parents if parent != Path(".")}
    if what in ("save_model", "train_cnn"):
        paths += [Path("model/params_0"), Path("model/params_0/notes.md"), Path("model/params_0/d/notes.md")]
    for number, (path, kind) in enumerate((path, kind) for path in (*paths, *folders) for kind in range(3)):
        folder = tmp_path / str(number)
        content = CONTENTS[kind](path.suffix)
        put(folder / path, content)
        sentence = refusal(what, folder)
        named = (folder / ("model/params_0" if path.name == "notes.md" else path)).as_posix()
        assert named in sentence
        assert "another folder" in sentence or ("--overwrite" in sentence and "another --output-dir" in sentence)
        if what in SCRIPTS and len(path.parts) > 1 and path.parts[0] in ("progress", "checkpoints", "model"):
            # Told to replace what it has written there, a script still leaves this.
            assert named in refusal(what, folder, "--overwrite")
        assert (folder / path).read_bytes() == content
    for number, path in enumerate(paths):
        if "params_0" in path.parts:
            continue  # no link can be made there
        folder, outside = tmp_path / f"link {number}", tmp_path / "clean" / path
        (folder / path).parent.mkdir(parents=True)
        (folder / path).symlink_to(outside)
        assert (folder / path).as_posix() in refusal(what, folder)
        assert (folder / path).readlink() == outside


@pytest.mark.parametrize("what", [*FUNCTIONS, *mostly_slow(SCRIPTS, "sweep_grid halving")])
def test_files_of_any_names_survive_whatever_is_called(tmp_path, write, capsys, what):
    generator = np.random.default_rng(len(what))
    refused = 0
    for attempt in range(6 if what in FUNCTIONS else 2):
        folder = tmp_path / str(attempt)
        for _ in range(1 + 2 * attempt):
            names = (OUR_NAMES, OTHER_NAMES, ("".join(map(chr, generator.integers(97, 123, 8))),))[
                int(generator.integers(3))
            ]
            path = folder / generator.choice(PLACES) / generator.choice(names)
            if not path.is_dir():
                put(path, CONTENTS[int(generator.integers(3))](path.suffix))
        before = files_below(folder)
        for further in ((), ("--resume", folder)) if what in SCRIPTS else ((),):
            try:
                write(what, folder, *further)
            except (ValueError, SystemExit) as error:
                refused += 1
                sentence = str(error) if isinstance(error, ValueError) else capsys.readouterr().err
                assert sentence.count("\n") == isinstance(error, SystemExit)
            after = files_below(folder)
            assert {name: after.get(name) for name in before} == before
    assert refused < 6


@pytest.mark.parametrize("what", mostly_slow(SCRIPTS, "sweep_grid", "accuracy_vs_steps"))
def test_a_script_may_be_started_again_and_replaces_nothing_else_unless_told_to(
    tmp_path, write, refusal, monkeypatch, capsys, what
):
    write(what, tmp_path)
    first, out = files_below(tmp_path), capsys.readouterr().out
    with monkeypatch.context() as context:
        context.setattr(programs, "advance", lambda *args, **kwargs: pytest.fail("trained"))
        context.setattr(spreading, "fit", lambda *args, **kwargs: pytest.fail("trained"))
        write(what, tmp_path)
    assert files_below(tmp_path) == first
    assert capsys.readouterr().out.splitlines()[-1:] == out.splitlines()[-1:]

    other = ("--num-steps", 6)
    sentence = refusal(what, tmp_path, *other)
    steps = SCRIPTS[what][SCRIPTS[what].index("--num-steps") + 1]
    assert f"was begun with num_steps {steps}, not 6" in sentence
    assert "--overwrite" in sentence and "another --output-dir" in sentence
    assert files_below(tmp_path) == first
    # A figure that a person has altered is the person's.
    picture = next(name for name in first if name.endswith(".png"))
    with Image.open(tmp_path / picture) as opened:
        opened.convert("L").save(tmp_path / picture)
    altered = (tmp_path / picture).read_bytes()
    for arguments in ((), ("--plot-only", tmp_path), ("--resume", tmp_path)):
        if what.startswith("sweep_grid") and "--resume" in arguments:
            continue  # reports alone
        assert picture in refusal(what, tmp_path, *arguments)
        assert (tmp_path / picture).read_bytes() == altered
    write(what, tmp_path, "--plot-only", tmp_path, "--overwrite")
    assert files_below(tmp_path) == first

    write(what, tmp_path, *other, "--overwrite")
    second = files_below(tmp_path)
    write(what, tmp_path / "alone", *other)
    alone = {name: content for name, content in files_below(tmp_path / "alone").items() if "params_" not in name}
    assert {name: second.get(name) for name in alone if name.endswith("results.csv")} == {
        name: content for name, content in alone.items() if name.endswith("results.csv")
    }
    assert {name for name in second if "params_" not in name} >= set(alone)
    assert second["config.json"] != first["config.json"]


@pytest.mark.parametrize("what", mostly_slow(SCRIPTS, "sweep_grid halving"))
def test_what_was_interrupted_is_replaced_only_when_told_to(tmp_path, write, refusal, monkeypatch, what):
    class InterruptionError(Exception):
        pass

    place, name = (spreading, "fit") if what == "train_cnn" else (programs, "advance")
    real, calls = getattr(place, name), []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise InterruptionError
        return real(*args, **kwargs)

    with monkeypatch.context() as context, pytest.raises(InterruptionError):
        context.setattr(place, name, stopping)
        write(what, tmp_path / "out")
    before = files_below(tmp_path / "out")
    for further in ((), ("--num-steps", 6)):
        sentence = refusal(what, tmp_path / "out", *further)
        assert "interrupted training: continue it with --resume" in sentence and "--overwrite" in sentence
    assert files_below(tmp_path / "out") == before
    write(what, tmp_path / "whole")
    (tmp_path / "copy").mkdir()
    for path, content in before.items():
        put(tmp_path / "copy" / path, content)
    write(what, tmp_path / "out", "--resume", tmp_path / "out")
    write(what, tmp_path / "copy", "--overwrite")
    result = "predictions.npz" if what == "train_cnn" else "results.csv"
    whole = (tmp_path / "whole" / result).read_bytes()
    for place in ("out", "copy"):
        assert (tmp_path / place / result).read_bytes() == whole
        assert set(files_below(tmp_path / place)) >= {
            name for name in files_below(tmp_path / "whole") if "params_" not in name
        }
        assert not (tmp_path / place / "progress").exists()


def test_a_finished_result_saved_beside_a_begun_sweep_stays(tiny, tmp_path, write, monkeypatch):
    with monkeypatch.context() as context, pytest.raises(ZeroDivisionError):
        context.setattr(folder.SweepFolder, "finish", lambda *args: 1 / 0)
        write("sweep", tmp_path)
    jm.save(sweep(tiny, None, optax.adam), tmp_path)
    before = files_below(tmp_path)
    with pytest.raises(ValueError, match="is another one"):
        write("sweep", tmp_path)
    with pytest.raises(ValueError, match="holds a sweep that was interrupted: choose another folder"):
        write("halve", tmp_path)
    assert files_below(tmp_path) == before


def test_programs_of_an_earlier_sweep_are_not_taken_for_this_ones(tiny, tmp_path, write, monkeypatch):
    """An end that is cut off may leave them."""

    def half_clear(folder):
        folder._file.unlink(missing_ok=True)

    with monkeypatch.context() as context:
        context.setattr(folder.SweepFolder, "_clear_progress", half_clear)
        (tmp_path / "progress").mkdir()
        sweep(tiny, tmp_path, optax.adam)
    assert list((tmp_path / "progress").glob("[0-9]*.npz"))
    for name in ("results.nc", "results.csv"):
        (tmp_path / name).unlink()
    write("sweep", tmp_path)
    xr.testing.assert_identical(jm.load_results(tmp_path), sweep(tiny, None))
    assert not (tmp_path / "progress").exists()


def test_a_model_replaces_the_older_one_and_nothing_else(tmp_path):
    one = make_classifier()
    three = jm.Classifier(one.model, one.params * 3, one.input_shape, one.class_names)
    jm.save_model(tmp_path, three, [2, 3, 4])
    kept = {"model/notes.npz": b"mine", "model/params_4/notes.md": b"mine", "notes.md": b"mine"}
    for path, content in kept.items():
        put(tmp_path / path, content)
    jm.save_model(tmp_path, one, [3])
    found = files_below(tmp_path)
    assert {path: found[path] for path in kept} == kept
    assert jm.load_model(tmp_path).params and not (tmp_path / "model" / "params_2").exists()
    assert len(jm.load_model(tmp_path).params) == 1


def test_a_model_that_is_half_replaced_is_none(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    jm.save_model(tmp_path, make_classifier(), [0])

    def save(self, place, params, real=ocp.StandardCheckpointer.save):
        assert not (tmp_path / "model" / "model.json").exists()
        raise RuntimeError("no room")

    with monkeypatch.context() as context, pytest.raises(OSError, match="cannot be saved"):
        context.setattr(ocp.StandardCheckpointer, "save", save)
        jm.save_model(tmp_path, make_classifier(), [0])
    with pytest.raises(ValueError, match="holds no trained model"):
        jm.load_model(tmp_path)
    # What a kill leaves of parameters is replaced.
    for name in ("params_0", "params_0.orbax-checkpoint-tmp"):
        put(tmp_path / "model" / name / "d" / ("0" * 32), b"half")
    jm.save_model(tmp_path, make_classifier(), [0])
    assert len(jm.load_model(tmp_path).params) == 1


def test_a_model_folder_names_nothing_outside_to_be_removed(tmp_path):
    put(tmp_path / "out" / "model" / "model.json", b'{"format": 1, "seeds": ["0/../../../mine", true]}')
    # What the parameters of a seed may be made of: here, a person's.
    put(tmp_path / "mine" / "d" / ("0" * 32), b"mine")
    (tmp_path / "out" / "model" / "params_0").mkdir()
    jm.save_model(tmp_path / "out", make_classifier(), [0])
    assert (tmp_path / "mine" / "d" / ("0" * 32)).read_bytes() == b"mine"


def test_older_states_of_a_person_are_not_counted_as_ours(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, {"x": np.ones(3)})
    for name in ("3.npz", "30.npz"):
        put(tmp_path / name, content_of(".npz"))
        assert [path.name for path in saved_states(tmp_path)] == ["20.npz", "10.npz"]
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=name):
            checkpoints.restore({"x": np.ones(3)})
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(40, {"x": np.ones(3)})
        assert (tmp_path / name).read_bytes() == content_of(".npz")
        for path in (tmp_path / "40.npz", tmp_path / name):
            path.unlink()
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(10, {"x": np.ones(3)})


def test_a_saved_result_makes_its_folder(tmp_path):
    jm.save(make_result(), tmp_path / "new" / "folder")
    assert jm.load_results(tmp_path / "new" / "folder").identical(make_result())


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".jpg"])
def test_predictions_replace_no_picture_of_a_person(tmp_path, write, monkeypatch, capsys, suffix):
    params = jm.init_state(jm.MLP(3, 10), optax.sgd(0.1), 0, np.zeros((1, 28, 28, 1), np.uint8)).params
    jm.save_model(tmp_path, jm.Classifier(jm.MLP(3, 10), (params,), (28, 28, 1), tuple("0123456789")), [0])
    digit = tmp_path / "digit.png"
    Image.fromarray(255 - DATASET.test.inputs[0, ..., 0]).save(digit)
    monkeypatch.setattr(jm, "load_model", lambda folder, real=jm.load_model: real(folder))
    predict = importlib.import_module("predict")

    def call(output, *further):
        arguments = (tmp_path, digit, "--output", output, *further)
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        predict.main()

    mine = tmp_path / f"mine{suffix}"
    put(mine, b"mine")
    for output in (mine, digit):
        with pytest.raises(SystemExit):
            call(output)
        err = capsys.readouterr().err
        assert output.name in err and "give --overwrite to replace it, or another --output" in err
    assert mine.read_bytes() == b"mine"
    new = tmp_path / f"new{suffix}"
    call(new)
    first = new.read_bytes()
    with contextlib.nullcontext() if suffix in (".png", ".svg") else pytest.raises(SystemExit):
        call(new)
    assert new.read_bytes() == first
    call(mine, "--overwrite")
    assert mine.read_bytes() != b"mine"


def test_a_benchmark_replaces_no_measurement(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    benchmark = importlib.import_module("benchmark.compare")
    monkeypatch.setattr(benchmark.common.DataOptions, "load", lambda options: pytest.fail("began"))
    for name in ("benchmark.json", "benchmark.png", "benchmark.svg"):
        folder = tmp_path / name
        put(folder / name, b"measured")
        monkeypatch.setattr(sys, "argv", ["benchmark", "--output-dir", str(folder)])
        with pytest.raises(SystemExit):
            benchmark.main()
        err = capsys.readouterr().err
        assert name in err and "--overwrite" in err and "another --output-dir" in err
        assert files_below(folder) == {name: b"measured"}

"""A person's files in our folders: what writes there works or refuses by a sentence, and leaves them as they are."""

import contextlib
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import optax
import pytest
import xarray as xr
from conftest import mostly_slow
from foreign_files_for_tests import (
    CONTENTS,
    FUNCTIONS,
    OTHER_NAMES,
    OUR_NAMES,
    PLACES,
    SCRIPTS,
    files_below,
    make_write,
    put,
    sweep,
)
from locks_for_tests import held_elsewhere, is_held
from PIL import Image

import jaxmnist as jm
from jaxmnist.host import files, lock
from jaxmnist.networks import spreading
from jaxmnist.sweeps import folder, programs


@pytest.fixture
def write(tiny, monkeypatch, capsys, many_segments):
    """A function that lets one of `FUNCTIONS` or `SCRIPTS` write into a folder, saving its states all the time."""
    return make_write(tiny, monkeypatch, capsys)


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


TRAINING = ("sweep", "halve", "search", "train_run", *SCRIPTS)


@pytest.mark.parametrize("what", mostly_slow(TRAINING, "sweep", "halve", "search", "train_run"))
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


# What writes one folder, one per round, and a model: those between them stand for the others.
@pytest.mark.parametrize("what", mostly_slow((*FUNCTIONS, *SCRIPTS), "sweep", "search", "save_model"))
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


@pytest.mark.parametrize("what", mostly_slow((*FUNCTIONS, *SCRIPTS), *(each for each in FUNCTIONS if each != "halve")))
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


@pytest.mark.parametrize("what", mostly_slow((*FUNCTIONS, *SCRIPTS), "sweep", "save_model", "train_run"))
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


@pytest.mark.slow
@pytest.mark.parametrize("what", mostly_slow(SCRIPTS, "accuracy_vs_steps"))
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


@pytest.mark.slow
@pytest.mark.parametrize("what", mostly_slow(SCRIPTS, "accuracy_vs_steps"))
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


@pytest.mark.parametrize("suffix", mostly_slow((".png", ".svg", ".pdf", ".jpg"), ".svg", ".pdf"))
def test_predictions_replace_no_picture_of_a_person(tmp_path, write, monkeypatch, capsys, suffix):
    params = jm.init_state(jm.MLP(3, 10), optax.sgd(0.1), 0, np.zeros((1, 28, 28, 1), np.uint8)).params
    jm.save_model(tmp_path, jm.Classifier(jm.MLP(3, 10), (params,), (28, 28, 1), tuple("0123456789")), [0])
    digit = tmp_path / "digit.png"
    upright = np.full((28, 28), 255, np.uint8)
    upright[4:24, 12:16] = 0
    Image.fromarray(upright).save(digit)
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

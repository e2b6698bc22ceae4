"""Models, states and measurements replace what they have written before, and nothing of a person's."""

import importlib
import sys

import numpy as np
import pytest
from foreign_files_for_tests import content_of, files_below, make_classifier, put
from results_for_tests import make_result
from scripts_for_tests import EXPERIMENTS

import jaxmnist as jm
from jaxmnist.host.checkpoints import Checkpoints, saved_states


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

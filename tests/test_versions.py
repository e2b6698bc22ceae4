"""What earlier and later versions of this package have written."""

import functools
import importlib
import json
from pathlib import Path

import optax
import pytest
import xarray as xr
from scripts_for_tests import EXPERIMENTS
from test_faults import MODEL, sweep

import jaxmnist as jm
from jaxmnist.analysis import files as result_files
from jaxmnist.sweeps import programs

HERE = Path(__file__).resolve().parent


def test_results_of_the_first_format_are_read(tmp_path):
    result = jm.load_results(HERE / "format_1")
    assert result.attrs["format"] == 1 and dict(result.sizes) == dict(learning_rate=2, batch_size=1, seed=2, step=3)
    assert jm.best(result).setting == {"learning_rate": 0.5, "batch_size": 5}
    jm.save(result, tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (HERE / "format_1" / "results.csv").read_bytes()
    del result.attrs["format"]  # as it was before there was a number
    jm.save(result, tmp_path)
    xr.testing.assert_identical(jm.load_results(tmp_path), result)


LATER = "was written by a later version of jaxmnist, in format 2; this one reads formats up to 1: update jaxmnist"


def test_what_a_later_version_wrote_is_refused(tiny, tmp_path, monkeypatch):
    result = sweep(tiny)
    with monkeypatch.context() as context:
        for module in ("sweeps.job", "networks.classifier"):
            context.setattr(f"jaxmnist.{module}.FORMAT", 2)
        sweep(tiny, tmp_path)
        params = jm.init_state(MODEL, optax.sgd(0.1), 0, tiny.test.inputs).params
        classifier = jm.Classifier(MODEL, (params,), (6, 5, 1), tiny.class_names)
        jm.save_model(tmp_path, classifier, [0])
        context.setattr(programs, "advance", None)
        with pytest.raises(TypeError):
            sweep(tiny, tmp_path / "begun")
    for read in (jm.load_results, jm.load_model, functools.partial(sweep, tiny)):
        with pytest.raises(ValueError, match=LATER):
            read(tmp_path)
    with pytest.raises(ValueError, match=LATER):
        sweep(tiny, tmp_path / "begun")
    # Whatever it holds.
    (tmp_path / "other").mkdir()
    result_files.write(result.drop_attrs().assign_attrs(format=2), tmp_path / "other")
    with pytest.raises(ValueError, match=LATER):
        jm.load_results(tmp_path / "other")


def test_options_of_a_later_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    common, script = importlib.import_module("common"), importlib.import_module("sweep_grid")
    unreadable = "cannot be read"
    for config, words in (({"format": 2, "new": 1}, LATER), ([1], unreadable), ({"format": "x"}, unreadable)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=words):
            common.load_config(script.Options, tmp_path)

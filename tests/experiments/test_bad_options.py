"""The scripts' own checks: a bad value of any numeric option is one sentence, before training and before any file."""

import dataclasses
import math
import re
import sys
import typing

import pytest
from bad_values import Drawn, few
from hypothesis import given
from hypothesis import strategies as st
from scripts_for_tests import DATASET, load, run

import jaxmnist as jm

SCRIPTS = ("sweep_grid", "accuracy_vs_steps", "trainability_boundary", "train_cnn")
# What an option needs beside it to be looked at.
SAMPLE = ("momentum=0:1",)
COMPARED = dict(compare=True, num_seeds=6)
BESIDE = {
    "rungs": dict(halving=2), "num_samples": dict(sample=SAMPLE), "num_rounds": dict(search="sobol", sample=SAMPLE),
    "batch": dict(search="sobol", sample=SAMPLE),
    "momentum": dict(optimizer="momentum"),
    "weight_decay": dict(optimizer="adamw"), "warmup": dict(schedule="one_cycle"),
    "final_div": dict(schedule="one_cycle"), "factor": dict(frames=2),
    **{f"{name}_rates": COMPARED for name in ("sgd", "momentum", "adam", "adamw")},
}  # fmt: skip
ALLOWED = {("evaluation_steps", 10**20), ("halving", 10**20), ("memory", 10**20)}
INTEGERS, FLOATS = [-1, -(2**31), 10**20, 0], [math.nan, math.inf, -math.inf]
ZERO_IS_FINE = {"seed", "hidden_size"}


def numeric_options():
    """Yields script, option, bad values."""
    for script in SCRIPTS:
        _, module = load(script)
        hints = typing.get_type_hints(module.Options)
        for field in dataclasses.fields(module.Options):
            inner = typing.get_args(hints[field.name]) or (hints[field.name],)
            is_tuple = typing.get_origin(hints[field.name]) is tuple or tuple in map(typing.get_origin, inner)
            kinds = {kind for each in inner for kind in (each, *typing.get_args(each))}
            values = INTEGERS if int in kinds else FLOATS if float in kinds else []
            values = [value for value in values if (field.name, value) not in ALLOWED]
            if (field.name == "hidden_size" and script == "train_cnn") or field.name == "seed":
                values = [value for value in values if value != 0]
            if field.name == "zoom":
                values = [(value, 1.0, 0.0, 1.0) for value in values]
            elif is_tuple:
                default = getattr(module.Options, field.name) or (1,)
                values = [(value, *default[1:]) for value in values]
            if values:
                yield pytest.param(script, field.name, values, id=f"{script}-{field.name}")


@pytest.mark.parametrize(("script", "name", "values"), list(numeric_options()))
def test_bad_numbers_end_with_a_sentence_before_training(no_home, monkeypatch, capsys, script, name, values):
    common, module = load(script)
    folder = no_home / "out"
    monkeypatch.setattr(common.DataOptions, "load", lambda options: DATASET)
    for training in ("sweep", "halve", "search", "estimate"):
        monkeypatch.setattr(jm, training, lambda *args, **kwargs: pytest.fail("training has begun"))
    if script == "accuracy_vs_steps" and name == "weight_decay":
        beside = COMPARED
    elif script == "accuracy_vs_steps" and name == "momentum":
        beside = dict(optimizer="momentum", batch_size=4)
    else:
        beside = BESIDE.get(name, {})

    @given(st.sampled_from(values).map(Drawn))
    @few
    def refuses(drawn):
        options = module.Options(**{"output_dir": folder} | beside | {name: drawn.value})
        monkeypatch.setattr(common, "parse", lambda *args: options)
        monkeypatch.setattr(module, "parse", lambda: options, raising=False)
        monkeypatch.setattr(sys, "argv", [f"{script}.py"])
        with pytest.raises(SystemExit) as ended:
            common.main(module.main)
        err = capsys.readouterr().err
        assert ended.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        words = [name, name.removesuffix("s"), "learning_rate" if name.endswith("_rates") else name]
        assert any(word in err for word in words), err
        assert not [path for path in no_home.rglob("*") if path.is_file()]

    refuses()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(ray_resources=("CPU=4",)), "only the tasks of --ray ask for them"),
        (dict(ray="local", ray_resources=("CPU",)), "ray_resources has 'CPU'; NAME=NUMBER, such as CPU=4, is needed"),
        (dict(ray="local", ray_resources=("CPU=four",)), "ray_resources has 'CPU=four'"),
        (dict(ray="local", ray_resources=("CPU=-1",)), "ray_resources is {'CPU': -1.0}"),
    ],
)
def test_what_tasks_ask_for_are_names_with_numbers(monkeypatch, given, message):
    _, module = load("sweep_grid")
    monkeypatch.setattr("jaxmnist.sweeps.cluster.check_installed", lambda: None)
    with pytest.raises(ValueError, match=re.escape(message)):
        module.Options(**given).check()
    options = module.Options(ray="local", ray_resources=("CPU=4", "GPU=0.5"))
    options.check()
    assert options.resources() == {"CPU": 4, "GPU": 0.5}


@pytest.mark.parametrize("script", [*SCRIPTS, "predict"])
def test_a_word_for_a_number_or_an_unknown_option_ends_with_status_2(tmp_path, script):
    option = "--unknown" if script == "predict" else "--num-steps"
    _, err = run(script, option, "x", cwd=tmp_path, status=2)
    assert option in err
    assert not list(tmp_path.iterdir())

"""Axes, distributions and a person's own code, as a command line names them."""

import re
import sys

import optax
import pytest

import jaxmnist as jm
from jaxmnist.studies import command_line

OWN = """
import functools
import optax

def clipped(learning_rate, max_norm=1.0):
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder with a module in it, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("written_by_a_person", "written_badly"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=0,1e-4,1e-3", [0, 1e-4, 1e-3]), ("a=64,128", [64, 128]), ("a=-1", [-1]), ("a=true,False", [True, False]),
        ("a=none,0.5", [None, 0.5]), ("a=same,valid", ["same", "valid"]), ("a='none','1'", ["none", "1"]),
        ("a=(64,32)", [(64, 32)]), ("a=(64,32),(64,),()", [(64, 32), (64,), ()]), ("a=((1,2),3),(4)x", None),
        ("a=((1,2),3)", [((1, 2), 3)]), ("a=[64,32]", [(64, 32)]), ("a='b,c'", ["b,c"]), ("a= 1 , 2", [1, 2]),
        ("a=", None), ("a=1,", None), ("a=(64", None), ("a=(64)", None), ("a=__import__('os')", None),
        ("a=(__import__('os'),)", None), ("a=nan", None), ("a=1,true", None), ("a=1,1", None), ("a=64),(32", None),
        ("a", None), ("1=2", None), ("=2", None), ("a-b=2", None),
    ],
)  # fmt: skip
def test_values_of_an_axis(text, values):
    if values is None:
        with pytest.raises(ValueError, match=r"^axes"):
            command_line.axes("axes", [text])
        return
    (found,) = command_line.axes("axes", [text]).values()
    assert found == values and [*map(type, found)] == [*map(type, values)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=0:0.99", jm.uniform(0, 0.99)), ("a=-1:1", jm.uniform(-1, 1)), ("a=log:1e-4:1", jm.loguniform(1e-4, 1)),
        ("a=64,128", [64, 128]), ("a=('x:y',)", [("x:y",)]), ("a=1:0", None), ("a=log:0:1", None), ("a=1:2:3", None),
        ("a=log:1", None), ("a=ln:1:2", None), ("a=0:inf", None), ("a=:1", None), ("a=log:log:1:2", None),
        ("a=int:16:512", range(16, 513)), ("a=int:-1:1", range(-1, 2)), ("a=int:3:3", range(3, 4)),
        ("a=int:4:3", None), ("a=int:1:2.5", None), ("a=int:1", None), ("a=log:int:1:2", None),
        ("a=int:0:99999999999", None),
    ],
)  # fmt: skip
def test_what_settings_are_drawn_from(text, found):
    if found is None:
        with pytest.raises(ValueError, match=r"^sample has .*a="):
            command_line.space("sample", [text])
    else:
        assert command_line.space("sample", [text]) == {"a": found}


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="axes has a twice; give all of its values at once"):
        command_line.axes("axes", ["a=1", "a=2"])


def test_names_are_hyperparameters_of_model_optimizer_or_loss():
    parts = (jm.MLP(), optax.sgd, jm.losses.cross_entropy)
    command_line.check_names("axes", ["hidden_size", "nesterov", "label_smoothing", "init_seed", "batch_size"], *parts)
    words = (
        "axes has hidden_sizes, which is not a hyperparameter here: the model MLP has hidden_size, num_classes, "
        "init_scale; the optimizer sgd has learning_rate, momentum, nesterov, accumulator_dtype; the loss "
        "cross_entropy has label_smoothing"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        command_line.check_names("axes", ["hidden_size", "hidden_sizes"], *parts)
    command_line.check_names("axes", ["anything"], jm.MLP(), lambda **given: optax.sgd(**given), parts[2])


def test_code_of_ones_own_comes_from_the_current_folder(own_module):
    (own_module / "written_by_a_person.py").write_text(OWN)
    named = {"sgd": optax.sgd}
    assert command_line.chosen("optimizer", "sgd", named) is optax.sgd
    assert command_line.chosen("optimizer", "optax:lion", named) is optax.lion
    clipped = command_line.chosen("optimizer", "written_by_a_person:clipped", named)
    assert clipped.__module__ == "written_by_a_person" and clipped is sys.modules["written_by_a_person"].clipped


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "adam",
            "optimizer is 'adam'; sgd, or MODULE:NAME of a module in the current folder, such as my_module:m",
        ),
        ("written_by_a_person:", "or MODULE:NAME"),
        ("written wrongly:x", "written wrongly cannot be imported"),
        ("written_by_a_person:other", "written_by_a_person has no other; it has clipped"),
        ("nowhere:clipped", "there is no module nowhere, neither in the current folder, "),
        ("nowhere.deep:clipped", "there is no module nowhere, neither in the current folder, "),
        ("written_badly:clipped", "written_badly cannot be imported: No module named 'not_installed'"),
    ],
)
def test_code_that_is_not_there_is_a_sentence(own_module, text, words):
    (own_module / "written_by_a_person.py").write_text(OWN)
    (own_module / "written_badly.py").write_text("import not_installed\n")
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        command_line.chosen("optimizer", text, {"sgd": optax.sgd})
    assert "\n" not in str(raised.value) and str(raised.value).startswith("optimizer is ")

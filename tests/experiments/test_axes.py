"""Any hyperparameter, and a person's own model, optimizer and loss, from the command line; and reports as JSON."""

import json
import re
import sys

import jax
import numpy as np
import pytest
from scripts_for_tests import EXPERIMENTS, run

import jaxmnist as jm

FEW = ("--dataset", "digits", "--num-seeds", 2, "--num-steps", 5, "--output-dir", "out")
ONE = ("--learning-rates", 0.5, "--batch-sizes", 10)
AXES = {
    "learning_rate": [0.5], "batch_size": [10], "init_std": [0.05, 0.1], "nesterov": [True], "momentum": [0.9],
    "label_smoothing": [0, 0.1],
}  # fmt: skip
ENDS = ("mean", "low", "high")
OWN = """
import flax.linen as nn
import jax.numpy as jnp
import optax

class Linear(nn.Module):
    scale: float = 1.0

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(self.scale * images.reshape(images.shape[0], -1))

def clipped(learning_rate, max_norm=1.0):
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))

def focal(outputs, targets, gamma=2.0):
    entropy = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return (1 - jnp.exp(-entropy)) ** gamma * entropy
"""
NAMED = ("--model", "named_by_a_person:Linear", "--optimizer", "named_by_a_person:clipped")
NAMED += ("--loss", "named_by_a_person:focal")


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with a module of a model, an optimizer and a loss, which is forgotten afterwards."""
    (tmp_path / "named_by_a_person.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("named_by_a_person", None)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep with further axes, and what the script printed."""
    folder = tmp_path_factory.mktemp("swept")
    axes = ("--axes", "init_std=0.05,0.1", "nesterov=true", "momentum=0.9", "label_smoothing=0,0.1")
    return folder, *run("sweep_grid", *FEW, *ONE, *axes, "--json", cwd=folder)


def test_axes_reach_model_optimizer_and_loss(swept):
    folder, _, err = swept
    assert "8/8 runs" in err and "wrote out/heatmap.png, out/parallel.png, out/slices.png" in err
    assert "chosen on validation: learning_rate 0.5, batch_size" in err
    assert ", nesterov True, momentum 0.9, " in err
    found = jm.load_results(folder / "out")
    assert {name: found[name].values.tolist() for name in found.dims} == AXES | {"seed": [0, 1]}
    assert len(np.unique(found["validation_loss"])) == 8


def test_standard_output_holds_one_report_as_json(swept):
    folder, out, _ = swept
    report = json.loads(out)
    result = jm.load_results(folder / "out")
    best, table = jm.best(result), jm.ties(result)
    assert report["asked"]["axes"][1] == "nesterov=true" and report["asked"]["num_steps"] == 5
    assert report["estimate"] is None and report["refined"] is None
    found = report["sweep"]
    assert found["axes"] == AXES and found["seeds"] == [0, 1] and found["num_settings"] == 4
    assert found["metric"] == {"name": "accuracy", "largest_is_best": True}
    assert found["best"]["setting"] == best.setting and found["best"]["setting"]["nesterov"] is True
    for split, interval in (("validation", best.validation), ("test", best.test)):
        assert found["best"][split] == {**dict(zip(ENDS, interval[:3], strict=True)), "kind": interval.words}
    assert found["best"]["on_an_edge"] == best.edges
    for kind in ("as good", "unclear"):
        assert [each["p_value"] for each in found[kind.replace(" ", "_")]] == table["p_value"][
            table["standing"] == kind
        ].tolist()
    assert found["unclear"]
    assert (found["num_runs"], found["num_diverged"], found["num_pruned"]) == (8, 0, 0)
    figures = [f"{name}.{kind}" for name in ("heatmap", "parallel", "slices") for kind in ("png", "svg")]
    assert found["files"] == sorted(
        f"out/{name}" for name in ("config.json", "report.html", "results.csv", "results.nc", *figures)
    )
    assert found["versions"][0]["jax"] == jax.__version__


@pytest.mark.parametrize("arguments", [("--plot-only", "out"), ("--resume", "out", "--wait")])
def test_the_report_is_the_same_without_training(swept, arguments):
    folder, out, _ = swept
    again, err = run("sweep_grid", *arguments, "--json", cwd=folder)
    assert json.loads(again) == json.loads(out) and "sweep:" not in err


def test_the_documentation_has_every_entry_of_the_report(swept):
    report = json.loads(swept[1])
    text = (EXPERIMENTS.parent / "docs" / "command_line.md").read_text()
    entries = {*report, *report["sweep"], *report["sweep"]["metric"], *report["sweep"]["best"]}
    entries |= {*report["sweep"]["best"]["test"], *(name for each in report["sweep"]["unclear"] for name in each)}
    assert entries <= set(re.findall(r"`(\w+)`", text))


def test_a_report_of_a_dry_run_and_of_an_error(tmp_path):
    out, err = run("sweep_grid", *FEW, *ONE, "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(out)["estimate"]["num_runs"] == 2 and json.loads(out)["sweep"] is None and "runs: 2" in err
    out, err = run("sweep_grid", *FEW, "--axes", "a", "--json", cwd=tmp_path, status=2)
    assert out == "" and err.startswith("error: axes has 'a'")


def test_code_of_ones_own_is_trained_and_named_again_to_resume(own_code):
    space = ("--sample", "learning_rate=log:0.01:1", "scale=0.5:2", "max_norm=1,10", "--num-samples", 3)
    arguments = (*FEW, "--batch-sizes", 10, *NAMED, *space, "--by", "accuracy")
    out, _ = run("sweep_grid", *arguments, cwd=own_code)
    found = jm.load_results(own_code / "out")
    assert found.sizes["run"] == 6 and "its test accuracy" in out
    assert [found.attrs[name] for name in ("optimizer", "loss", "metrics")] == ["clipped", "focal", "accuracy loss"]
    assert found.attrs["model"].startswith("Linear")
    assert (
        set(found["max_norm"].values.tolist()) <= {1, 10} and 0.5 <= found["scale"].min() <= found["scale"].max() <= 2
    )
    assert 0.5 <= found["scale"].min() < found["scale"].max() <= 2 and found["learning_rate"].min() >= 0.01
    assert json.loads((own_code / "out" / "config.json").read_text())["loss"] == "named_by_a_person:focal"

    del sys.modules["named_by_a_person"]
    _, err = run("sweep_grid", "--resume", "out", cwd=own_code, status=2)
    assert f"whose code runs only if it is named: give {' '.join(NAMED)} again" in err
    assert "named_by_a_person" not in sys.modules
    again, err = run("sweep_grid", "--resume", "out", *NAMED, cwd=own_code)
    assert out.endswith(f"report.html\n{again}") and "sweep:" not in err


@pytest.mark.slow
def test_a_search_goes_through_what_is_sampled(tmp_path):
    space = ("--sample", "learning_rate=log:0.01:1", "hidden_size=8,16", "--model", "mlp", "--by", "loss")
    out, _ = run("sweep_grid", *FEW, *space, "--search", "sobol", "--num-rounds", 2, "--batch", 4, cwd=tmp_path)
    found = jm.load_results(tmp_path / "out")
    assert found.sizes["run"] == 16 and set(found["hidden_size"].values.tolist()) == {8, 16}
    assert "its test loss" in out and json.loads(found.attrs["search"])["by"] == "loss"


@pytest.mark.slow
def test_curves_of_ones_own_model(own_code):
    run("accuracy_vs_steps", *FEW, *NAMED[:4], cwd=own_code)
    assert jm.load_results(own_code / "out").attrs["model"].startswith("Linear")

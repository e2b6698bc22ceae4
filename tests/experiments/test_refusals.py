"""What the scripts refuse, in one sentence, before training and before any file."""

import importlib
import sys

import pytest
from scripts_for_tests import EXPERIMENTS

SMALL = ("--dataset", "digits", "--num-seeds", "2", "--num-steps", "20")
SEARCH = (*SMALL, "--search", "sobol", "--sample", "learning_rate=log:0.1:1")
DEEP = ("--features", *"22222", "--kernel-sizes", *"11111", "--pool-after", *"12345")


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("sweep_grid", ("--dataset", "x" * 300), "dataset 'xxx"),
        ("sweep_grid", ("--dataset", "no_such_data"), "no_such_data"),
        ("sweep_grid", ("--optimizer", "magic"), "magic"),
        ("sweep_grid", ("--model", "transformer"), "transformer"),
        ("sweep_grid", (*SMALL, "--batch-sizes", "0"), "batch_size 0"),
        ("sweep_grid", (*SMALL, "--batch-sizes", "1258"), "batch_size 1258"),
        ("sweep_grid", (*SMALL, "--learning-rates"), "learning_rate"),
        ("sweep_grid", (*SMALL, "--learning-rates", "0.1", "0.1"), "twice"),
        ("sweep_grid", (*SMALL, "--learning-rates", "nan"), "nan"),
        ("sweep_grid", ("--dataset", "digits", "--num-steps", "-5"), "num_steps is -5"),
        ("sweep_grid", ("--dataset", "digits", "--num-seeds", "0"), "num_seeds is 0"),
        ("sweep_grid", (*SMALL, "--num-evaluations", "21"), "num_evaluations is 21"),
        ("sweep_grid", (*SMALL, "--momentum", "0.5"), "only --optimizer momentum"),
        ("sweep_grid", (*SMALL, "--output-dir", "/dev/null/out"), "/dev/null/out cannot be written"),
        ("sweep_grid", ("--plot-only", "nowhere"), "there is no nowhere/results.nc"),
        ("accuracy_vs_steps", (*SMALL, "--batch-size", "0"), "batch_size 0"),
        ("train_cnn", ("--dataset", "digits", "--dropout-rate", "1"), "dropout_rate is 1.0"),
        ("train_cnn", ("--dataset", "digits", "--hidden-size", "-1"), "hidden_size is -1"),
        ("train_cnn", ("--dataset", "digits", "--batch-size", "0", "--num-epochs", "1"), "batch_size is 0"),
        ("train_cnn", ("--dataset", "digits", "--batch-size", "1258"), "batch_size 1258"),
        ("train_cnn", ("--dataset", "digits", "--kernel-sizes", "4", "4"), "kernel_sizes is (4, 4)"),
        ("train_cnn", ("--dataset", "digits", "--kernel-sizes", "-1", "-1"), "kernel_sizes is (-1, -1)"),
        ("train_cnn", ("--dataset", "digits", *DEEP), "images of 28 x 28 pixels have none left"),
        ("train_cnn", ("--dataset", "digits", "--num-steps", "100000000000"), "num_steps is 100000000000"),
        ("train_cnn", ("--dataset", "digits", "--num-epochs", "1e300"), "allowed: 2**31 - 1 steps"),
        ("train_cnn", ("--dataset", "digits", "--learning-rate", "nan"), "learning_rate is nan"),
        ("train_cnn", ("--dataset", "digits", "--init-bias", "inf"), "init_bias is inf"),
        ("train_cnn", ("--dataset", "digits", "--momentum", "0.5"), "only --optimizer momentum uses it"),
        ("train_cnn", ("--dataset", "digits", "--weight-decay", "0.1"), "weight_decay is 0.1"),
        ("trainability_boundary", ("--paper", "tanh", "--hidden-size", "8"), "but --paper tanh has its own"),
        ("trainability_boundary", ("--paper", "tanh", "--zoom", "1", "0", "0", "1"), "a window begins below its end"),
        ("published", ("--table", "nothing"), "nothing"),
        ("published", ("--resume", "nowhere"), "config.json cannot be read"),
        ("train_cnn", ("--resume", "nowhere"), "config.json cannot be read"),
        ("train_cnn", ("--plot-only", "nowhere"), "nowhere holds no finished training"),
        ("sweep_grid", ("--resume", "nowhere"), "config.json cannot be read"),
        ("sweep_grid", (*SMALL, "--num-samples", "0", "--sample", "momentum=0:1"), "num_samples is 0"),
        ("sweep_grid", (*SMALL, "--num-samples", "5"), "num_samples is 5, but only --sample uses it"),
        (
            "sweep_grid",
            (*SMALL, "--sample", "learning_rate=log:0:1"),
            "two finite numbers above 0, the lower",
        ),
        ("sweep_grid", (*SMALL, "--sample", "seed=1,2"), "--num-seeds gives them"),
        ("sweep_grid", (*SMALL, "--sample", "learning_rate=0:1", "--learning-rates", "1"), "learning_rates are (1.0,)"),
        ("sweep_grid", (*SMALL, "--sample", "nesterov=true", "--axes", "nesterov=true"), "and so has --axes"),
        ("sweep_grid", (*SMALL, "--axes", "size=64,128"), "SoftmaxRegression has num_classes, init_std; "),
        ("sweep_grid", (*SMALL, "--axes", "learning_rate=1,2"), "whose values --learning-rates gives"),
        ("sweep_grid", (*SMALL, "--axes", "init_seed=0,1", "order_seed=0,1"), "nothing to decide; give --num-seeds 1"),
        ("sweep_grid", (*SMALL, "--axes", "momentum=0,0"), "axes: momentum has a value twice in [0, 0]"),
        (
            "sweep_grid",
            (*SMALL, "--optimizer", "momentum", "--momentum", "0.5", "--axes", "momentum=0,1"),
            "momentum is 0.5, but --axes",
        ),
        ("sweep_grid", (*SMALL, "--axes", "nesterov=true,false", "--widen"), "widen needs axes of numbers"),
        ("sweep_grid", (*SMALL, "--axes", "momentum=0", "--noise-scale"), "noise_scale needs"),
        ("sweep_grid", (*SMALL, "--loss", "hinge"), "loss is 'hinge'; cross_entropy, squared_error, or MODULE:NAME"),
        ("sweep_grid", (*SMALL, "--model", "no_such_module:Model"), "there is no module no_such_module, neither in"),
        ("sweep_grid", (*SMALL, "--by", "loss", "--halving", "2"), "by is 'loss', which goes with neither halving nor"),
        ("sweep_grid", (*SMALL, "--by", "speed"), "speed"),
        ("sweep_grid", (*SMALL, "--memory", "0.01"), "memory is 10 MiB; this sweep needs at least"),
        ("sweep_grid", (*SMALL, "--memory", "-1"), "memory is -1.0"),
        ("sweep_grid", (*SMALL, "--shard", "3"), "shard is '3'"),
        ("sweep_grid", (*SMALL, "--shard", "3/2"), "shard is '3/2'"),
        ("sweep_grid", (*SMALL, "--shard", "9/9"), "shard is 9/9, but the sweep divides into"),
        ("sweep_grid", (*SMALL, "--target", "90"), "target is 90.0"),
        ("sweep_grid", (*SMALL, "--noise-scale"), "noise_scale needs"),
        ("sweep_grid", (*SMALL, "--refine", "--sample", "momentum=0:1"), "refine needs a whole grid"),
        ("sweep_grid", (*SMALL, "--search", "guess"), "guess"),
        ("sweep_grid", (*SMALL, "--batch", "4"), "batch is 4, but only --search uses it"),
        ("sweep_grid", (*SEARCH, "--num-rounds", "0"), "num_rounds is 0"),
        ("sweep_grid", (*SEARCH, "--halving", "2"), "search goes without halving"),
        ("sweep_grid", (*SEARCH, "--widen"), "widen needs a whole grid"),
        ("sweep_grid", (*SMALL, "--search", "sobol"), "search is 'sobol', and needs --sample"),
        ("sweep_grid", (*SEARCH, "--num-samples", "3"), "search goes without num_samples"),
        ("sweep_grid", (*SMALL, "--halving", "1"), "halving is 1"),
        ("sweep_grid", (*SMALL, "--rungs", "5"), "only --halving"),
        ("sweep_grid", (*SMALL, "--halving", "2", "--rungs", "20"), "below num_steps, 20"),
        ("sweep_grid", (*SMALL, "--halving", "2", "--num-evaluations", "2"), "neither num_evaluations nor shard"),
        ("predict", ("nowhere", "a.png"), "nowhere holds no trained model"),
        ("watch", ("nowhere",), "nowhere is not a folder; give the output folder of a sweep"),
        ("watch", (".", "--port", 65536), "port is 65536; a whole number from 0 to 65535 is needed"),
        ("predict", ("nowhere",), "no pictures"),
        ("predict", ("nowhere", "a.png", "--output", "x.xyz"), "output is x.xyz; its name must end with one of"),
        ("accuracy_vs_steps", ("--plot-only", "nowhere"), "there is no nowhere/results.nc"),
        ("accuracy_vs_steps", (*SMALL, "--compare"), "num_seeds is 2; --compare needs at least 6"),
        ("accuracy_vs_steps", ("--compare", "--learning-rates", "1"), "--compare has its own"),
        ("accuracy_vs_steps", ("--compare", "--optimizer", "adam"), "--compare has its own"),
        ("accuracy_vs_steps", ("--compare", "--momentum", "1"), "momentum is 1.0"),
        ("accuracy_vs_steps", ("--compare", "--dataset", "digits", "--adam-rates", "nan"), "nan"),
        ("accuracy_vs_steps", (*SMALL, "--adam-rates", "1"), "only --compare uses it"),
        ("accuracy_vs_steps", (*SMALL, "--learning-rates", "0.1", "0.1"), "twice"),
    ],
)
def test_bad_input_ends_with_a_sentence_before_training(no_home, monkeypatch, capsys, script, arguments, words):
    # In this process, since starting one takes seconds; the tests around this one start the scripts as a person does.
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.chdir(no_home)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("common").main(importlib.import_module(script).main)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in err and "sweep:" not in err
    assert not list(no_home.rglob("results.*"))

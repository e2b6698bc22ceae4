"""What a REPL and a notebook show of the values that this package returns."""

import collections
import pickle

import jax
import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.analysis.intervals import Interval, t_interval
from jaxmnist.analysis.results import Best
from jaxmnist.host.display import listed
from jaxmnist.sweeps.costs import Cost
from jaxmnist.sweeps.planned import Program
from jaxmnist.sweeps.rerun import Run
from jaxmnist.sweeps.run_table import RunTable

Metrics = collections.namedtuple("Metrics", "accuracy loss")
INTERVAL = t_interval([0.87, 0.89])
BEST = Best({"learning_rate": 0.1, "optimizer": "<script>"}, INTERVAL, INTERVAL, ["learning_rate"])
METRICS = Metrics(np.float32(0.5), np.float32(2.25))
RUN = Run({"kernel": np.zeros((784, 10))}, {}, np.zeros(20, np.float32), METRICS, METRICS, True)
COST = Cost(12, 1, 1, 2**21, 2**20, 1e9, 1.0, 3.0)
GRID = jm.grid(learning_rate=[0.1, 0.3], batch_size=[16, 32], seed=range(300))
PROGRAM = jm.plan(GRID)[0]


def test_values_are_shown_in_a_few_words():
    over = "95 % t interval over 2 seeds"
    interval = "0.88 [0.7529, 1.007]"
    assert repr(INTERVAL) == f"Interval(mean: 0.88; interval: [0.7529, 1.007]; kind: {over})"
    assert repr(BEST) == (
        f"Best(setting: learning_rate 0.1, optimizer <script>; validation: {interval} ({over}); "
        f"test: {interval} ({over}); on an edge: learning_rate)"
    )
    assert repr(t_interval([0.5])) == "Interval(mean: 0.5; kind: 1 seed, no interval)"
    metrics = "accuracy 0.5, loss 2.25"
    assert repr(RUN) == f"Run(parameters: 7,840; steps: 20; validation: {metrics}; test: {metrics}; exact: yes)"
    assert repr(COST).startswith("Cost(runs: 12; programs: 1, of which 1 are compiled; memory: 2 MiB; ")
    assert repr(PROGRAM) == (
        "Program(runs: 1,200, in 600 groups of 2; at once: 600 groups; "
        "batch_size: 2 values: 16, 32 (padded to 32); seed: 300 values from 0 to 299)"
    )


def test_runs_are_shown_by_their_values():
    assert repr(GRID).splitlines() == [
        "RunTable:",
        "  runs           1,200, every combination once",
        "  learning_rate  2 values: 0.1, 0.3",
        "  batch_size     2 values: 16, 32",
        "  seed           300 values from 0 to 299",
    ]
    twice = RunTable(learning_rate=np.array([0.1, 0.1, 0.3, 0.3]), seed=np.array([0, 0, 0, 1]))
    assert "every combination" not in repr(twice) and "  runs           4\n" in repr(twice)
    made = [jm.sample(3, 0, seed=range(9)), jm.union(GRID, GRID), jm.with_seeds({"batch_size": [8]}, [1, 2])]
    assert {type(runs) for runs in made} == {RunTable}


def test_values_are_listed_by_name_and_long_lists_are_cut():
    assert listed([jax.nn.relu, jax.nn.tanh, None, (1, 2)]) == "4 values: relu, tanh, None, (1, 2)"
    assert listed([True]) == "True" and listed(["a", "b"]) == "2 values: 'a', 'b'"
    assert listed([str(digit) for digit in range(26)], "names").startswith("26 names: '0', '1', ")
    assert listed([str(digit) for digit in range(26)]).endswith(", '6', ...")


def test_runs_are_a_dict_to_all_others():
    plain = dict(GRID)
    assert isinstance(GRID, dict) and list(GRID) == list(plain)
    doubled = jax.tree.map(lambda column: column * 2, GRID)
    assert type(doubled) is RunTable and doubled["seed"].max() == 598
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(GRID)] == [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(plain)
    ]
    total = jax.jit(lambda runs: runs["seed"].sum() + len(repr(runs)) * 0)(GRID)
    assert int(total) == int(plain["seed"].sum())
    again = pickle.loads(pickle.dumps(GRID))
    assert type(again) is RunTable and all(np.array_equal(again[name], plain[name]) for name in plain)


@pytest.mark.parametrize("value", [BEST, INTERVAL, RUN, COST, PROGRAM], ids=lambda value: type(value).__name__)
def test_named_tuples_stay_named_tuples(value):
    kind = type(value)
    assert isinstance(value, tuple) and kind(*value)._asdict().keys() == value._asdict().keys()
    assert jax.tree.structure(value) == jax.tree.structure(kind(**value._asdict()))
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


@pytest.mark.parametrize(
    "wrong", [None, 0, "<script>", [[1] * 1000], np.zeros(3), object()], ids=lambda wrong: type(wrong).__name__
)
def test_whatever_the_fields_are_something_is_shown(wrong):
    counts = {Best: 4, Interval: 4, Run: 6, Cost: 8, Program: 6, jm.Split: 2, jm.Dataset: 5}
    for value in [*(kind(*[wrong] * count) for kind, count in counts.items()), RunTable(seed=wrong)]:
        assert type(value).__name__ in repr(value) or isinstance(value, RunTable)
        assert "<script>" not in (value._repr_html_() or "")


def test_text_is_never_taken_for_html(tiny):
    named = jm.Dataset("<script>", ("<b>", "<i>", "c", "d"), tiny.train, tiny.validation, tiny.test)
    runs = jm.grid(**{"<u>": ["<script>", "&"]}, seed=0)
    for value, count in ((named, 7), (BEST, 4), (runs, 3), (tiny.train, 2), (PROGRAM, 4), (COST, 6), (RUN, 5)):
        table = value._repr_html_()
        assert table.startswith("<table>") and table.count("<tr>") == count
        assert not any(tag in table for tag in ("<script", "<b>", "<i>", "<u>"))
    assert "&lt;script&gt;" in named._repr_html_() and "&lt;u&gt;" in runs._repr_html_()

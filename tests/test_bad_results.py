"""Results, figures, pictures and folders: bad values of every argument of every public function are refused."""

import copy
import functools
import json
import math

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
from bad_values import (
    ARRAYS,
    NOT_A_NUMBER,
    NOT_A_PATH,
    NOT_A_SPLIT_NAME,
    THINGS,
    Case,
    Drawn,
    assert_refused,
    declared,
    few,
    is_not,
    one_of,
    register,
    things_but,
)
from conftest import make_split
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from results_for_tests import make_result
from test_variance import crossed

import jaxmnist as jm
from jaxmnist.analysis import arguments, export, intervals, pairs, selection, targets
from jaxmnist.core import arguments as core_arguments
from jaxmnist.networks import classifier as classifiers
from jaxmnist.plots import networks, page

CLASS_NAMES = ("a", "b", "c", "d")
SPLIT = make_split(6, 0)


def without_attribute(name):
    changed = make_result().copy()
    del changed.attrs[name]
    return changed


def with_attribute(name, value):
    return make_result().assign_attrs({name: value})


def strings_as(name):
    return make_result().assign({name: make_result()[name].astype(str)})


def axes_that(change):
    axes = json.loads(make_result().attrs["axes"])
    return with_attribute("axes", json.dumps(change(copy.deepcopy(axes))))


def calls(makers):
    """Returns a strategy of what one of these functions returns."""
    return st.sampled_from(makers).map(lambda make: make())


NO_AXES = ["", "[", "[]", "null", "{}", '{"seed": 3}', '{"seed": [5]}', "[" * 100_000, 3, None]
NO_RESULT = one_of(THINGS, ARRAYS, [pd.DataFrame(), 3, "results.nc"]) | calls(
    [
        lambda: make_result().to_dataarray(),
        lambda: without_attribute("axes"),
        *(functools.partial(with_attribute, "axes", axes) for axes in NO_AXES),
        lambda: axes_that(lambda axes: {**axes, "unknown": [1]}),
        lambda: axes_that(lambda axes: {**axes, "seed": [[0], [1], [2]]}),
        lambda: axes_that(lambda axes: {"learning_rate": axes["learning_rate"]}),
        lambda: make_result().drop_vars("seed"),
        lambda: make_result().assign_coords(seed=[0, 1, 7]),
        lambda: make_result()[["test_accuracy"]].drop_attrs(),
    ]
)
FINALS = ("validation_accuracy", "validation_loss", "test_accuracy", "diverged_step")


def lacking(*names, attributes=()):
    """Returns a strategy of what is no result, and of results without what is needed, or with nonsense there."""
    makers = []
    for name in names:
        makers.append(lambda name=name: make_result().drop_vars(name))
        makers.append(lambda name=name: strings_as(name))
        makers.append(lambda name=name: make_result().assign({name: make_result()[name].isel(seed=0)}))
    for name in attributes:
        nonsense = [None, [1, 2], 1.5, "", 0, -1] if name.startswith("num_") else [None, 3, [1], np.arange(3)]
        makers.append(functools.partial(without_attribute, name))
        makers.extend(functools.partial(with_attribute, name, value) for value in nonsense)
    return NO_RESULT | calls(makers) if makers else NO_RESULT


WORDS = ("dataset", "budget", "model", "optimizer")
RUN_RESULTS = calls([lambda: make_result().stack(run=["learning_rate", "batch_size", "seed"]).reset_index("run")])
RUN_WITH_PRUNING = calls([lambda: make_result().assign(pruned_step=make_result()["validation_loss"])])
RATES_AS_WORDS = calls([lambda: make_result().assign_coords(learning_rate=["a", "b", "c"])])


def with_result(**more):
    return lambda: dict(result=make_result()) | more


def cases(function, valid, **bad):
    return [Case(function, name, strategy, valid) for name, strategy in bad.items()]


@functools.cache
def params():
    model = jm.SoftmaxRegression(4)
    return model, model.init(jax.random.key(0), np.zeros((1, 6, 5, 1), np.float32))["params"]


def classifier():
    model, tree = params()
    return jm.Classifier(model, (tree, tree), (6, 5, 1), CLASS_NAMES)


def with_images(**more):
    shares = np.full((6, 4), 0.25, np.float32)
    return lambda: dict(images=SPLIT.inputs, probabilities=shares, class_names=CLASS_NAMES) | more


NOT_NAMES = one_of(things_but(np.array(["x"])), ARRAYS, ["abcd", (1, 2, 3, 4), ("a", None)])
NOT_LABELS = one_of(THINGS, ARRAYS[:2], [SPLIT.targets + 4, SPLIT.targets - 4, SPLIT.targets.astype(float), [[1]], 3])
NOT_SHARES = one_of(
    THINGS, ARRAYS, [np.full((6, 3), 0.2), np.full((6, 4), 2.0), np.full((6, 4), -0.1), np.ones((6, 4), int)]
)
NOT_IMAGES = one_of(THINGS, ARRAYS, [SPLIT.inputs / 255, SPLIT.inputs[:, :, 0, 0], SPLIT.inputs[:0]])
NOT_A_KERNEL = one_of(
    THINGS, ARRAYS, [np.full((3, 3, 1, 2), np.nan), np.zeros((3, 3, 1, 2), int), np.zeros((3, 3, 1, 0))]
)
NOT_ROWS = one_of(
    things_but([], ()),
    ARRAYS[1:2],
    [[{"seed": 0}], [{"seed": "a", "step": 1}], "rows"],
)
NOT_A_TABLE = one_of(THINGS, ARRAYS, [make_result()]) | one_of(
    [
        {"batch_size": [8], "noise_scale": [1.0]},
        {"batch_size": ["a"], "steps": ["b"], "step": ["c"], "noise_scale": [None]},
    ]
).map(pd.DataFrame)
NOT_TARGET = NOT_A_NUMBER | one_of([0, 1, -1, 90, 1e308])
NOT_SPLITS = one_of(THINGS, [("all",), ("test", "test"), ("test", 3), {"test"}, 3])
NOT_METRICS = one_of(THINGS, ["accuracies", ("loss", "loss"), ("loss", None), 3])
NOT_ACCURACIES = one_of(THINGS, ARRAYS[:2], [[-0.1], [1.1, 0.5], [math.inf], "0.5", [[0.5]], 0.5, ["a"], [10**400]])
NOT_FACTORS = one_of(THINGS, ARRAYS[:2], [[0, 1, 2], [1, -2, 3], [1, math.nan, 3], [1, math.inf, 3], [1, 2], "123", 3])
NOT_SEEDS = one_of(THINGS, ARRAYS[:2], [[1], [1, 1], [1, -1], [1, 2**31], [1, 1.5], "12", 3])
NOT_FILES = one_of(things_but({"a": 1}), ["results.nc", [3], [None], [""], ["typo.nc"], 3])
NOT_CHOSEN = one_of(things_but({}), ARRAYS, [{8: "best"}, 3])
AT_ENDS = dict(split=NOT_A_SPLIT_NAME | st.just("train"))

# Modules of NNX and Equinox are not what makes them.
NOT_MODELS = [dict(a=1), (len,), (1, 2), nnx.Dropout(0.5), eqx.nn.Identity()]


def lacking_of(kind):
    """Returns a strategy of what lacks something that a kind of result needs."""
    needed = arguments.variables_of(make_result(), kind.variables)
    return lacking(*needed, attributes=kind.attributes) | (RATES_AS_WORDS if kind.numbers else NO_RESULT)


register(arguments.IsResult, lacking_of)
register(arguments.IsResults, lambda kind: lacking_of(kind.each) | one_of([{"a": 3}, {"": make_result(), "b": None}]))
register(pairs.SHARE, NOT_A_NUMBER | one_of([0, 1, -0.5, 80]))
register(core_arguments.IsModelLike, lambda kind: is_not() | one_of(NOT_MODELS))
register(arguments.IsTable, lambda kind: NOT_A_TABLE)
register(intervals.FRACTIONS, NOT_ACCURACIES)
register(arguments.SEVERAL_METRICS.kind, NOT_METRICS.filter(lambda value: value is not None))
register(targets.POSITIVE, NOT_FACTORS)
register(networks.LABELS, NOT_LABELS)
register(jm.merge.kinds["files"], NOT_FILES)
register(selection.SEVERAL, one_of(THINGS, ARRAYS, [{}, [], [{}], [3], "x", 3]))
register(selection.SETTING, one_of(THINGS, ARRAYS, [{}, [], [{}], [3], "x", 3]))
register(export.CSV, NOT_A_PATH | one_of([None, "x", "steps.txt", ".csv"]))
register(page.HTML, NOT_A_PATH | one_of([None, "x", "page.htm", ".html"]))
register(jm.rate_curve.kinds["chosen"], NOT_CHOSEN)
register(jm.noise_curve.kinds["critical_batch_size"].kind, NOT_A_NUMBER.filter(lambda value: value is not math.inf))
register(jm.training_curves.kinds["rows"], NOT_ROWS)
register(classifiers.IsClassifier, lambda kind: is_not() | st.just(params()))
register(classifiers.SEEDS, NOT_SEEDS)
CURVE = lacking("recorded_validation_accuracy", "diverged_step")
NO_METRIC = one_of(["mae", "accuracy ", "x"])
NO_SETTINGS = one_of([{"batch_size": 7}, [{"x": 1}], {"seed": 0}, pd.DataFrame({"a": [1]})])
NO_AXIS = one_of(["seed", "x", ""])

CASES = [
    *declared(jm.table, dict),
    *declared(jm.settings, with_result(), by=NO_METRIC),
    *declared(jm.ties, with_result(), by=NO_METRIC),
    *declared(jm.best, with_result(), by=NO_METRIC),
    *declared(jm.best_of_each, with_result(name="batch_size"), name=one_of(["seed", "x", ""])),
    *declared(jm.comparison, with_result(name="batch_size"), name=one_of(["seed", "x", ""]), result=RATES_AS_WORDS),
    *declared(jm.comparison_table, with_result(name="batch_size"), name=one_of(["seed", "x", ""])),
    *declared(
        jm.final_accuracies, lambda: dict(result=make_result().sel(batch_size=8)),
        result=RATES_AS_WORDS | calls([make_result]),
    ),
    *declared(jm.curve_table, with_result(), result=lacking("recorded_test_accuracy", "diverged_step")),
    *declared(jm.interval, lambda: dict(accuracies=[0.5, 0.6], num_images=10), kind=st.just("bootstrap")),
    *declared(jm.optimism, with_result(), by=NO_METRIC),
    *declared(
        jm.seeds_needed, with_result(a=dict(batch_size=8), b=dict(batch_size=16)), by=NO_METRIC,
        a=one_of([{"batch_size": 7}, {"seed": 0}]), b=one_of([{"batch_size": 7}, {"batch_size": 8}]),
    ),
    *declared(jm.tuning_curve, with_result(target=0.5), split=st.just("test"), by=NO_METRIC),
    *declared(jm.tuning_table, with_result(), by=NO_METRIC, result=RUN_WITH_PRUNING),
    *declared(jm.variance_table, lambda: dict(result=crossed([[[0.5, 0.6], [0.7, 0.8]]])), metric=NO_METRIC),
    *declared(jm.at_budget, with_result(budget="steps", amount=5), result=CURVE, metric=NO_METRIC),
    *declared(jm.steps_to_target, with_result(target=0.5), result=CURVE, metric=NO_METRIC),
    *declared(jm.default_target, with_result(), metric=NO_METRIC, result=CURVE | RUN_RESULTS),
    *declared(jm.target_table, with_result(target=0.5), result=CURVE | RUN_RESULTS),
    *declared(jm.best_rates, dict),
    *declared(jm.fit_scaling, lambda: dict(batch_sizes=[1, 2, 3], steps=[3, 2, 1])),
    *declared(jm.is_dead, dict),
    *declared(jm.refined, with_result(num_train=47), result=RATES_AS_WORDS),
    *declared(jm.widened, with_result(num_train=47), result=RATES_AS_WORDS),
    *declared(
        jm.heatmap, with_result(), split=st.just("train"), by=NO_METRIC, x=NO_AXIS, y=NO_AXIS, columns=NO_AXIS,
        rows=NO_AXIS,
    ),
    *declared(jm.slices, with_result(), split=st.just("train"), by=NO_METRIC),
    *declared(jm.parallel, with_result(), split=st.just("train"), by=NO_METRIC),
    *declared(jm.importance, with_result(), by=NO_METRIC),
    *declared(jm.importance_table, with_result(), by=NO_METRIC),
    *declared(
        jm.contrast, with_result(a=dict(batch_size=8), b=dict(batch_size=16)), split=st.just("train"), by=NO_METRIC,
        a=one_of([{"batch_size": 7}, {"seed": 0}]), b=one_of([{"batch_size": 7}, {"batch_size": 8}]),
    ),
    *declared(jm.scatter, with_result(), split=st.just("train")),
    *declared(jm.interactive, with_result(path="page.html"), by=NO_METRIC),
    *declared(jm.accuracy_curve, with_result(), result=lacking("recorded_test_accuracy")),
    *declared(jm.curves, with_result(splits=["test"]), result=lacking("recorded_test_loss"), settings=NO_SETTINGS),
    *declared(
        jm.rate_curve, with_result(by="batch_size", chosen={}), by=one_of(["x", "seed", "learning_rate"]),
        split=st.just("train"),
    ),
    *declared(jm.budget_maps, with_result(), by=NO_METRIC, result=CURVE | RUN_RESULTS),
    *declared(jm.target_maps, with_result(target=0.5), target=NOT_TARGET, result=CURVE | RUN_RESULTS),
    *declared(jm.report, with_result(target=0.5), target=NOT_TARGET.filter(lambda value: value is not None)),
    *declared(jm.figures, with_result(target=0.5), target=NOT_TARGET.filter(lambda value: value is not None)),
    *declared(
        jm.noise_curve,
        with_result(table=pd.DataFrame({"step": [1], "noise_scale": [2.0]}), critical_batch_size=None, setting="x"),
    ),
    *declared(
        jm.confusion, lambda: dict(labels=SPLIT.targets, predicted=SPLIT.targets, class_names=CLASS_NAMES, title="x")
    ),
    *declared(jm.mistakes, with_images(labels=SPLIT.targets, title="x"), images=NOT_IMAGES, probabilities=NOT_SHARES),
    *declared(
        jm.predictions, with_images(images=SPLIT.inputs[..., 0], names=list("abcdef")), probabilities=NOT_SHARES,
        names=st.just(["a"]),
    ),
    *declared(jm.filters, lambda: dict(kernel=np.ones((3, 3, 1, 2)), title="x"), kernel=NOT_A_KERNEL),
    *declared(jm.training_curves, lambda: dict(rows=[], title="x")),
    *declared(jm.save, with_result(folder="nowhere")),
    *declared(jm.to_csv, with_result(path="nowhere/steps.csv")),
    *declared(jm.to_optuna, with_result(), by=NO_METRIC),
    *declared(jm.load_results, dict, folder=st.just("nowhere")),
    *declared(jm.load_model, lambda: dict(folder="nowhere")),
    *declared(jm.merge, dict),
    *declared(jm.save_model, lambda: dict(folder="nowhere", classifier=classifier(), seeds=[0, 1])),
    *declared(jm.read_digit, dict),
    *declared(jm.read_digits, dict),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=repr)
@given(data=st.data())
@few
def test_bad_values_are_refused_by_name(case, data):
    value = data.draw(case.bad.map(Drawn)).value
    assert_refused(case.function, case.valid() | {case.name: value}, case.word or case.name)


def test_the_calls_of_the_table_work_with_good_values(tmp_path, monkeypatch):
    """Otherwise a refusal could be of something else."""
    monkeypatch.chdir(tmp_path)  # some write a file
    writing = (jm.save, jm.to_csv, jm.save_model, jm.load_model)
    cheap = [case for case in CASES if case.function not in writing]
    for case in {case.function: case for case in cheap}.values():
        if case.valid is not dict:
            case.function(**case.valid())
    for read in (jm.table, jm.settings, jm.ties, jm.best, jm.default_target, jm.is_dead, jm.budget_maps):
        read(make_result())
    jm.save(make_result(), tmp_path)
    assert jm.load_results(tmp_path).identical(make_result())

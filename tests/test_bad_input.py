"""What is trained, and with which numbers: bad values of every argument of every public function are refused."""

import functools
import inspect
import math

import numpy as np
import optax
import pytest
from bad_values import (
    ARRAYS,
    NOT_31_BITS,
    NOT_A_FLAG,
    NOT_A_NUMBER,
    NOT_A_PATH,
    NOT_A_SEED,
    NOT_CALLABLE,
    NOT_FROM_1,
    NOT_POSITIVE,
    NOT_SIZES,
    THINGS,
    Case,
    Drawn,
    assert_refused,
    bad,
    declared,
    few,
    is_not,
    named_functions,
    one_of,
    register,
    things_but,
)
from conftest import make_split
from hypothesis import given
from hypothesis import strategies as st
from results_for_tests import make_result
from test_bad_results import CASES as OF_RESULTS
from test_bad_results import NOT_MODELS, lacking

import jaxmnist as jm
from jaxmnist.analysis import noise
from jaxmnist.core import arguments
from jaxmnist.core.state import STATE
from jaxmnist.data import arrays
from jaxmnist.data.dataset import DATASET, INPUTS
from jaxmnist.data.dataset import SPLIT as SPLIT_KIND
from jaxmnist.sweeps import arguments as sweeps
from jaxmnist.sweeps import search

NAMES = ("a", "b", "c", "d")
SPLIT = make_split(47, 0)
TINY = jm.Dataset("tiny", NAMES, SPLIT, make_split(13, 1), make_split(23, 2))
MODEL, OPTIMIZER = jm.SoftmaxRegression(4), optax.sgd(0.1)
RUNS = jm.grid(learning_rate=[0.1, 0.2], batch_size=[4], seed=[0, 1])
# Dataclasses and the like, which hold what functions then check: their fields are in the cases of those.
CLASSES = {
    "Affine", "Batch", "CNN", "Classifier", "DataError", "Dataset", "DatasetUnavailable", "MLP", "Model",
    "SoftmaxRegression", "Split", "State",
}  # fmt: skip
MODULES = {"limits", "losses", "optimizers", "schedules"}


@functools.cache
def state():
    return jm.init_state(MODEL, OPTIMIZER, 0, SPLIT.inputs)


def make_batch(**more):
    return jm.Batch(SPLIT.inputs[:3], SPLIT.targets[:3], np.ones(3, np.float32))._replace(**more)


def step_arguments():
    return dict(model=MODEL, optimizer=OPTIMIZER, state=state(), batch=make_batch(), augment=None)


def fit_arguments():
    return dict(
        model=MODEL, optimizer=OPTIMIZER, state=state(), split=SPLIT, order=np.arange(8), batch_size=4, num_steps=2,
        padded_batch_size=5, augment=None,
    )  # fmt: skip


def sweep_arguments(**more):
    return dict(model=MODEL, optimizer=optax.sgd, runs=RUNS, dataset=TINY, num_steps=2) | more


def search_arguments():
    return dict(
        model=MODEL, optimizer=optax.sgd, space=dict(learning_rate=[0.1, 0.2], batch_size=4), dataset=TINY,
        num_rounds=1, batch=2, num_steps=2, seeds=[0], sampler="random",
    )  # fmt: skip


def check_arguments():
    return sweep_arguments(num_evaluations=1, record=())


def noise_arguments():
    return dict(model=MODEL, optimizer=OPTIMIZER, dataset=TINY, batch_size=4, seed=0, steps=[0, 1])


def batches_arguments():
    batches = jm.Split(SPLIT.inputs[:6].reshape(2, 3, 6, 5, 1), SPLIT.targets[:6].reshape(2, 3))
    return dict(model=MODEL, params=state().params, batches=batches)


def evaluate_arguments():
    return dict(model=MODEL, params=state().params, split=SPLIT, batch_size=5)


def altered_split(**more):
    return SPLIT._replace(**more)


def make_dataset(**more):
    return jm.Dataset(**dict(name="x", class_names=NAMES, train=SPLIT, validation=SPLIT, test=SPLIT) | more)


NOT_A_MODEL = is_not() | one_of(NOT_MODELS, [math.hypot])
NOT_INPUTS = one_of(THINGS, [np.zeros(0), np.zeros((0, 6, 5, 1)), SPLIT.inputs[:0], np.zeros(3, complex)])
NOT_OF_THE_SPLIT = NOT_INPUTS | one_of(ARRAYS, [SPLIT.inputs[0], np.full(SPLIT.inputs.shape, np.inf)])
NOT_TARGETS = one_of(THINGS, ARRAYS, [SPLIT.targets[:2], SPLIT.targets[:0], np.full(47, np.nan)])
NOT_LABELS = one_of([SPLIT.targets.astype(float), SPLIT.targets - 4, SPLIT.targets + 4, np.zeros((47, 4), int)])
NOT_A_SPLIT = one_of(THINGS, ARRAYS, [tuple(SPLIT), dict(SPLIT._asdict())]) | st.one_of(
    NOT_OF_THE_SPLIT.map(lambda inputs: altered_split(inputs=inputs)),
    NOT_TARGETS.map(lambda targets: altered_split(targets=targets)),
)
NOT_OF_CLASSES = NOT_LABELS.map(lambda targets: altered_split(targets=targets))
OTHER_IMAGES = make_split(5, 0, (7, 5, 1))
NOT_A_DATASET = st.one_of(
    one_of(THINGS, ARRAYS, [jm.Dataset, SPLIT]),
    (NOT_A_SPLIT | NOT_OF_CLASSES).map(lambda split: make_dataset(test=split)),
    one_of([make_dataset(validation=OTHER_IMAGES), make_dataset(class_names=("a",)), make_dataset(name=3)]),
    one_of(things_but(()), ["abcd", (1, 2, 3, 4)]).map(lambda names: make_dataset(class_names=names)),
)
NOT_PARAMS = one_of(THINGS, ARRAYS) | st.just({"Dense_0": {"kernel": np.zeros((4, 7)), "bias": np.zeros(4)}})
NOT_WEIGHTS = one_of(
    THINGS, ARRAYS[:2], [np.zeros(3, np.float32), np.ones(2, np.float32), np.array([1, np.nan, 1], np.float32)],
    [np.array([1, -1, 1], np.float32), np.ones(3, int), np.full(3, np.inf, np.float32)],
)  # fmt: skip
NOT_A_BATCH = one_of(THINGS, ARRAYS, [SPLIT, tuple(make_batch())]) | st.one_of(
    NOT_OF_THE_SPLIT.map(lambda inputs: make_batch(inputs=inputs)),
    NOT_TARGETS.map(lambda targets: make_batch(targets=targets)),
    NOT_WEIGHTS.map(lambda weights: make_batch(weights=weights)),
)
NOT_RUNS = one_of(THINGS, ARRAYS) | st.one_of(
    one_of(THINGS, ARRAYS[:2], [[math.nan], [1e39], [1j], [[1]], [10**400]]).map(
        lambda rates: {**RUNS, "learning_rate": rates}
    ),
    # A column may hold whole numbers as floats.
    NOT_FROM_1.filter(lambda size: not isinstance(size, np.floating)).map(
        lambda size: {**RUNS, "batch_size": [size] * 4}
    ),
    NOT_A_SEED.filter(lambda seed: not isinstance(seed, np.floating)).map(lambda seed: {**RUNS, "seed": [seed] * 4}),
    one_of([{"seed": [0]}, {"batch_size": [1]}, {1: [0], "seed": [0], "batch_size": [1]}, {**RUNS, "seed": [0]}]),
)
NOT_AN_AXIS = one_of(
    [object(), [], (), {}, 1j, [math.nan], [math.inf], [1e39], [10**400], [0.1, "a"], [0.1, True]],
    [[0.1, 0.1], [[0.1]], np.zeros(0), np.full(3, np.nan), [1, 2**64], [b"x"], [1j]],
)
NOT_OBJECTS = one_of([None, [None], np.array([None]), print, [(1, 2)]])
NOT_A_SPACE = NOT_AN_AXIS.map(lambda axis: {"learning_rate": axis, "batch_size": 4}) | one_of(
    THINGS, ARRAYS, [{1: [2]}, {"learning_rate": 0.1}, {"batch_size": 4, "seed": 0}]
)
NOT_ORDER = one_of(THINGS, ARRAYS[:2], [np.arange(7), np.arange(8.0), np.arange(40, 48), np.arange(-1, 7), [1] * 8])
NOT_MEMORY = one_of(things_but(None), [True, math.nan, math.inf, 0, -1, 1e4])
NOT_A_SHARD = one_of(things_but(None), [(0, 2), (3, 2), (1, 2, 3), [1, 2], (1.0, 2), 3])
NOT_RECORD = one_of(things_but([], ()), [("all",), ("test", "test"), 3, ["test", 3]])
NOT_A_CLUSTER = one_of(things_but(None, "x"), [3, True])
NOT_RESOURCES = one_of(
    things_but(None, {"a": 1}), [3, {"CPU": -1}, {"CPU": math.inf}, {"CPU": "1"}, {"CPU": 0}, {1: 1}]
)


NOT_RUNGS = NOT_SIZES.filter(lambda value: value is not None)
NOT_A_NAME = one_of(things_but(None, "x"), ["../mnist", "/etc", "a/../b", "MNIST", "a" * 5000, "a\0", "a\nb", "a\n", 3])


def cases(function, valid, **bad):
    words = {"runs": "runs|batch_size|seed|learning_rate"}
    return [Case(function, name, strategy, valid, words.get(name, "")) for name, strategy in bad.items()]


register(arguments.MODEL, NOT_A_MODEL)
register(sweeps.OPTIMIZER, NOT_CALLABLE | st.just(optax.sgd(0.1)))
register(arguments.AUGMENTATION.kind, NOT_CALLABLE | st.just(jm.Affine))
register(arguments.METRICS.kind, one_of(things_but(None, {}), ARRAYS[:2], [{"a b": len}, {"loss": len}, {"mae": 3}]))
register(arguments.DTYPE, is_not() | one_of(["float16", "int32", np.int64, int]))
register(arguments.ARRAYS, one_of([{"a": "x"}, [print], object(), "x", 1j, np.array(["x"])]))
register(arrays.ANY_ARRAY, st.none())
register(arguments.TRANSFORMATION, is_not() | st.just(optax.sgd))
register(arguments.PARAMS, NOT_PARAMS)
register(INPUTS, NOT_INPUTS)
register(arguments.ORDER, NOT_ORDER)
register(arguments.BATCH, NOT_A_BATCH)
register(STATE, is_not() | st.just(tuple(range(5))))
register(SPLIT_KIND, NOT_A_SPLIT)
register(DATASET, NOT_A_DATASET)
register(noise.IsBatches, lambda kind: NOT_A_SPLIT)
register(noise.ASCENDING_STEPS, NOT_SIZES | st.just([2**31]))

register(sweeps.RUNS, NOT_RUNS)
register(sweeps.CLUSTER.kind, NOT_A_CLUSTER)
register(sweeps.RESOURCES.kind, NOT_RESOURCES)
register(sweeps.SHARD.kind, NOT_A_SHARD)
register(sweeps.LIMIT, NOT_A_NUMBER.filter(lambda value: value is not math.inf) | one_of([0, 0.5, -1]))
register(jm.halve.kinds["rungs"].kind, NOT_RUNGS)
register(search.SPACE, NOT_A_SPACE)
register(search.STUDY.kind, is_not(None))
register(jm.plan.kinds["static"], NOT_RECORD)
register(
    jm.with_seeds.kinds["seeds"],
    one_of(THINGS, ARRAYS[:2], [3, [1, 1], [1.5], [-1], [2**31], [True], ["1"], "12", [math.nan], [10**400]]),
)

CASES = [
    *declared(
        jm.init_state, lambda: dict(model=MODEL, optimizer=OPTIMIZER, seed=0, inputs=SPLIT.inputs),
        model=one_of([jm.SoftmaxRegression(-1), jm.MLP(-3, 4), jm.CNN((2,), (3, 3)), jm.MLP("x")]),
    ),
    *declared(jm.train_step, step_arguments, batch=NOT_LABELS.map(lambda labels: make_batch(targets=labels[:3]))),
    *declared(
        jm.fit, fit_arguments, batch_size=NOT_31_BITS | st.integers(48), num_steps=st.just(2**30),
        padded_batch_size=st.integers(0, 3) | st.just(2**31), split=NOT_OF_CLASSES,
    ),
    # Not `declared`: without a model, parameters may be any floats.
    *cases(
        jm.evaluation_params, lambda: dict(opt_state=state().opt_state, params=state().params),
        opt_state=bad(arguments.ARRAYS), params=one_of(THINGS),
    ),
    *declared(jm.evaluate, evaluate_arguments, split=NOT_OF_CLASSES),
    *declared(jm.estimate_noise, batches_arguments),
    *declared(
        jm.from_arrays, lambda: dict(inputs=SPLIT.inputs, targets=SPLIT.targets),
        inputs=NOT_OF_THE_SPLIT
        | one_of([[[1], [1, 2]], np.full((47, 2), np.nan), np.ma.masked_less(np.arange(47), 1)]),
        targets=NOT_TARGETS | one_of([["a"] * 47, [[1], [1, 2]]]),
        class_names=st.just(["a"]), validation=st.just(0.9) | st.just(1e-6), test=st.just(0.95) | st.just(1e-6),
    ),
    *declared(jm.noise_scale_along_training, noise_arguments, batch_size=st.integers(48)),
    *declared(jm.example_order, lambda: dict(num_examples=5, seed=0, length=3)),
    *declared(jm.batches, lambda: dict(split=SPLIT, batch_size=4), batch_size=st.integers(48)),
    Case(jm.load, "name", NOT_A_NAME, dict, "dataset"),
    Case(jm.load, "data_dir", NOT_A_PATH, lambda: dict(name="digits")),
    Case(jm.load_or_digits, "name", NOT_A_NAME, dict, "dataset"),
    Case(jm.load_or_digits, "data_dir", NOT_A_PATH, lambda: dict(name="digits")),
    *declared(
        jm.rerun, lambda: dict(result=make_result(), learning_rate=0.1, batch_size=8, seed=0),
        result=lacking(attributes=("model_fields",)),
        learning_rate=NOT_A_NUMBER | one_of([0.3]), seed=NOT_A_NUMBER | one_of([7, -1]), speed=st.just(1),
    ),
    *declared(jm.check, check_arguments, num_evaluations=st.integers(3)),
    *declared(jm.sweep, lambda: sweep_arguments(progress=False), num_evaluations=st.integers(3), memory=st.just(1e4)),
    *declared(jm.estimate, sweep_arguments, num_evaluations=st.integers(3), memory=st.just(1e4)),
    *declared(
        jm.halve, lambda: sweep_arguments(factor=2), folder=NOT_A_PATH, wait=NOT_A_FLAG, progress=NOT_A_FLAG,
        memory=NOT_MEMORY, num_evaluations=st.just(2), shard=st.just((1, 2)), record=st.just(("test",)),
        rungs=NOT_RUNGS,
    ),
    *declared(
        jm.hyperband, lambda: sweep_arguments(factor=2, num_brackets=2), factor=one_of([3]), num_brackets=one_of([5]),
        num_evaluations=st.just(2), keep_states=st.just(True),
    ),
    *declared(
        jm.search, search_arguments, folder=NOT_A_PATH, wait=NOT_A_FLAG, progress=NOT_A_FLAG, memory=NOT_MEMORY,
        num_evaluations=st.just(3), shard=st.just((1, 2)), keep_states=st.just(True), by=st.just("mae"),
    ),
    *declared(
        jm.train_run,
        lambda: dict(
            model=MODEL, optimizer=OPTIMIZER, dataset=TINY, seed=0, batch_size=4, num_steps=2, evaluation_steps=1,
            folder="never",
        ),
    ),
    *declared(jm.check_cluster, lambda: dict(cluster="local", ray_resources={"CPU": 1})),
    *declared(jm.check_rungs, lambda: dict(num_steps=3, rungs=[1, 2]), rungs=one_of([[3], [0, 1], [2**31]])),
    *declared(jm.progress_bar, lambda: dict(title="work", total=1, enabled=False)),
    *declared(jm.plan, lambda: dict(runs=RUNS), static=NOT_RECORD),
    *cases(
        jm.grid, dict, learning_rate=NOT_AN_AXIS, batch_size=NOT_AN_AXIS | NOT_OBJECTS | one_of([True, "8"]),
        seed=NOT_AN_AXIS | NOT_OBJECTS,
    ),
    *cases(jm.sample, dict, learning_rate=NOT_AN_AXIS, seed=NOT_AN_AXIS | NOT_OBJECTS | one_of(["x", True])),
    *declared(jm.uniform, lambda: dict(low=0, high=1), low=st.floats(1), high=st.floats(max_value=0)),
    *declared(
        jm.loguniform, lambda: dict(low=0.1, high=1), low=NOT_POSITIVE | st.floats(1),
        high=NOT_POSITIVE | st.floats(max_value=0.1),
    ),
    # Not `declared`: these runs need no batch size, and must have no seed.
    *cases(
        jm.with_seeds, lambda: dict(runs=dict(learning_rate=[0.1]), seeds=[0]),
        runs=one_of(THINGS, ARRAYS, [RUNS, {"a": []}, {"a": [1], "b": [1, 2]}, {"a": 1}, {1: [2]}]),
        seeds=bad(jm.with_seeds.kinds["seeds"]),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=repr)
@given(data=st.data())
@few
def test_bad_values_are_refused_by_name(case, data):
    function = functools.partial(jm.sample, 3, 0) if case.function is jm.sample else case.function
    value = data.draw(case.bad.map(Drawn)).value
    assert_refused(function, case.valid() | {case.name: value}, case.word or case.name)


@given(num_runs=(NOT_FROM_1 | NOT_31_BITS).map(Drawn), seed=NOT_A_SEED.map(Drawn))
@few
def test_the_positional_arguments_of_samples_and_unions(num_runs, seed):
    num_runs, seed = num_runs.value, seed.value
    assert_refused(lambda: jm.sample(num_runs, 0, a=1), {}, "num_runs")
    assert_refused(lambda: jm.sample(3, seed, a=1), {}, "seed")
    assert_refused(lambda: jm.union(RUNS, num_runs), {}, "parts" if not isinstance(num_runs, dict) else "runs")


def test_every_public_function_is_in_the_table():
    functions = {name for name in jm.__all__ if inspect.isroutine(getattr(jm, name))}
    assert functions == named_functions([*CASES, *OF_RESULTS]) | {"union", "use_cores"}
    assert set(jm.__all__) - functions == CLASSES | MODULES


def test_every_argument_of_every_public_function_is_in_the_table():
    given_names = {(case.function.__name__, case.name) for case in [*CASES, *OF_RESULTS]}
    for name in set(jm.__all__) - CLASSES - MODULES - {"union", "grid", "sample"}:
        for argument, parameter in inspect.signature(getattr(jm, name)).parameters.items():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                assert (name, argument) in given_names, (name, argument)

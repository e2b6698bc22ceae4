import itertools

import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.sweeps.runs import check_runs


def test_grid_has_every_combination_the_last_axis_fastest():
    runs = jm.grid(learning_rate=[0.5, 0.1], batch_size=[4, 8], seed=range(3))
    rows = list(zip(*(runs[name].tolist() for name in runs), strict=True))
    assert rows == list(itertools.product([0.5, 0.1], [4, 8], range(3)))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (dict(), "at least one axis"),
        (dict(learning_rate=[]), "learning_rate is empty"),
        (dict(learning_rate=[0.1, 0.1]), "twice"),
        (dict(learning_rate=[0.1, float("nan")]), "learning_rate has the value nan"),
        (dict(learning_rate=[float("inf")]), "finite"),
        (dict(learning_rate=[0.1, "a"]), "learning_rate has the value 'a'"),
        (dict(learning_rate=[0.1, True]), "learning_rate has the value True"),
        (dict(learning_rate=[0.1, 1e39]), "beyond float32"),
        (dict(learning_rate=[0.1, 0.1 + 1e-10]), "as float32 too"),
        (dict(seed=[True]), "seed has the value True"),
        (dict(batch_size=["8"]), "batch_size has the value '8'"),
    ],
)
def test_grid_refuses(axes, words):
    with pytest.raises(ValueError, match=words):
        jm.grid(**axes)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (dict(seed=[0]), "batch_size is missing"),
        (dict(seed=[0], batch_size=[1, 2]), "one length"),
        (dict(seed=[0], batch_size=[0]), "batch_size 0 .* from 1 to the 47"),
        (dict(seed=[0], batch_size=[48]), "batch_size 48"),
        (dict(seed=[0], batch_size=[1.5]), "whole number"),
        (dict(seed=[-1], batch_size=[1]), "seed -1"),
        (dict(seed=[0], batch_size=[1], learning_rate=[np.inf]), "learning_rate has the value inf"),
        (dict(seed=[0], batch_size=[1], learning_rate=[1e39]), "learning_rate has the value 1e\\+39"),
        (dict(seed=[0], batch_size=[1], learning_rate=[1j]), "learning_rate has values of type complex128"),
        (dict(seed=[0], batch_size=["1"]), "batch_size '1' is not a whole number"),
        (
            dict(seed=[0, 1, 2], init_seed=[0, 0, 0], order_seed=[0, 0, 0], batch_size=[1, 1, 1]),
            "seed has 3 values and decides nothing, since init_seed and order_seed are both given",
        ),
    ],
)
def test_check_runs_refuses(runs, words):
    with pytest.raises(ValueError, match=words):
        check_runs(runs, 47)


def test_a_seed_that_decides_nothing_may_have_one_value():
    runs = jm.grid(init_seed=range(2), order_seed=4, batch_size=8)
    assert check_runs(runs, 47)["seed"].tolist() == [0, 0]
    assert check_runs({**runs, "seed": [5, 5]}, 47)["seed"].tolist() == [5, 5]


def test_axes_take_booleans_and_strings():
    runs = jm.grid(nesterov=[False, True], activation=["relu", "tanh"], hidden_size=8)
    assert runs["nesterov"].tolist() == [False, False, True, True] and runs["nesterov"].dtype == bool
    assert runs["activation"].tolist() == ["relu", "tanh", "relu", "tanh"] and runs["hidden_size"].dtype == np.int64


def test_a_sample_follows_its_distributions_and_repeats():
    axes = dict(learning_rate=jm.loguniform(1e-4, 1), momentum=jm.uniform(0.5, 1), batch_size=[8, 16], seed=3)
    runs = jm.sample(4000, 7, **axes)
    for name, again in jm.sample(4000, 7, **axes).items():
        np.testing.assert_array_equal(runs[name], again)
    logs = np.log10(runs["learning_rate"])
    # A uniform variable on [-4, 0] has mean -2 and standard deviation 4 / sqrt(12); the errors are of 4,000 draws.
    assert logs.min() >= -4 and logs.max() <= 0 and abs(logs.mean() + 2) < 4 * 4 / 12**0.5 / 4000**0.5
    assert abs(logs.std() - 4 / 12**0.5) < 0.05
    assert abs(runs["momentum"].mean() - 0.75) < 0.01 and set(runs["seed"]) == {3}
    assert abs((runs["batch_size"] == 8).mean() - 0.5) < 4 * 0.5 / 4000**0.5
    assert abs(np.corrcoef(logs, runs["momentum"])[0, 1]) < 4 / 4000**0.5


def test_an_axis_more_leaves_the_others_draws_alone():
    few = jm.sample(20, 0, learning_rate=jm.loguniform(1e-4, 1))
    more = jm.sample(20, 0, momentum=jm.uniform(0, 1), learning_rate=jm.loguniform(1e-4, 1))
    np.testing.assert_array_equal(few["learning_rate"], more["learning_rate"])
    assert (jm.sample(20, 1, learning_rate=jm.loguniform(1e-4, 1))["learning_rate"] != few["learning_rate"]).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jm.sample(0, 0, learning_rate=0.1), "num_runs is 0"),
        (lambda: jm.sample(2.5, 0, learning_rate=0.1), "num_runs is 2.5"),
        (lambda: jm.sample(3, -1, learning_rate=0.1), "seed is -1"),
        (lambda: jm.sample(3, 0), "at least one axis"),
        (lambda: jm.sample(3, 0, learning_rate=[]), "learning_rate is empty"),
        (lambda: jm.loguniform(0, 1), "above 0"),
        (lambda: jm.loguniform(1, 0.5), "lower one first"),
        (lambda: jm.uniform(0, float("inf")), "finite"),
        (lambda: jm.union(), "at least one"),
        (lambda: jm.union(jm.grid(a=1), jm.grid(b=1)), "cannot be united"),
        (lambda: jm.with_seeds(jm.grid(a=1, seed=0), [1]), "have a seed already"),
    ],
)
def test_what_makes_no_runs_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_union_has_each_run_once_in_order():
    runs = jm.union(jm.grid(a=[1, 2], b=[5.0, 6.0]), jm.grid(b=[6.0, 7.0], a=[2, 3]))
    rows = list(zip(runs["a"].tolist(), runs["b"].tolist(), strict=True))
    assert rows == [(1, 5.0), (1, 6.0), (2, 5.0), (2, 6.0), (3, 6.0), (2, 7.0), (3, 7.0)]


def test_with_seeds_pairs_every_setting_with_every_seed():
    runs = jm.with_seeds(jm.sample(3, 0, learning_rate=jm.uniform(0, 1)), range(2))
    assert runs["seed"].tolist() == [0, 1] * 3
    assert (runs["learning_rate"][::2] == runs["learning_rate"][1::2]).all() and len(set(runs["learning_rate"])) == 3

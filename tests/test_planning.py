import itertools

import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist import planning


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
        (dict(learning_rate=["a"]), "finite"),
        (dict(nesterov=[True]), "nesterov has the value True"),
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
    ],
)
def test_check_runs_refuses(runs, words):
    with pytest.raises(ValueError, match=words):
        planning.check_runs(runs, 47)


def test_the_original_grid_is_one_program():
    runs = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0, 0.2, 0.4, 0.6, 0.8], seed=range(8))
    (program,) = jm.plan(runs)
    assert program.padded_batch_size == 80 and program.rows.shape == (32, 5)
    assert planning.padding([program]) == pytest.approx(1.6)


def test_every_run_is_in_one_program_and_in_the_group_of_its_values():
    generator = np.random.default_rng(0)
    runs = dict(batch_size=generator.integers(1, 200, 60), seed=generator.integers(0, 3, 60), learning_rate=np.ones(60))
    programs = jm.plan(runs)
    assert sorted(np.concatenate([program.rows.ravel() for program in programs])) == list(range(60))
    for program in programs:
        assert (runs["batch_size"][program.rows] == program.batch_size[:, None]).all()
        assert (runs["seed"][program.rows] == program.seed[:, None]).all()
        assert program.batch_size.max() == program.padded_batch_size


def test_merge_finds_the_fewest_slices_and_the_least_work():
    generator = np.random.default_rng(0)
    for _ in range(30):
        sizes = sorted(generator.choice(np.arange(1, 400), generator.integers(1, 8), replace=False).tolist())

        def work(cuts, sizes=sizes):
            edges = [0, *cuts, len(sizes)]
            return sum((b - a) * sizes[b - 1] for a, b in itertools.pairwise(edges))

        feasible = [
            (len(cuts), work(cuts))
            for count in range(len(sizes))
            for cuts in itertools.combinations(range(1, len(sizes)), count)
            if work(cuts) <= 2 * sum(sizes)
        ]
        slices = planning.merge(sizes, 2.0)
        assert (len(slices) - 1, work([start for start, _ in slices[1:]])) == min(feasible)

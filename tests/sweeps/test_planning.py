import itertools

import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.sweeps import planning


def test_the_original_grid_is_one_program():
    runs = jm.grid(batch_size=[20, 40, 60, 80], learning_rate=[0, 0.2, 0.4, 0.6, 0.8], seed=range(8))
    (program,) = jm.plan(runs)
    assert program.padded_batch_sizes == (80,) and program.rows.shape == (32, 5)
    assert planning.padding([program]) == pytest.approx(1.6)
    (program,) = jm.plan(runs, max_padding=1.25, mixed=True)
    assert program.padded_batch_sizes == (40, 80) and program.rows.shape == (32, 5)
    assert planning.padding([program]) == pytest.approx(1.2)


@pytest.mark.parametrize("num_devices", [1, 2, 3])
def test_devices_get_equal_work_of_mixed_sizes(num_devices):
    runs = jm.grid(batch_size=[10, 20, 30, 40, 50, 60], learning_rate=[0.1, 0.2], seed=0)
    (program,) = jm.plan(runs, num_devices=num_devices, max_padding=1, mixed=True)
    assert program.padded_batch_sizes == (10, 20, 30, 40, 50, 60) and program.at_once == 1
    shares = program.batch_size.reshape(num_devices, -1).sum(axis=1)
    assert shares.sum() == 210 and np.ptp(shares) <= 10


def test_groups_that_train_at_once_are_padded_alike():
    runs = jm.grid(batch_size=[10, 40], learning_rate=[0.1, 0.2], seed=range(6))
    (program,) = jm.plan(runs, num_devices=2, max_padding=1, mixed=True)
    assert program.padded_batch_sizes == (10, 40) and program.at_once == 3
    assert planning.padding([program]) == 1
    (program,) = jm.plan(runs, num_devices=2, max_padding=1.6, mixed=True)
    assert program.padded_batch_sizes == (40,) and program.at_once == 6
    assert planning.padding([program]) == 1.6


def test_programs_without_room_are_equal_and_each_has_small_and_large_batches():
    runs = jm.grid(batch_size=[10, 20, 30, 40], learning_rate=range(5), seed=range(4))
    programs = jm.plan(runs, num_devices=2, max_runs=10, max_padding=1.25, mixed=True)
    assert len(programs) == 4
    assert {(program.padded_batch_sizes, program.at_once, program.rows.shape) for program in programs} == {
        (programs[0].padded_batch_sizes, programs[0].at_once, (4, 5))
    }
    assert {tuple(sorted(program.batch_size)) for program in programs} == {(10, 20, 30, 40)}


def test_every_run_is_in_one_program_and_in_the_group_of_its_values():
    generator = np.random.default_rng(0)
    runs = dict(batch_size=generator.integers(1, 200, 60), seed=generator.integers(0, 3, 60), learning_rate=np.ones(60))
    programs = jm.plan(runs)
    assert set(np.concatenate([program.rows.ravel() for program in programs])) == set(range(60))
    for program in programs:
        assert (runs["batch_size"][program.rows] == program.batch_size[:, None]).all()
        assert (runs["seed"][program.rows] == program.seed[:, None]).all()
        assert program.padded_batch_sizes == (program.batch_size.max(),)


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
        slices = planning.merge(sizes, 2.0 * sum(sizes))
        assert (len(slices) - 1, work([start for start, _ in slices[1:]])) == min(feasible)


def check_plan(runs, programs, max_runs, static=()):
    rows = [program.rows.ravel() for program in programs]
    assert set(np.concatenate(rows)) == set(range(len(runs["seed"])))
    for program in programs:
        assert program.rows.size <= max(max_runs, 1)
        assert (runs["batch_size"][program.rows] == program.batch_size[:, None]).all()
        assert (runs["seed"][program.rows] == program.seed[:, None]).all()
        assert program.batch_size.max() <= program.padded_batch_sizes[-1]
        for name, value in program.static:
            assert (runs[name][program.rows] == value).all()
        assert tuple(name for name, _ in program.static) == tuple(static)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("max_runs", [1, 7, 40, 1000])
def test_mixed_programs_hold_every_run_within_their_room(max_runs, num_devices):
    generator = np.random.default_rng(max_runs)
    for num_sizes, num_runs in ((1, 26), (5, 125), (90, 150)):
        sizes, seeds = generator.integers(1, num_sizes + 1, num_runs), generator.integers(0, 5, num_runs)
        runs = dict(batch_size=sizes, seed=seeds, learning_rate=np.arange(num_runs))
        programs = jm.plan(runs, max_runs=max_runs, max_group=4, num_devices=num_devices, max_padding=1.25, mixed=True)
        check_plan(runs, programs, max_runs * num_devices)
        assert len({program.padded_batch_sizes for program in programs}) == 1
        kinds = {(program.at_once, program.rows.shape) for program in programs}
        assert len(kinds) == len({program.rows.shape for program in programs}) <= 2
        for at_once, (num_groups, _) in kinds:
            assert num_groups % (num_devices * at_once) == 0


@pytest.mark.parametrize("num_groups", [13, 17, 26, 127])
def test_many_groups_never_train_one_by_one(num_groups):
    runs = jm.grid(batch_size=8, seed=range(num_groups), learning_rate=[0.1, 0.2])
    (program,) = jm.plan(runs, max_group=2, mixed=True)
    assert any(len(program.rows) % some == 0 for some in range(4, 9)) and len(program.rows) <= num_groups + 2


@pytest.mark.parametrize("max_runs", [1, 7, 64, 1000])
def test_no_program_has_more_runs_than_there_is_room_for(max_runs):
    runs = jm.grid(learning_rate=range(10), batch_size=[8, 16, 100], seed=range(4))
    programs = jm.plan(runs, max_runs=max_runs)
    check_plan(runs, programs, max_runs)
    assert planning.padding(programs) <= 2
    # Equal programs of a batch size share a compilation.
    assert len({(program.padded_batch_sizes, program.at_once, program.rows.shape) for program in programs}) <= 3


def test_values_that_programs_are_built_with_make_programs_of_their_own():
    runs = jm.grid(hidden_size=[8, 16], nesterov=[False, True], learning_rate=[0.1, 0.2], batch_size=[4], seed=0)
    programs = jm.plan(runs, static=("hidden_size", "nesterov"))
    assert len(programs) == 4
    check_plan(runs, programs, 16, ("hidden_size", "nesterov"))


def test_samples_share_batches_as_far_as_that_pays():
    generator = np.random.default_rng(0)
    for sizes in ([16, 32, 64], range(1, 60)):
        runs = dict(batch_size=generator.choice(sizes, 500), seed=np.zeros(500, int), learning_rate=np.ones(500))
        programs = jm.plan(runs)
        check_plan(runs, programs, 600)
        assert planning.padding(programs) <= 2.1
        assert len({(program.padded_batch_sizes, program.at_once, program.rows.shape) for program in programs}) <= 6
    assert jm.plan(dict(batch_size=np.full(9, 4), seed=np.zeros(9, int)))[0].rows.shape == (1, 9)


def test_devices_have_work_even_where_all_runs_share_their_batches():
    runs = jm.grid(learning_rate=range(8), batch_size=4, seed=0)
    (program,) = jm.plan(runs, num_devices=4)
    assert program.rows.shape == (4, 2)
    (program,) = jm.plan(jm.grid(learning_rate=range(9), batch_size=4, seed=0), num_devices=4)
    assert len(program.rows) >= 3 and program.rows.size <= 12


def test_filled_programs_repeat_their_last_group():
    (program,) = jm.plan(jm.grid(learning_rate=[1, 2], batch_size=[4, 8, 16], seed=0))
    filled = planning.filled(program, 4)
    assert filled.rows.shape == (4, 2) and (filled.rows[3] == program.rows[2]).all()
    assert planning.filled(program, 3).rows.shape == (3, 2)
    assert planning.useful_examples(filled) == planning.useful_examples(program) == 2 * 28


def test_shards_are_all_of_the_programs():
    runs = jm.grid(learning_rate=range(10), batch_size=[8, 100], seed=range(4))
    programs = jm.plan(runs, max_runs=10)
    parts = [planning.shard(programs, part, 3) for part in (1, 2, 3)]
    assert sum(map(len, parts)) == len(programs) == 8
    assert set().union(*({program.rows.tobytes() for program in part} for part in parts)) == {
        program.rows.tobytes() for program in programs
    }
    for part, words in (((0, 3), "does not exist"), ((4, 3), "does not exist"), ((2, 9), "divides into 8 programs")):
        with pytest.raises(ValueError, match=words):
            planning.shard(programs, *part)
    assert planning.fingerprint(programs) != planning.fingerprint(programs[::-1])

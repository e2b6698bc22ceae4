"""The one shape that the programs of all rounds of a search have."""

from collections import defaultdict

import numpy as np
import pytest
from test_planning import check_plan

import jaxmnist as jm
from jaxmnist.sweeps import layout
from jaxmnist.sweeps.layout import Layout, layout_of


def rounds(sizes, num_seeds, counts):
    """Returns the runs of a round in which each batch size occurs so often."""
    batch_size = np.repeat(sizes, counts)
    return jm.with_seeds(dict(batch_size=batch_size, learning_rate=np.arange(float(len(batch_size)))), range(num_seeds))


def test_the_layout_of_a_search():
    # 16 is padded to 32, which costs 16 of 240 examples; at worst, 3 of 4 sizes have a setting besides whole groups.
    assert layout_of([16, 64, 32, 128], 64, 2) == Layout((32, 64, 128), 8, 2 * (7 + 4))
    assert layout_of([16], 64, 2) is None
    assert layout_of([4, 8], 1, 3) == Layout((4, 8), 1, 3)


@pytest.mark.parametrize("num_devices", [1, 2, 3])
def test_every_round_has_the_same_shape(num_devices):
    generator = np.random.default_rng(num_devices)
    for num_sizes, num_settings, num_seeds in ((2, 8, 1), (4, 64, 2), (5, 23, 3)):
        sizes = 8 * 2 ** np.arange(num_sizes)
        shared = layout_of(sizes.tolist(), num_settings, num_seeds)
        spreads = [*generator.multinomial(num_settings, generator.dirichlet(np.full(num_sizes, 0.5), 20))]
        spreads += [np.eye(num_sizes, dtype=int)[-1] * num_settings]
        # As many settings besides whole groups as there can be.
        ones = np.ones(num_sizes, int)
        ones[0] += num_settings - num_sizes
        shapes = defaultdict(set)
        for counts in (*spreads, ones):
            runs = rounds(sizes, num_seeds, counts)
            for room, longest in ((10_000, 10_000), (2 * shared.group_length, 10_000), (7, 3), (1, 1)):
                programs = layout.plan(runs, shared, room, longest, num_devices)
                check_plan(runs, programs, room * num_devices)
                shapes[room] |= {(each.rows.shape, each.padded_batch_sizes, each.at_once) for each in programs}
        for found in shapes.values():
            ((shape, _, _),) = found
            assert shape[0] % num_devices == 0


def test_a_round_that_does_not_fit_is_planned_by_itself():
    shared = layout_of([8, 16], 16, 2)
    fitting = rounds([8, 16], 2, [7, 9])
    (program,) = layout.plan(fitting, shared, 10_000, 10_000, 1)
    assert program.rows.size == shared.group_length * shared.num_groups
    for other in (rounds([8, 17], 2, [7, 9]), rounds([8, 16], 2, [16, 16]), rounds([8, 16], 2, [1, 1])):
        assert layout.plan(other, shared, 10_000, 10_000, 1) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "[[1], 2]", "[[2, 1], 1, 1]", "[[], 0, 1]", "[[1], 1.5, 1]", "[1, 1, 1]", 7]
)
def test_a_layout_that_a_result_does_not_have(text):
    assert layout.read(layout.written(Layout((4, 8), 2, 6))) == Layout((4, 8), 2, 6)
    with pytest.raises(
        ValueError, match=r"^layout of this result is .*; batch sizes and two numbers of runs are needed"
    ):
        layout.read(text)

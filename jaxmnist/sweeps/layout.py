"""One shape for the programs of all rounds of a search, so that they are compiled once.

Shapes: N settings of a round, S seeds, G groups of a program, P runs of each group.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmnist.checks import is_whole, shown
from jaxmnist.limits import MAX_RUNS
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.planned import Program
from jaxmnist.sweeps.runs import Runs

# A compromise: large groups draw their batches seldom, small ones are filled with few repeated runs.
GROUPS_OF_EACH = 2
# Batch sizes that occur equally often are padded by at most this factor.
MAX_PADDING = 1.25
# A round whose shape would repeat more of its work than this is planned by itself.
MAX_REPEATED = 2.0


class Layout(NamedTuple):
    """Room for the settings of a round, however their batch sizes are spread.

    Attributes:
      padded_batch_sizes: ascending; each is compiled.
      group_length: P, or less if that many runs do not stay in a cache.
      num_groups: how many such groups a round has at most; where they do not fit into one program, it has several.
    """

    padded_batch_sizes: tuple[int, ...]
    group_length: int
    num_groups: int


def layout_of(batch_sizes: Sequence[int], num_settings: int, num_seeds: int) -> Layout | None:
    """Returns the layout of rounds of N settings with these batch sizes; None for one size, which needs none."""
    sizes = sorted(set(batch_sizes))
    if len(sizes) == 1:
        return None
    length = math.ceil(num_settings / (GROUPS_OF_EACH * len(sizes)))
    # At worst, all sizes but one have a single setting more than whole groups.
    most = min((num_settings - len(sizes)) // length + len(sizes), num_settings)
    slices = planning.merge(sizes, MAX_PADDING * sum(sizes))
    return Layout(tuple(sizes[stop - 1] for _, stop in slices), length, num_seeds * most)


def plan(runs: Runs, layout: Layout, max_runs: float, max_group: float, num_devices: int) -> list[Program] | None:
    """Returns the programs of a round, all of one shape; None if it does not fit the layout, or would repeat too much.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed`.
      layout: that of the search.
      max_runs: as in `planning.plan`.
      max_group: as in `planning.plan`.
      num_devices: as in `planning.plan`.
    """
    length = max(int(min(layout.group_length, max_group, max_runs)), 1)
    # As many programs of one shape as a round needs at most; each round has those that it needs.
    most = math.ceil(layout.num_groups * math.ceil(layout.group_length / length) / num_devices)
    per_device = math.ceil(most / math.ceil(most / max(int(min(max_runs, MAX_RUNS)) // length, 1)))
    groups = planning.cut(planning.streams(runs, range(len(runs["seed"]))), length)
    size = per_device * num_devices
    num_programs = math.ceil(len(groups) / size)
    repeats = num_programs * size * length > MAX_REPEATED * len(runs["seed"])
    if repeats or len(groups) > most * num_devices or np.max(runs["batch_size"]) > layout.padded_batch_sizes[-1]:
        return None
    filled = groups[:1] * (num_programs * size - len(groups)) + groups
    parts = (filled[start : start + size] for start in range(0, len(filled), size))
    return [planning.program_of(part, layout.padded_batch_sizes, num_devices) for part in parts]


def written(layout: Layout) -> str:
    """Returns a layout as results hold it."""
    return json.dumps(layout)


def read(text: Any) -> Layout:
    """Returns the layout that a result holds.

    Raises:
      ValueError: `written` did not write the text.
    """
    try:
        sizes, length, count = json.loads(text)
        numbers = (length, count, *sizes)
        is_layout = all(is_whole(number) and 1 <= number <= MAX_RUNS for number in numbers) and sizes == sorted(sizes)
    except (TypeError, ValueError, RecursionError):
        is_layout = False
    if not is_layout:
        raise ValueError(f"layout of this result is {shown(text)}; batch sizes and two numbers of runs are needed")
    return Layout(tuple(sizes), length, count)

"""From runs to the fewest padded programs, none larger than there is room for.

Shapes: R runs, G groups of a program, P runs of each group.
"""

import functools
import itertools
import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmnist import arguments
from jaxmnist.runs import Runs, Value, check_runs, hyperparameter_names

MAX_PADDING = 2.0
# What drawing a batch costs, in runs that train on it; measured on CPU with softmax regressions.
DRAWING_COST = 7
# Work done twice, to spare a compilation, is at most this share.
MAX_REPEATED = 1 / 8
MANY = 2**62
Static = tuple[tuple[str, Value], ...]


class Program(NamedTuple):
    """Runs that train together, as a `vmap` over groups of a `vmap` over the runs of a group.

    The runs of a group share batch size and seed, and with them every batch; this is what makes a sweep fast.

    Attributes:
      padded_batch_size: at least the largest batch size of the program.
      batch_size: `[G]` int.
      seed: `[G]` int.
      rows: `[G, P]` int, which runs these are. Where runs do not fill a group, or groups a program, the last is
        repeated, and does the same work again.
      static: hyperparameters whose values the program is built with, the same for all of its runs.
    """

    padded_batch_size: int
    batch_size: np.ndarray
    seed: np.ndarray
    rows: np.ndarray
    static: Static = ()


def plan(
    runs: Runs,
    *,
    static: Sequence[str] = (),
    max_runs: float = math.inf,
    max_group: float = math.inf,
    num_devices: int = 1,
    max_padding: float = MAX_PADDING,
) -> list[Program]:
    """Returns programs that hold every run, with as few compilations as padding and room allow.

    Batch sizes that lie next to each other are padded to the largest of them, as few slices of them as keep the padded
    work at most `max_padding` times the useful work; a slice that has no room in one program is cut into equal ones,
    which are compiled once. Work is counted in examples per step.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed`.
      static: names that make programs of their own for each of their values.
      max_runs: how many runs one program has room for, on one device; a single group of one run always has.
      max_group: how many runs of a group work well together.
      num_devices: the groups of a program are divisible by this.
      max_padding: at least 1. What is done twice to make programs of a slice equal comes on top of it.

    Raises:
      ValueError: a number is out of range, or the runs have no such names.
    """
    arrays = check_runs(runs, arguments.MAX_STEPS)
    arguments.choices("static", static, hyperparameter_names(arrays), least=0)
    arguments.whole("num_devices", num_devices, 1)
    for name, value in (("max_runs", max_runs), ("max_group", max_group), ("max_padding", max_padding)):
        if not (isinstance(value, float) and value == math.inf):
            arguments.number(name, value, "a number from 1 on", lambda number: number >= 1)
    most = max(int(min(max_runs, MANY)), 1)
    longest = max(int(min(max_group, most)), 1)
    parts = defaultdict(list)
    columns = [np.asarray(runs[name]).tolist() for name in static]
    for row, values in enumerate(zip(*columns, strict=True) if static else [()] * len(runs["seed"])):
        parts[values].append(row)
    programs = []
    for values, rows in parts.items():
        programs += _plan_part(
            runs, rows, most, longest, num_devices, max_padding, tuple(zip(static, values, strict=True))
        )
    return programs


def _plan_part(runs, rows, max_runs, longest, num_devices, max_padding, static: Static) -> list[Program]:
    """Returns the programs of runs that are built alike."""
    by_stream = defaultdict(list)
    for row in rows:
        by_stream[int(runs["batch_size"][row]), int(runs["seed"][row])].append(row)
    streams = sorted(by_stream.items())
    counts = [(batch_size, len(members)) for (batch_size, _), members in streams]
    length = _group_length(counts, longest, num_devices, max_padding)
    groups = [
        (batch_size, seed, _filled(members[start : start + length], length))
        for (batch_size, seed), members in streams
        for start in range(0, len(members), length)
    ]
    useful = sum(batch_size * count for batch_size, count in counts) / length
    batch_sizes = [batch_size for batch_size, _, _ in groups]
    programs = []
    for start, stop in merge(batch_sizes, max_padding * useful):
        # Equal numbers of groups, so that one compilation serves all programs of a slice.
        room = max(max_runs // length, 1) * num_devices
        num_programs = math.ceil((stop - start) / room)
        size = math.ceil((stop - start) / num_programs / num_devices) * num_devices
        repeats = num_programs * size - (stop - start) <= MAX_REPEATED * (stop - start)
        for first in range(start, stop, size):
            members = groups[first : min(first + size, stop)]
            sizes, seeds, of_group = (
                np.array(column) for column in zip(*(_filled(members, size) if repeats else members), strict=True)
            )
            programs.append(Program(batch_sizes[stop - 1], sizes, seeds, of_group, static))
    return programs


def _filled(members: list, size: int) -> list:
    return members + members[-1:] * (size - len(members))


def _group_length(streams: list[tuple[int, int]], longest: int, num_devices: int, max_padding: float) -> int:
    """Returns P: how many runs of a stream train together, given each stream's batch size and number of runs.

    That is what makes the work least, where a group draws its batch once for all of its runs. Half of the padding that
    is allowed, on a logarithmic scale, is left to batch sizes.
    """
    total = sum(count for _, count in streams)
    # Streams are cut where whole ones would leave devices idle.
    most = min(max(count for _, count in streams), longest, math.ceil(total / num_devices))
    cuts = {math.ceil(count / parts) for _, count in streams for parts in range(1, math.ceil(count / most) + 3)}
    lengths = sorted(length for length in cuts | {1, most} if length <= most)

    def work(length, overhead):
        return sum(batch_size * math.ceil(count / length) * (length + overhead) for batch_size, count in streams)

    allowed = [length for length in lengths if work(length, 0) <= max_padding**0.5 * work(1, 0)]
    return min(allowed, key=lambda length: (work(length, DRAWING_COST), -length))


def merge(batch_sizes: list[int], limit: float) -> list[tuple[int, int]]:
    """Returns the fewest slices of ascending batch sizes whose padded sum is at most `limit`.

    Among as many slices, those of the least padded sum. Where none is within the limit, those of no padding.
    """
    ends = [0] + [i for i in range(1, len(batch_sizes)) if batch_sizes[i] != batch_sizes[i - 1]] + [len(batch_sizes)]

    @functools.cache
    def best(first: int, num_slices: int) -> tuple[float, tuple[int, ...]]:
        """Returns the least padded sum of what begins at `ends[first]`, and where its slices begin."""
        if num_slices == 0:
            return (0.0 if first == len(ends) - 1 else math.inf), (ends[first],)
        options: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())]
        for last in range(first + 1, len(ends)):
            rest, starts = best(last, num_slices - 1)
            padded = (ends[last] - ends[first]) * batch_sizes[ends[last] - 1]
            options.append((padded + rest, (ends[first], *starts)))
        return min(options)

    for num_slices in range(1, len(ends)):
        padded, starts = best(0, num_slices)
        if padded <= limit:
            break
    return list(itertools.pairwise(starts))


def filled(program: Program, multiple: int) -> Program:
    """Returns the program with its last group repeated until the number of groups is divisible by `multiple`."""
    groups = np.minimum(np.arange(-(-len(program.seed) // multiple) * multiple), len(program.seed) - 1)
    return program._replace(batch_size=program.batch_size[groups], seed=program.seed[groups], rows=program.rows[groups])


def shard(programs: list[Program], part: int, num_parts: int) -> list[Program]:
    """Returns every `num_parts`-th program, from the one numbered `part` (from 1) on.

    Raises:
      ValueError: there is no such part, or nothing in it.
    """
    if not 1 <= part <= num_parts:
        raise ValueError(f"shard {part}/{num_parts} does not exist; the first number is from 1 to the second")
    if part > len(programs):
        raise ValueError(f"shard {part}/{num_parts} is empty: the sweep has {len(programs)} programs")
    return programs[part - 1 :: num_parts]


def hold_the_same(some: list[Program], others: list[Program]) -> bool:
    """Returns whether two plans train the same runs, each with the same batch size, seed and static values."""
    held = []
    for programs in (some, others):
        runs = set()
        for program in programs:
            if not program.rows.shape[:1] == program.batch_size.shape == program.seed.shape or program.rows.ndim != 2:
                return False
            if program.padded_batch_size < program.batch_size.max(initial=1):
                return False
            columns = np.broadcast_arrays(program.rows.T, program.batch_size, program.seed)
            runs |= {
                (*run, program.static) for run in zip(*(column.ravel().tolist() for column in columns), strict=True)
            }
        held.append(runs)
    return held[0] == held[1]


def fingerprint(programs: list[Program]) -> int:
    """Returns a number that differs between plans."""
    crc = 0
    for program in programs:
        crc = zlib.crc32(repr((program.padded_batch_size, program.static)).encode(), crc)
        crc = zlib.crc32(program.rows.astype(np.int64).tobytes(), crc)
    return crc


def padding(programs: list[Program]) -> float:
    """Returns padded over useful work of a plan, at least 1; each run counts once."""
    padded = sum(program.rows.size * program.padded_batch_size for program in programs)
    return padded / sum(useful_examples(program) for program in programs)


def useful_examples(program: Program) -> float:
    """Returns the examples per step of the runs of a program, each counted once."""
    batch_sizes = np.broadcast_to(program.batch_size[:, None], program.rows.shape).ravel()
    _, first = np.unique(program.rows, return_index=True)
    return float(batch_sizes[first].sum())

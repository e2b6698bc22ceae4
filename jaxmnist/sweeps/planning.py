"""From runs to the fewest padded programs that fit into memory, and from steps to segments.

Shapes: R runs, G groups of a program, P runs of each group.
"""

import functools
import itertools
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from jaxmnist.checks import FLAG, Choices, Where, Whole, checked_by, is_sequence
from jaxmnist.limits import MAX_STEPS
from jaxmnist.sweeps.arguments import LIMIT, RUNS
from jaxmnist.sweeps.planned import Program, Static
from jaxmnist.sweeps.runs import Runs, check_runs, hyperparameter_names

MAX_PADDING = 2.0
# Drawing a batch costs as much as training this many runs on it; measured on CPU with softmax regressions.
DRAWING_COST = 7
# At most this share of the work is repeated to save a compilation.
MAX_REPEATED = 1 / 8
# More groups of a device than this are made divisible by one of these, by repeating the smallest.
MANY_GROUPS, SOME_AT_ONCE = 12, (4, 5, 6, 7, 8)
MANY = 2**62
# A segment lasts at least 50 ms on CPU (several times as long for convolutions, whose operations are undercounted), and
# long work has at least this many.
SEGMENT_FLOPS, LONG_SEGMENTS = 1e10, 10
MAX_SEGMENT_STEPS = 500


def _check_plan(given: SimpleNamespace) -> None:
    arrays = check_runs(given.runs, MAX_STEPS)
    Choices(tuple(hyperparameter_names(arrays)), least=0).check("static", given.static)


@checked_by(
    _check_plan, runs=RUNS, static=Where("a sequence of names", is_sequence), max_runs=LIMIT, max_group=LIMIT,
    num_devices=Whole(1), max_padding=LIMIT, mixed=FLAG,
)  # fmt: skip
def plan(
    runs: Runs,
    *,
    static: Sequence[str] = (),
    max_runs: float = math.inf,
    max_group: float = math.inf,
    num_devices: int = 1,
    max_padding: float = MAX_PADDING,
    mixed: bool = False,
) -> list[Program]:
    """Returns programs that hold every run, with as few compilations as padding and memory allow.

    Batch sizes that lie next to each other form slices, each padded to its largest: as few slices as keep the padded
    work at most `max_padding` times the useful work. Groups that do not fit into one program are dealt to several of
    equal size, which are compiled once, each with small and large batches alike. Work is counted in examples per step.

    Args:
      runs: name to `[R]` values, with `batch_size` and `seed`.
      static: names of which each value gets programs of its own.
      max_runs: how many runs of one program fit on one device; a single group of one run is always allowed.
      max_group: how many runs of a group work well together.
      num_devices: the groups of a program are divisible by this, and dealt to the devices for equal work.
      max_padding: at least 1. Work repeated to make programs equal comes on top of it.
      mixed: whether a program holds all slices, and its devices take groups of one after another (which suits CPU
        cores); else each slice makes programs of its own, whose groups train all at once.

    Raises:
      ValueError: a number is out of range, or the runs have no such names.
    """
    most = max(int(min(max_runs, MANY)), 1)
    longest = max(int(min(max_group, most)), 1)
    parts = defaultdict(list)
    columns = [np.asarray(runs[name]).tolist() for name in static]
    for row, values in enumerate(zip(*columns, strict=True) if static else [()] * len(runs["seed"])):
        parts[values].append(row)
    programs = []
    for values, rows in parts.items():
        part_values = tuple(zip(static, values, strict=True))
        groups = _groups(runs, rows, longest, num_devices, max_padding)
        length = len(groups[0].rows)
        batch_sizes = [group.batch_size for group in groups]
        useful = sum(int(runs["batch_size"][row]) for row in rows) / length
        slices = merge(batch_sizes, max_padding * useful)
        sizes = tuple(batch_sizes[stop - 1] for _, stop in slices)
        pools = [(sizes, groups)]
        if not mixed:
            pools = [((size,), groups[start:stop]) for size, (start, stop) in zip(sizes, slices, strict=True)]
        room = max(most // length, 1)
        for padded, pool in pools:
            programs += _deal(pool, padded, room, num_devices, max_padding, mixed, part_values)
    return programs


class Group(NamedTuple):
    """Runs that share batch size and seed, some perhaps repeated."""

    batch_size: int
    seed: int
    rows: list[int]


def _groups(runs, rows, longest: int, num_devices: int, max_padding: float) -> list[Group]:
    """Returns groups of equal length, ascending by batch size."""
    found = streams(runs, rows)
    counts = [(batch_size, len(members)) for (batch_size, _), members in found]
    return cut(found, _group_length(counts, longest, num_devices, max_padding))


def streams(runs: Runs, rows: Iterable[int]) -> list[tuple[tuple[int, int], list[int]]]:
    """Returns the rows that share batch size and seed, ascending by these."""
    by_stream, seeds = defaultdict(list), runs.get("order_seed", runs["seed"])
    for row in rows:
        by_stream[int(runs["batch_size"][row]), int(seeds[row])].append(row)
    return sorted(by_stream.items())


def cut(found: Sequence[tuple[tuple[int, int], list[int]]], length: int) -> list[Group]:
    """Returns streams in groups of a length, the last of each filled."""
    return [
        Group(*stream, _filled(members[start : start + length], length))
        for stream, members in found
        for start in range(0, len(members), length)
    ]


def _deal(
    groups: list[Group],
    sizes: tuple[int, ...],
    room: int,
    num_devices: int,
    max_padding: float,
    mixed: bool,
    static: Static,
) -> list[Program]:
    """Returns the programs of groups, ascending by batch size; `room` of them fit on a device."""
    if mixed and room > MANY_GROUPS:
        room -= room % min(SOME_AT_ONCE)
    num_programs = math.ceil(len(groups) / (room * num_devices))
    per_device = math.ceil(len(groups) / num_programs / num_devices)
    if mixed and per_device > MANY_GROUPS:
        # A prime number of groups would train one by one, which takes twice as long if each has a single run.
        per_device = next(
            count for count in itertools.count(per_device) if any(count % some == 0 for some in SOME_AT_ONCE)
        )
    size = per_device * num_devices
    # Equal numbers of groups, so that one compilation serves all programs.
    repeats = num_programs * size - len(groups) <= MAX_REPEATED * len(groups)
    shares = []
    for first in range(num_programs):
        members = groups[first::num_programs]
        wanted = size if repeats else math.ceil(len(members) / num_devices) * num_devices
        shares.append(_shares(members[:1] * (wanted - len(members)) + members, num_devices))
    by_length: dict[int, list[list[Group]]] = defaultdict(list)
    for program_groups in shares:
        by_length[len(program_groups[0])] += program_groups
    at_once = {length: _at_once(alike, sizes, max_padding) for length, alike in by_length.items()}
    return [_program(each, sizes, at_once[len(each[0])], static) for each in shares]


def _program(shares: list[list[Group]], sizes: tuple[int, ...], at_once: int, static: Static = ()) -> Program:
    batch_sizes, seeds, rows = (np.array(column) for column in zip(*itertools.chain(*shares), strict=True))
    return Program(sizes, at_once, batch_sizes, seeds, rows, static)


def program_of(groups: list[Group], sizes: tuple[int, ...], num_devices: int) -> Program:
    """Returns the program of groups, ascending by batch size, each of which trains by itself."""
    return _program(_shares(groups, num_devices), sizes, 1)


def _shares(groups: list[Group], num_devices: int) -> list[list[Group]]:
    """Returns each device's groups, equal in number and about equal in work: dealt back and forth, ascending."""
    shares: list[list[Group]] = [[] for _ in range(num_devices)]
    for index, group in enumerate(groups):
        lap, place = divmod(index, num_devices)
        shares[place if lap % 2 == 0 else num_devices - 1 - place].append(group)
    return shares


def _at_once(shares: list[list[Group]], sizes: tuple[int, ...], max_padding: float) -> int:
    """Returns how many neighbours in shares of one length can be padded alike within the padding allowed."""
    batch_sizes = [[group.batch_size for group in share] for share in shares]
    useful = sum(map(sum, batch_sizes))
    most = len(shares[0])
    divisors = [count for count in range(most, 0, -1) if most % count == 0]
    padded = [sum(_padded(share, sizes, count).sum() for share in batch_sizes) for count in divisors]
    return next(
        count for count, work in zip(divisors, padded, strict=True) if work <= max(max_padding * useful, padded[-1])
    )


def _padded(batch_sizes: Sequence[int] | np.ndarray, sizes: tuple[int, ...], at_once: int) -> np.ndarray:
    """Returns what the batches of each group are padded to, `[G]`, if `at_once` neighbours train at once."""
    largest = np.asarray(batch_sizes).reshape(-1, at_once).max(axis=1)
    return np.repeat(np.asarray(sizes)[np.searchsorted(sizes, largest)], at_once)


def _filled(members: list, size: int) -> list:
    return members + members[-1:] * (size - len(members))


def _group_length(streams: list[tuple[int, int]], longest: int, num_devices: int, max_padding: float) -> int:
    """Returns P: how many runs of a stream train together, given each stream's batch size and number of runs.

    This length minimises the work, given that a group draws its batch once for all of its runs. Half of the padding
    allowed, on a logarithmic scale, is left to batch sizes.
    """
    total = sum(count for _, count in streams)
    # Streams are cut if whole ones would leave devices idle.
    most = min(max(count for _, count in streams), longest, math.ceil(total / num_devices))
    cuts = {math.ceil(count / parts) for _, count in streams for parts in range(1, math.ceil(count / most) + 3)}
    lengths = sorted(length for length in cuts | {1, most} if length <= most)

    def work(length, overhead):
        examples = sum(batch_size * math.ceil(count / length) * (length + overhead) for batch_size, count in streams)
        num_groups = sum(math.ceil(count / length) for _, count in streams)
        # Devices without a group wait for the others.
        return examples * math.ceil(num_groups / num_devices) * num_devices / num_groups

    allowed = [length for length in lengths if work(length, 0) <= max_padding**0.5 * work(1, 0)]
    return min(allowed, key=lambda length: (work(length, DRAWING_COST), -length))


def merge(batch_sizes: list[int], limit: float) -> list[tuple[int, int]]:
    """Returns the fewest slices of ascending batch sizes whose padded sum is at most `limit`.

    Among equally many slices, those with the least padded sum. If none is within the limit, there is no padding.
    """
    ends = [0] + [i for i in range(1, len(batch_sizes)) if batch_sizes[i] != batch_sizes[i - 1]] + [len(batch_sizes)]

    @functools.cache
    def best(first: int, num_slices: int) -> tuple[float, tuple[int, ...]]:
        """Returns the least padded sum of the batch sizes from `ends[first]` on, and where its slices begin."""
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
      ValueError: the part does not exist, or there are more parts than programs.
    """
    if not 1 <= part <= num_parts:
        raise ValueError(f"shard {part}/{num_parts} does not exist; the first number is from 1 to the second")
    if num_parts > len(programs):
        at_most = f"{len(programs)} program{'s' * (len(programs) > 1)}"
        raise ValueError(f"shard is {part}/{num_parts}, but the sweep divides into {at_most}; a shard needs one")
    return programs[part - 1 :: num_parts]


def is_plan_of(programs: list[Program], runs: Runs) -> bool:
    """Returns whether programs train some of these runs, each with its batch size, seed and static values."""
    seeds = runs.get("order_seed", runs["seed"])

    def fits(program: Program) -> bool:
        rows, sizes = program.rows, program.padded_batch_sizes
        if rows.ndim != 2 or not rows.shape[:1] == program.batch_size.shape == program.seed.shape:
            return False
        if rows.dtype.kind not in "iu" or rows.min(initial=0) < 0 or rows.max(initial=0) >= len(seeds):
            return False
        if list(sizes) != sorted(sizes) or max(sizes, default=0) < program.batch_size.max(initial=1):
            return False
        columns = [(runs["batch_size"], program.batch_size[:, None]), (seeds, program.seed[:, None])]
        columns += [(runs[name], value) for name, value in program.static if name in runs]
        alike = all((column[rows] == value).all() for column, value in columns)
        return program.at_once >= 1 and alike and {name for name, _ in program.static} <= set(runs)

    return all(map(fits, programs))


def fingerprint(programs: list[Program]) -> int:
    """Returns a number that differs between plans."""
    crc = 0
    for program in programs:
        crc = zlib.crc32(repr((program.padded_batch_sizes, program.at_once, program.static)).encode(), crc)
        crc = zlib.crc32(program.rows.astype(np.int64).tobytes(), crc)
    return crc


def padding(programs: list[Program]) -> float:
    """Returns padded over useful work of a plan, at least 1; each run counts once."""
    padded = sum(
        program.rows.shape[1] * _padded(program.batch_size, program.padded_batch_sizes, program.at_once).sum()
        for program in programs
    )
    return padded / sum(useful_examples(program) for program in programs)


def useful_examples(program: Program) -> float:
    """Returns the examples per step of the runs of a program, each counted once."""
    batch_sizes = np.broadcast_to(program.batch_size[:, None], program.rows.shape).ravel()
    _, first = np.unique(program.rows, return_index=True)
    return float(batch_sizes[first].sum())


def segments(num_steps: int, num_evaluations: int, step_flops: float) -> list[int]:
    """Returns after which steps the host takes over, ascending from 0 to `num_steps`; the recorded ones among them.

    Segments move the progress bar, and limit what a crash loses and how much of the order of examples is on the
    devices. Short work has fewer, because devices wait for the host at the end of each.

    Args:
      num_steps: T.
      num_evaluations: number of evaluations along training.
      step_flops: floating-point operations of a step.
    """
    wanted = max(min(num_steps * step_flops / SEGMENT_FLOPS, LONG_SEGMENTS), num_steps / MAX_SEGMENT_STEPS)
    count = min(num_steps, num_evaluations * math.ceil(wanted / num_evaluations))
    boundaries = {round(i * num_steps / count) for i in range(count + 1)}
    return sorted(boundaries | set(recorded_steps(num_steps, num_evaluations)))


def recorded_steps(num_steps: int, num_evaluations: int) -> list[int]:
    """Returns the steps at which to record, ascending from 0 to `num_steps`."""
    return [round(i * num_steps / num_evaluations) for i in range(num_evaluations + 1)]

"""Tables of times with a column for each machine whose measurement is kept in `results/`.

`python -m experiments.benchmark.columns` prints both: that of the README, which names the fastest of the others, and
that of docs/benchmark.md, which has all of them.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import report

RESULTS = Path(__file__).parent / "results"
# How the names of our own ways to do the same begin.
OURS = ("jaxmnist", "jax.vmap of")
# What the tables show, and what they call it, by how the name of the work begins.
SHOWN = {
    r"original grid, .*: training": "original grid, 20 runs x 100 steps",
    r"original grid, .*: one evaluation": "original grid, one evaluation on test",
    r"2,048 runs .*: training": "2,048 runs (16 batch sizes 8..512, 32 rates, 4 seeds) x 200 steps",
    r"2,048 runs .*: one evaluation": "2,048 runs, one evaluation on test",
    r"original CNN: one training step": "original CNN, a step of 50 images",
    r"original CNN: evaluation": "original CNN, evaluation of 10,000 images",
    r"CNN in .* by itself": "the same CNN in other libraries, a step",
    r"CNN in .* of a sweep": "the same CNN in other libraries, a step of each run in a sweep of 8",
    r"from the prompt": "from the prompt to the heat map",
}


def keep(path: Path, machine: dict) -> Path:
    """Copies a measurement to `results/`, under the name of its machine, and returns where it is."""
    words = [machine["cpu"], *_instruction_sets(machine), f"{machine['cores']} cores"]
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    return Path(shutil.copy(path, RESULTS / f"{slug}.json"))


def kept() -> list[dict]:
    """Returns the measurements in `results/`."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def short_table() -> list[list[str]]:
    """Returns the README's table: a row for each work, with our time and the fastest of the others."""
    head = ["ours; the fastest of the others, times ours", *(_head(each["machine"]) for each in kept())]
    rows = [[name, *(_fastest(_rows(each, pattern)) for each in kept())] for pattern, name in SHOWN.items()]
    return [head, *rows]


def table() -> list[list[str]]:
    """Returns the whole table: after a row with our time of a work, one for each of the others."""
    lines = [["ours; the others, times ours", *(_head(each["machine"]) for each in kept())]]
    for pattern, name in SHOWN.items():
        measured = [_rows(each, pattern) for each in kept()]
        lines.append([f"**{name}**", *(f"**{report.in_words(rows[0].median)}**" if rows else "" for rows in measured)])
        times = [{row.peer: report.times_ours(row, rows[0]) for row in rows[1:]} for rows in measured]
        peers = {peer: None for each in times for peer in each}
        lines += [[peer, *(each.get(peer, "") for each in times)] for peer in peers]
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, its first line the head."""
    head, *rows = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _head(machine: dict) -> str:
    sets = ", ".join(_instruction_sets(machine)) or "neither AVX-512 nor AMX"
    cpu = re.sub(r"\((R|TM)\)| Processor", "", machine["cpu"])
    return f"{cpu} ({sets}), {machine['cores']} cores, {machine['date']}"


def _instruction_sets(machine: dict) -> list[str]:
    known = " ".join(machine["instruction_sets"])
    return [name for name in ("AMX", "AVX-512") if name.replace("-", "").lower() in known]


def _rows(measured: dict, pattern: str) -> list[report.Row]:
    """Returns the rows of a work, ours first."""
    return [
        report.Row(*(row[name] for name in report.FIELDS)) for row in measured["rows"] if re.match(pattern, row["work"])
    ]


def _fastest(rows: list[report.Row]) -> str:
    if not rows:
        return "not measured"
    others = [row for row in rows[1:] if not row.peer.startswith(OURS)]
    first = min(others, key=lambda row: report.ratio(row, rows[0]), default=None)
    shown = f"**{report.in_words(rows[0].median)}**"
    return shown if first is None else f"{shown}; {first.peer} {report.times_ours(first, rows[0])} x"


if __name__ == "__main__":
    print(markdown(short_table()), markdown(table()), sep="\n\n")

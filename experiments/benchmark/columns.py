"""The README's table of times: a column for each machine whose measurement is kept in `results/`.

`python -m experiments.benchmark.columns` prints it.
"""

import json
import re
import shutil
from pathlib import Path

from . import report

RESULTS = Path(__file__).parent / "results"
# What the README shows, and what it calls it, by how the name of the work begins.
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
    slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cores']} cores".lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    return Path(shutil.copy(path, RESULTS / f"{slug}.json"))


def table() -> str:
    """Returns the table in Markdown: a row for each work, a column for each machine."""
    measured = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [" | ".join(["ours; the others, times ours", *(_head(each["machine"]) for each in measured)])]
    lines.append(" | ".join(["---"] * (1 + len(measured))))
    lines += [
        " | ".join([name, *(_cell(each["rows"], pattern) for each in measured)]) for pattern, name in SHOWN.items()
    ]
    return "\n".join(f"| {line} |" for line in lines)


def _head(machine: dict) -> str:
    fast = [
        name for name in ("AMX", "AVX-512") if name.replace("-", "").lower() in " ".join(machine["instruction_sets"])
    ]
    cpu = re.sub(r"\((R|TM)\)| Processor", "", machine["cpu"])
    return f"{cpu} ({', '.join(fast) or 'neither AVX-512 nor AMX'}), {machine['cores']} cores, {machine['date']}"


def _cell(rows: list[dict], pattern: str) -> str:
    found = [report.Row(*(row[name] for name in report.FIELDS)) for row in rows if re.match(pattern, row["work"])]
    if not found:
        return "not measured"
    others = sorted(found[1:], key=lambda row: report.ratio(row, found[0]))
    shown = [f"{row.peer} {report.times_ours(row, found[0])} x" for row in others]
    return "; ".join([f"**{report.in_words(found[0].median)}**", *shown])


if __name__ == "__main__":
    print(table())

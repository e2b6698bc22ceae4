"""What the benchmark concludes from rounds, and the table that it makes of the measurements of several machines."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scripts_for_tests import EXPERIMENTS


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return lambda name: importlib.import_module(f"benchmark.{name}")


@pytest.mark.parametrize(
    ("theirs", "words"),
    [([2.0, 2.2, 2.4], "2.2"), ([2.0, 2.2, 2.6], "(2.2)"), ([2.0], "(2)")],
    ids=["rounds agree", "rounds scatter", "one round"],
)
def test_rounds_that_scatter_decide_nothing(benchmark, theirs, words):
    report = benchmark("report")
    ours, other = (report.Row("work", name, times, 1) for name, times in (("a", [1.0] * len(theirs)), ("b", theirs)))
    assert report.times_ours(other, ours) == words
    assert report.is_told(other, ours) == (not words.startswith("("))


def test_rounds_are_compared_side_by_side(benchmark):
    report = benchmark("report")
    ours, other = (report.Row("work", name, times, 1.0) for name, times in (("a", [1, 2, 4]), ("b", [3, 6, 12])))
    assert report.is_told(other, ours) and report.ratio(other, ours) == 3


def test_each_machine_has_a_column(benchmark, tmp_path, monkeypatch):
    columns, machine, report = (benchmark(name) for name in ("columns", "machine", "report"))
    monkeypatch.setattr(columns, "RESULTS", tmp_path / "results")
    here = machine.machine()
    assert {"cpu", "cores", "instruction_sets", "caches", "governor", "versions"} <= set(here)
    alpha = "Alpha(R) Processor"
    machines = ((alpha, ["avx512f", "amx_tile"], 1), (alpha, ["avx512f"], 2), ("Beta", ["avx2"], 3))
    for cpu, flags, factor in machines:
        on = here | {"cpu": cpu, "instruction_sets": flags, "cores": 2, "date": "2026-01-01"}
        work = "original grid, 20 runs x 100 steps: training"
        times = {"ours": 0.02, "jaxmnist, otherwise": 0.002, "slow": 0.1 * factor, "fast": 0.01 * factor}
        rows = [report.Row(work, peer, [seconds] * 2, 1) for peer, seconds in times.items()]
        report.save(rows, {}, on, tmp_path / "benchmark.json")
        kept = columns.keep(tmp_path / "benchmark.json", on)
        assert json.loads(kept.read_text())["machine"]["cpu"] == cpu
    assert len(list((tmp_path / "results").iterdir())) == 3
    head, training, *_ = columns.short_table()
    assert "Alpha (AMX, AVX-512), 2 cores" in head[1] and "Alpha (AVX-512), 2 cores" in head[2]
    assert "Beta (neither AVX-512 nor AMX), 2 cores" in head[3]
    assert training[1:] == ["**20.0 ms**; fast 0.5 x", "**20.0 ms**; fast 1 x", "**20.0 ms**; fast 1.5 x"]
    _, ours, *others = columns.table()
    assert ours[1:] == ["**20.0 ms**"] * 3
    times = {"jaxmnist, otherwise": ["0.1"] * 3, "slow": ["5", "10", "15"], "fast": ["0.5", "1", "1.5"]}
    assert {name: cells for name, *cells in others[:3]} == times
    assert columns.markdown([["a", "b"], ["c", "d"]]) == "| a | b |\n| --- | --- |\n| c | d |"


def test_the_documents_show_what_is_kept(benchmark):
    columns = benchmark("columns")
    readme = (EXPERIMENTS.parent / "README.md").read_text().splitlines()
    head, *rows = columns.short_table()
    (shown,) = [line for line in readme if line.startswith(f"| {head[0]} |")]
    assert len(head) > 1 and all(machine in shown for machine in head[1:])
    found = [(line, cells) for name, *cells in rows for line in readme if line.startswith(f"| {name} |")]
    assert len(found) >= 6 and all(cell in line for line, cells in found for cell in cells)
    assert columns.markdown(columns.table()) in (EXPERIMENTS.parent / "docs" / "benchmark.md").read_text()


def test_costs_of_more_runs_are_fitted_and_marked(benchmark):
    cost_curves = benchmark("cost_curves")
    runs = np.array([1, 8, 64, 512])
    rows = [("runs", count, 3e-6 + 2e-3 / count, 4e4 + 1e8 / count, True) for count in runs]
    measured = pd.DataFrame(rows, columns=list(cost_curves.COLUMNS))
    fitted = cost_curves.fitted(measured)
    assert fitted["value"].tolist() == [2.0**power for power in range(10, 21)] and not fitted["is_measured"].any()
    np.testing.assert_allclose(fitted["seconds"], 3e-6 + 2e-3 / fitted["value"], rtol=1e-6)
    np.testing.assert_allclose(fitted["bytes"], 4e4 + 1e8 / fitted["value"], rtol=1e-6)
    figure = cost_curves.draw(pd.concat([measured, fitted]), benchmark("machine").machine())
    drawn = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(drawn["measured"], [(count, 3 + 2e3 / count) for count in runs])
    assert len(drawn["fitted"]) == 11


@pytest.mark.slow
def test_cost_curves_are_measured_and_drawn(tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(EXPERIMENTS.parent))
    command = [sys.executable, "-m", "experiments.benchmark", "--costs", "--small", "--dataset", "digits"]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "costs")],
        cwd=EXPERIMENTS.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    costs = pd.read_csv(tmp_path / "costs" / "cost_curves.csv")
    assert costs.loc[costs["is_measured"], "axis"].tolist() == ["runs"] * 3 + ["num_params"] * 2
    assert (costs[["seconds", "bytes"]] > 0).all(axis=None)
    assert costs.loc[costs["axis"] == "num_params", "value"].tolist() == [7850, 784 * 4 + 4 + 4 * 10 + 10]
    assert (tmp_path / "costs" / "cost_curves.png").is_file()

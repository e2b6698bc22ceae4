"""A wheel built from the checkout carries everything: installed elsewhere, it sweeps, draws and is typed."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import optax

import jaxmnist as jm

assert jm.__file__.startswith(PREFIX), jm.__file__
for name in jm.__all__:
    getattr(jm, name)
runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=[16, 32], seed=range(2))
result = jm.sweep(jm.SoftmaxRegression(), optax.sgd, runs, jm.load("digits"), num_steps=5, progress=False, folder="out")
jm.heatmap(result).savefig("map.png")
jm.interactive(result, "page.html")
print(jm.best(result).setting)
"""


def run(*command, cwd):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(tmp_path):
    # A copy, since a build leaves files behind it in the checkout.
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    checkout.mkdir()
    elsewhere.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "jaxmnist", checkout / "jaxmnist", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, checkout, cwd=tmp_path)
    (wheel,) = tmp_path.glob("jaxmnist-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("jaxmnist/")}
    kinds = (".py", ".html", ".css", ".js")
    sources = [path for path in (ROOT / "jaxmnist").rglob("*") if path.suffix in kinds or path.name == "py.typed"]
    assert held == {path.relative_to(ROOT).as_posix() for path in sources}

    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # What it depends on is installed already; of a path in such a file, only what lies there is found.
    (packages / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    printed = run(python, "-c", f"PREFIX = {str(packages)!r}\n{PROGRAM}", cwd=elsewhere)
    assert "learning_rate" in printed
    assert {path.name for path in elsewhere.iterdir()} == {"out", "map.png", "page.html"}

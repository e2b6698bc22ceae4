"""Notebooks, run by a real kernel: pictures, progress in one line, nothing on standard error; and those we give out."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

PROGRESS = """
import time
from jaxmnist.host import progress
for title in ("first", "second"):
    with progress.progress_bar(title, 10) as show:
        for done in range(0, 11, 5):
            show(done, "work")
            time.sleep(progress.UPDATE_INTERVAL_S)
"""
FIGURE = """
import numpy as np
import jaxmnist as jm
def draw():
    return jm.confusion(np.array([0, 1]), np.array([1, 1]), ["a", "b"], "title")
draw()
"""
FIGURES = """
from jaxmnist.plots.style import Figures
Figures(first=draw(), second=draw())
"""


def executed(cells: list[str]) -> list[list]:
    """Returns the outputs of the cells of a notebook that a kernel has run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    return outputs(notebook)


def outputs(notebook) -> list[list]:
    """Returns the outputs of each code cell of a notebook, after a kernel has run it."""
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def pictures(found: list) -> list:
    return [output["data"]["image/png"] for output in found if "image/png" in output.get("data", {})]


@pytest.fixture(autouse=True)
def _this_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_kernel_shows_pictures_and_one_line_of_progress():
    progress, first, inline, several = executed([PROGRESS, FIGURE, "%matplotlib inline\ndraw()", FIGURES])
    assert [output["data"]["text/plain"] for output in progress] == ["second: 100 %, work, 0 s left"]
    assert [len(pictures(found)) for found in (first, inline, several)] == [1, 1, 2]
    assert [len(found) for found in (first, inline, several)] == [1, 1, 2]
    assert len({*pictures(first), *pictures(inline), *pictures(several)}) == 1
    with Image.open(io.BytesIO(base64.b64decode(pictures(first)[0]))) as picture:
        assert picture.format == "PNG" and picture.width > 300

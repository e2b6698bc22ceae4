"""Notebooks, run by a real kernel: pictures, progress in one line, nothing on standard error.

As a program, it removes the outputs of those in experiments/notebooks/.
"""

import ast
import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import jaxmnist as jm

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
# How many pictures each has.
PICTURES = {"original_story": 7, "bring_your_own_model": 1}

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
    # Scripts that ran in this process have chosen one.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_kernel_shows_pictures_and_one_line_of_progress():
    progress, first, inline, several = executed([PROGRESS, FIGURE, "%matplotlib inline\ndraw()", FIGURES])
    assert [output["data"]["text/plain"] for output in progress] == ["second: 100 %, work, 0 s left"]
    assert [len(pictures(found)) for found in (first, inline, several)] == [1, 1, 2]
    assert [len(found) for found in (first, inline, several)] == [1, 1, 2]
    assert len({*pictures(first), *pictures(inline), *pictures(several)}) == 1
    with Image.open(io.BytesIO(base64.b64decode(pictures(first)[0]))) as picture:
        assert picture.format == "PNG" and picture.width > 300


def cleaned(path: Path) -> str:
    """Returns the text of a notebook without outputs, and without what differs between those who have run it."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_no_outputs_and_uses_public_names(path):
    assert path.read_text() == cleaned(path), "run `python tests/test_notebooks.py`"
    cells = nbformat.read(path, as_version=4).cells
    assert {cell.cell_type for cell in cells} == {"code", "markdown"} and cells[0].source.startswith("# ")
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    named = {node.attr for node in attributes if ast.unparse(node.value) == "jm"}
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert named | set(re.findall(r"\bjm\.(\w+)", prose)) <= set(jm.__all__)
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [module for module in modules if module.startswith("jaxmnist")]
    assert all((path.parent / name).exists() for name in re.findall(r"\w+\.ipynb", prose))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path):
    found = outputs(nbformat.read(path, as_version=4))
    assert sum(len(pictures(cell)) for cell in found) == PICTURES[path.stem]
    assert not [output["text"] for cell in found for output in cell if output.get("name") == "stderr"]
    for cell in found:
        lines = [output for output in cell if "sweep: " in output.get("data", {}).get("text/plain", "")]
        assert len(lines) <= 1 and all(": 100 %" in line["data"]["text/plain"] for line in lines)


if __name__ == "__main__":
    for each in NOTEBOOKS:
        each.write_text(cleaned(each))

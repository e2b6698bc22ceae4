"""What README.md, CONTRIBUTING.md and docs/ say is true: their Python runs, and what they name exists."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import scripts_for_tests
from conftest import mostly_slow

import jaxmnist as jm

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md", "docs/promises.md", "docs/clusters.md",
    "docs/trackers.md", "docs/gpu.md", "docs/command_line.md", "docs/benchmark.md", "docs/search.md",
    "docs/published.md",
)  # fmt: skip
# Where the documents count paths from.
FOLDERS = (ROOT, ROOT / "jaxmnist", ROOT / "experiments")
# So that the programs compile in seconds: few steps, and a single width.
SHORTER = ((r"num_steps=\d+", "num_steps=3"), (r"width=\[(\d+), \d+\]", r"width=[\1]"))


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def commands() -> list[str]:
    """Returns the commands of the README that start a script, each in one line."""
    readme = text_of("README.md").replace("\\\n", " ")
    shown = re.findall(r"^(?!`)[^\n`]*?(python [^\n`]*)$|`(python [^`]*)`", readme, re.MULTILINE)
    return [in_block or in_sentence for in_block, in_sentence in shown]


def anchors(document: Path) -> set[str]:
    """Returns the anchors of the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help texts of the scripts."""
    found = {}
    for script in ("sweep_grid", "accuracy_vs_steps", "trainability_boundary", "train_cnn", "predict", "benchmark"):
        _, module = scripts_for_tests.load("benchmark.compare" if script == "benchmark" else script)
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            patch.setattr(sys, "argv", [script, "--help"])
            with pytest.raises(SystemExit) as ended:
                module.main()
        assert ended.value.code == 0
        found[script] = output.getvalue()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("document", mostly_slow(("README.md", "CONTRIBUTING.md"), "README.md"))
def test_its_python_runs(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = jm.load("digits")
    monkeypatch.setattr(jm, "load", lambda name: digits)
    monkeypatch.setattr(jm, "use_cores", lambda: None)  # this process has its devices already
    blocks = re.findall(r"```python\n(.*?)```", text_of(document), re.DOTALL)
    assert blocks
    namespace: dict = {"__name__": "document"}
    for block in blocks:
        for long, short in SHORTER:
            block = re.sub(long, short, block)
        exec(compile(block, document, "exec"), namespace)


def test_the_readme_is_short_and_begins_with_a_picture():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 250
    assert any(line.startswith("![") for line in lines[:15])


def test_the_two_commands_stand_alone():
    assert re.findall(r"^pip install .*$", text_of("README.md"), re.MULTILINE) == [
        "pip install -e . && python experiments/sweep_grid.py",
        "pip install -e '.[test]' && pytest",
    ]


def test_every_command_of_the_readme_can_be_given(helps):
    assert len(commands()) >= 5
    for command in commands():
        script, *arguments = re.sub(r"^python (-m experiments\.|experiments/)", "", command).split()
        assert script.removesuffix(".py") in helps, command
        options = [argument for argument in arguments if argument.startswith("--")]
        unknown = [option for option in options if f"{option} " not in helps[script.removesuffix(".py")]]
        assert not unknown, f"{command}: {unknown}"


@pytest.mark.parametrize("document", ["README.md", "docs/command_line.md"])
def test_every_option_that_it_names_exists(helps, document):
    options = set(re.findall(r"(?<=[` ])(--[a-z-]+)", text_of(document)))
    known = " ".join(helps.values())
    assert options and not [option for option in options if f"{option} " not in known]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_figure_exists(document):
    for target in re.findall(r"\]\(([^)]+)\)", text_of(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_and_path_exists(document):
    text = text_of(document)
    unknown = set(re.findall(r"\bjm\.([A-Za-z_]\w*)", text)) - set(jm.__all__)
    assert not unknown
    paths = re.findall(r"(?<![\w/.~-])((?:[\w.-]+/)*[\w-]+\.py|(?:[\w-]+/)+)(?![\w.])", text)
    ours = [path for path in paths if not path.startswith(("results/", "downloads/", "dev/"))]
    missing = [path for path in ours if not any((folder / path).exists() for folder in FOLDERS)]
    assert not missing


def test_the_table_of_wings_names_every_module():
    for row in re.findall(r"^\| `\w+/` \|.*$", text_of("docs/design.md"), re.MULTILINE):
        wing, modules = re.sub(r"\([^)]*\)", "", row).split("|")[1:3]
        folder = ROOT / "jaxmnist" / wing.strip(" `/")
        existing = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`([a-z0-9_]+)`", modules)) == existing, folder.name

"""The walls of the house: which wing may import which, how large a room may be, and that the core holds no check."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmnist as jm

PACKAGE = Path(jm.__file__).parent
ROOT = PACKAGE.parent
# Each wing may import those before it, and itself; `plots` alone is kept from `sweeps`, since figures never train.
ORDER = ("limits", "values", "checks", "host", "data", "core", "analysis", "sweeps", "plots", "networks", "studies")
FORBIDDEN = {("plots", "sweeps")}
MAX_FILE_LINES, MAX_SCRIPT_LINES = 350, 200
MAX_FUNCTION_LINES, MAX_SCRIPT_FUNCTION_LINES = 60, 50
MAX_ARGUMENTS = 7
# Public functions that take what `sweep` takes, those that train one run, and the map with its four axes.
MANY_ARGUMENTS = {
    "sweeps/sweep.py": "sweep", "sweeps/job.py": "check", "sweeps/costs.py": "estimate", "sweeps/halving.py": "halve",
    "sweeps/hyperband.py": "hyperband", "sweeps/rerun.py": "rerun", "sweeps/search.py": "search",
    "core/training.py": "fit", "networks/run.py": "train_run",
    "plots/maps.py": "heatmap",
}  # fmt: skip
OTHER_PACKAGES = ("jax", "flax", "optax", "numpy", "xarray", "pandas", "scipy", "matplotlib", "orbax", "sklearn", "PIL")
WITHOUT_CHECKS = ("core/training.py", "core/losses.py", "core/models.py")


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def scripts():
    return [path for place in ("", "common") for path in (ROOT / "experiments" / place).glob("*.py")]


def wing(path: Path) -> str:
    """Returns the wing of a file or of a dotted name below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_wings(path: Path) -> set[str]:
    """Returns the wings that a file imports anywhere in it, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [ast.literal_eval(node.args[0])]
        found |= {name.split(".")[1] for name in names if name.startswith("jaxmnist.")}
    return found


def length(function: ast.FunctionDef) -> int:
    """Returns how many lines a function has, its docstring not counted: that is as long as it must be."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down_the_table_only(path):
    here = wing(path)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    assert not [node.lineno for node in nodes if node.level], f"{path} has a relative import"
    for there in imported_wings(path):
        assert there in ORDER, f"{path} imports {there} by way of the package itself"
        assert ORDER.index(there) <= ORDER.index(here), f"{here} imports {there}, which comes after it"
        assert (here, there) not in FORBIDDEN, f"{here} imports {there}"


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_use_public_names_and_studies_alone(path):
    assert imported_wings(path) <= {"studies"}
    nodes = ast.walk(ast.parse(path.read_text()))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jm"}
    assert used <= set(jm.__all__)


def test_no_circle_of_modules_stays():
    def name(path):
        return ".".join(("jaxmnist", *path.relative_to(PACKAGE).with_suffix("").parts))

    names = {name(path): path for path in modules()}
    edges = {}
    for module, path in names.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        targets = {each for node in nodes for each in (node.module, *(f"{node.module}.{a.name}" for a in node.names))}
        edges[module] = targets & names.keys() - {module}
    while edges:
        leaves = {module for module, targets in edges.items() if not targets & edges.keys()}
        assert leaves, f"these import each other in a circle: {sorted(edges)}"
        edges = {module: targets for module, targets in edges.items() if module not in leaves}


@pytest.mark.parametrize("name", WITHOUT_CHECKS)
def test_the_core_holds_no_check(name):
    nodes = list(ast.walk(ast.parse((PACKAGE / name).read_text())))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Raise | ast.Assert | ast.Try)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not {call for call in calls if call in ("isinstance", "hasattr") or "check_" in call or "raise_" in call}


def test_the_compiled_functions_hold_no_check_and_say_their_shapes():
    tree = ast.parse((PACKAGE / "sweeps" / "programs.py").read_text())
    compiled = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name in ("init", "advance", "evaluate"):
        nodes = list(ast.walk(compiled[name]))
        assert not [node for node in nodes if isinstance(node, ast.Raise | ast.Assert)]
        assert "[G, P" in (ast.get_docstring(compiled[name]) or ""), f"{name} does not say its shapes"
        for inner in nodes:
            if isinstance(inner, ast.FunctionDef) and inner is not compiled[name]:
                deeper = [node for node in ast.walk(inner) if isinstance(node, ast.FunctionDef) and node is not inner]
                assert not deeper, f"{name} holds a closure within a closure"


def test_training_fits_on_a_few_pages():
    path = PACKAGE / "core" / "training.py"
    assert len(path.read_text().splitlines()) <= 230
    (step,) = [node for node in functions(path) if node.name == "train_step"]
    assert step.end_lineno - step.lineno + 1 <= 45


@pytest.mark.parametrize(
    "path",
    [*modules(), *(ROOT / "experiments").rglob("*.py")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_rooms_are_small(path):
    is_script = path.parent.name in ("experiments", "common")
    assert len(path.read_text().splitlines()) <= (MAX_SCRIPT_LINES if is_script else MAX_FILE_LINES)
    for function in functions(path):
        most = MAX_SCRIPT_FUNCTION_LINES if is_script else MAX_FUNCTION_LINES
        assert length(function) <= most, f"{function.name} has {length(function)} lines"
        arguments = function.args
        count = len(arguments.args) + len(arguments.kwonlyargs) + len(arguments.posonlyargs)
        may_be_many = any(path == PACKAGE / place and function.name == name for place, name in MANY_ARGUMENTS.items())
        if not may_be_many and path.is_relative_to(PACKAGE):
            assert count <= MAX_ARGUMENTS, f"{function.name} takes {count} arguments"


def public_functions():
    return {name: getattr(jm, name) for name in jm.__all__ if inspect.isfunction(getattr(jm, name))}


@pytest.mark.parametrize("name", sorted(public_functions()))
def test_every_argument_of_every_public_function_is_declared(name):
    function = public_functions()[name]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    named = {parameter.name for parameter in parameters if parameter.kind not in variadic}
    assert set(getattr(function, "kinds", {})) == named


@pytest.mark.slow
def test_every_public_name_has_a_type(tmp_path):
    """Editors resolve a name as the type checker does."""
    program = tmp_path / "names.py"
    program.write_text("import jaxmnist as jm\n" + "".join(f"reveal_type(jm.{name})\n" for name in jm.__all__))
    # What comes from other packages is Any here: nothing of theirs has to be read, and no name can borrow their types.
    others = [f"{name}.*" for name in OTHER_PACKAGES]
    config = tmp_path / "pyproject.toml"
    skipped = f'\n[[tool.mypy.overrides]]\nmodule = {others}\nfollow_imports = "skip"\n'
    config.write_text((ROOT / "pyproject.toml").read_text() + skipped)
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", os.devnull, str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    revealed = [line for line in done.stdout.splitlines() if "Revealed type is" in line]
    assert len(revealed) == len(jm.__all__), done.stdout
    assert not [line for line in revealed if 'is "Any"' in line or 'is "builtins.object"' in line]

"""Rooms of the package depend on rooms below them only, and start without what they may not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import frossl
from frossl.cli import COMMANDS

ORDER = [
    {"cli"},
    {"commands"},
    {"recipes"},
    {"train"},
    {"report"},
    {"runs", "curate"},
    {"evals", "methods"},
    {"data"},
    {"views"},
    {"losses", "nn"},
    {"core"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
ROOT = Path(frossl.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "frossl" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name and name.startswith("frossl.")}
    return rooms - {"__version__"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_its_own_room_and_those_below(path):
    room = room_of(path)
    for other in imports(path):
        assert other == room or LEVEL[other] > LEVEL[room], f"{room} must not import {other}"


def test_every_room_has_a_level():
    assert {room_of(path) for path in FILES} == set(LEVEL)


def test_only_one_file_speaks_to_other_ranks():
    users = [path for path in FILES if "torch.distributed" in path.read_text().replace("``torch.distributed``", "")]
    assert users == [ROOT / "core" / "distributed.py", ROOT / "core" / "launch.py"]  # which starts them


@pytest.mark.parametrize("path", sorted((ROOT / "methods").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_a_method_is_one_short_file(path):
    assert len(path.read_text().splitlines()) < 100


def loaded_with(module: str) -> set[str]:
    """Libraries that a new interpreter has loaded with ``module``."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_no_file_and_no_function_is_too_long_to_be_read_at_once():
    texts = {path.relative_to(ROOT): path.read_text() for path in FILES}
    functions = {
        f"{path}: {node.name}"
        for path, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and len(ast.unparse(without_docstring(node)).splitlines()) > 60
    }
    assert not functions
    assert not {path: lines for path, text in texts.items() if (lines := len(text.splitlines())) > 350}


def without_docstring(function: ast.FunctionDef) -> ast.FunctionDef:
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    return function


def test_the_command_line_answers_before_libraries_that_take_seconds_are_loaded():
    slow = {"torchvision", "timm", "lightning_fabric", "sklearn", "datasets", "plotly", "tensorboard"}
    commands = ", ".join(f"frossl.commands.{name}" for name in COMMANDS)
    assert not slow & loaded_with(f"frossl.cli, {commands}")


def test_losses_need_nothing_but_torch():
    installed = {"numpy", "scipy", "sklearn", "PIL", "timm", "torchvision", "lightning_fabric", "tyro", "rich"}
    assert not (loaded_with("frossl.losses") - loaded_with("torch")) & installed


def test_names_that_load_on_first_use_can_be_completed():
    code = "import sys, frossl; print(*dir(frossl)); assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"evaluate_run", "load_encoder", "pretrain"} <= set(said)
    assert all(hasattr(frossl, name) for name in frossl.__all__)

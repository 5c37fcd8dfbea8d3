"""Every dependency in pyproject.toml is imported or has a reason here, and every import is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from source_tree import import_pairs, project

ROOT = Path(__file__).parents[2]
MODULE_OF = {"pyyaml": "yaml"}  # module names that differ from the name of the distribution
NEEDED_BY_OTHERS = {
    "urllib3": "Lhotse imports it without declaring it",
    "scipy": "Lhotse resamples with it",
    "pytest-xdist": "`make test` runs two test files at a time",
    "onnxscript": "torch.onnx.export needs it",
    "accelerate": "transformers asks for it to load onto the meta device, as a test does",
}
OWN = {"arkasr"}
TOOLS = {"dev", "docs"}  # extras of programs that are run and not imported
# Rooms that need an extra, with the modules that others may import. These check that the extra is installed.
ROOMS_OF_EXTRAS = {"serving": ("serve", "limits")}


def declared() -> tuple[set[str], set[str]]:
    """Return the distributions that the package needs, and those that its extras need, except for tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    extras = [item for extra in optional if extra not in TOOLS for item in optional[extra]]
    return {_name(item) for item in project["dependencies"]}, {_name(item) for item in extras} - OWN


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def module_of(distribution: str) -> str:
    return MODULE_OF.get(distribution, distribution.replace("-", "_"))


def imported(*folders: str) -> dict[str, str]:
    """Return the third-party modules that files in these folders import, each with one such file."""
    found: dict[str, str] = {}
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for name in modules_in(path.read_text()):
            found.setdefault(name, str(path.relative_to(ROOT)))
    beside = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | OWN | beside}


def modules_in(text: str) -> set[str]:
    """Return the top-level modules that a source imports. torch.utils.tensorboard counts as tensorboard too."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names} | {"tensorboard" for name in names if "tensorboard" in name}


@pytest.mark.slow
def test_every_dependency_is_imported_or_has_a_reason():
    core, extras = declared()
    in_package, with_tests = imported("arkasr"), imported("arkasr", "tests", "benchmarks")
    unused = {name for name in core if module_of(name) not in in_package} | {
        name for name in extras if module_of(name) not in with_tests
    }
    assert unused <= set(NEEDED_BY_OTHERS), "remove them, or give a reason in NEEDED_BY_OTHERS"
    assert set(NEEDED_BY_OTHERS) <= core | extras


@pytest.mark.slow
def test_every_import_is_declared():
    core, extras = declared()
    available = {module_of(name) for name in core | extras}
    everywhere = imported("arkasr", "tests", "benchmarks")
    undeclared = {name: path for name, path in everywhere.items() if name not in available}
    assert not undeclared, "declare these in pyproject.toml"


def test_extras_are_imported_inside_functions_only():
    """Every module of arkasr must be importable without extras, except inside rooms that need one."""
    core, extras = declared()
    optional = {module_of(name) for name in extras - core}
    inside = {path for path in (ROOT / "arkasr").rglob("*.py") if is_inside_room_of_extra(path)}
    for path in sorted({*(ROOT / "arkasr").rglob("*.py")} - inside):
        top = "\n".join(
            ast.unparse(node)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        )
        assert not modules_in(top) & optional, path


def is_inside_room_of_extra(path: Path) -> bool:
    room, *rest = path.relative_to(ROOT / "arkasr").with_suffix("").parts
    return room in ROOMS_OF_EXTRAS and rest != ["__init__"] and rest[-1] not in ROOMS_OF_EXTRAS[room]


def test_rooms_of_extras_are_entered_by_their_first_modules():
    for importing, imported in import_pairs(project()):
        _, room, module = [*imported.split("."), "", ""][:3]
        if room in ROOMS_OF_EXTRAS and importing.split(".")[1:2] != [room]:
            assert module in ROOMS_OF_EXTRAS[room], f"{importing} imports {imported}"


def test_modules_in_finds_all_kinds_of_imports():
    text = "import os.path, yaml as y\nfrom torch.utils.tensorboard import X\nfrom . import a\n"
    text += "def f():\n    import scipy\n"
    assert modules_in(text) == {"os", "yaml", "torch", "tensorboard", "scipy"}
    assert [_name(item) for item in ("torch>=2.11,<2.13", "a-b==2.*", "PyYAML")] == ["torch", "a-b", "pyyaml"]

"""The floors of the house, read off the imports: arrows run downwards, in no circle, and plugins enter by name.

Counted is every import, those inside functions and under TYPE_CHECKING too, and every text that is the name of one
of our modules ("arkasr.model.loading", "arkasr.model.loading:load"): that is how modules are imported lazily.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import arkasr

ROOT = Path(__file__).parents[2]
FLOORS = {
    1: {"config", "errors", "interfaces", "utils"},
    2: {"corpora", "data", "distributions", "hookspecs", "model"},
    2.5: {""},  # the public interface, arkasr/__init__.py
    3: {"builtin", "plugins", "testing"},
    4: {"distill", "planning"},
    5: {"evaluation"},
    6: {"export", "training"},
    7: {"__main__", "cli"},
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_package(root: Path) -> dict[str, ast.Module]:
    """Return the parsed modules of the package `arkasr` in `root`, by dotted name."""
    return {module_name(path, root): ast.parse(path.read_text()) for path in sorted((root / "arkasr").rglob("*.py"))}


@cache
def project() -> dict[str, ast.Module]:
    """Return this project's modules; every file is read once for all tests."""
    return parse_package(ROOT)


def named(node: ast.AST, module: str, is_package: bool) -> Iterable[str]:
    """Yield the dotted names that one node may import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        yield from (f"{origin}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if found := re.fullmatch(r"(arkasr(?:\.\w+)+)(?::[\w.]+)?", node.value):
            yield found[1]


def arrows(modules: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Return (importer, imported) among the given modules."""
    found = set()
    for module, tree in modules.items():
        is_package = any(other.startswith(f"{module}.") for other in modules)
        for name in (name for node in ast.walk(tree) for name in named(node, module, is_package)):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != module:
                found.add((module, name))
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def upward(modules: dict[str, ast.Module]) -> list[str]:
    pairs = sorted((a, b) for a, b in arrows(modules) if FLOOR_OF[room(a)] < FLOOR_OF[room(b)])
    return [f"{importer} imports {imported}" for importer, imported in pairs]


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return what is left when those that import nothing, or that nobody imports, are taken away again and again."""
    left = {(a, b) for a, b in pairs if a != b}
    while left:
        importers, imported = {a for a, _ in left}, {b for _, b in left}
        kept = {(a, b) for a, b in left if b in importers and a in imported}
        if kept == left:
            return sorted(importers)
        left = kept
    return []


def beyond_face(modules: dict[str, ast.Module], own: str) -> list[str]:
    """Return what a plugin named `own` imports of arkasr past its public face."""
    found = []
    for module, tree in modules.items():
        for node in ast.walk(tree):
            for name in named(node, module, False):
                inside = name == own or name.startswith(f"{own}.")
                attribute = isinstance(node, ast.ImportFrom) and name.removeprefix("arkasr.") in arkasr.__all__
                if name.split(".")[0] == "arkasr" and name != "arkasr" and not inside and not attribute:
                    found.append(f"{module} imports {name}")
    return found


def intruders(modules: dict[str, ast.Module]) -> list[str]:
    """Return who names a built-in, other than plugins.py by text and built-ins among themselves."""
    pairs = {(a, b) for a, b in arrows(modules) if room(b) == "builtin" and room(a) not in ("builtin", "plugins")}
    statements = (
        node for node in ast.walk(modules["arkasr.plugins.registry"]) if isinstance(node, ast.Import | ast.ImportFrom)
    )
    names = [name for node in statements for name in named(node, "arkasr.plugins.registry", False)]
    return sorted(f"{a} imports {b}" for a, b in pairs) + [name for name in names if ".builtin" in name]


def test_every_room_has_a_floor():
    missing = {room(module) for module in project()} - set(FLOOR_OF)
    assert not missing, f"give {missing} a floor in tests/test_layers.py"


def test_arrows_run_downwards():
    assert upward(project()) == []


def test_no_circles_among_modules_nor_rooms():
    pairs = arrows(project())
    assert circle(pairs) == []
    assert circle((room(a), room(b)) for a, b in pairs) == []


def test_builtins_import_the_public_face_only():
    builtins = {name: tree for name, tree in project().items() if room(name) == "builtin"}
    assert len(builtins) > 1 and beyond_face(builtins, "arkasr.builtin") == []


def test_packages_under_plugins_import_the_public_face_only():
    found = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in (ROOT / "plugins").rglob("*.py")}
    assert beyond_face({name: tree for name, tree in found.items() if "/tests/" not in name}, "nothing") == []


def test_builtins_are_reached_by_name_from_plugins_only():
    assert intruders(project()) == []
    assert ("arkasr.plugins.registry", "arkasr.builtin.losses") in arrows(project())


def test_the_first_floor_imports_the_standard_library_and_yaml_only():
    light = {"arkasr", "yaml", "tqdm", *sys.stdlib_module_names}  # tqdm: inside terminal.Progress
    for module, tree in project().items():
        if FLOOR_OF[room(module)] == 1 and module != "arkasr.utils.timing":
            names = {name.split(".")[0] for node in _outside_type_checking(tree) for name in named(node, module, False)}
            assert names <= light, module


def _outside_type_checking(tree: ast.Module) -> Iterable[ast.AST]:
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    hidden = {id(inner) for guard in guards for inner in ast.walk(guard)}
    return (node for node in ast.walk(tree) if id(node) not in hidden)


def test_what_the_face_opens_onto_is_there():
    modules = project()
    for name, module in arkasr._LAZY.items():
        defined = {getattr(node, "name", None) for node in modules[module].body}
        assert name in defined, f"arkasr.{name} is promised of {module}"


@pytest.fixture
def house(tmp_path):
    """Return a function that writes modules into a package of their own and parses them."""

    def build(**texts: str) -> dict[str, ast.Module]:
        shutil.rmtree(tmp_path / "arkasr", ignore_errors=True)
        for name, text in ({"__init__": "", "plugins__in__registry": ""} | texts).items():
            path = tmp_path / "arkasr" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return parse_package(tmp_path)

    return build


@pytest.mark.parametrize(
    "text",
    [
        "import arkasr.cli",
        "import arkasr.cli as c",
        "from arkasr import cli",
        "from arkasr.cli import main",
        "from .cli import main",
        "from . import cli",
        "def f():\n    import arkasr.cli",
        "x = 'arkasr.cli:main'",
    ],
)
def test_an_upward_arrow_is_seen(house, text):
    assert upward(house(config=text, cli="")) == ["arkasr.config imports arkasr.cli"]


def test_a_circle_is_seen(house):
    others = {"model": "from arkasr import data", "corpora": "import arkasr.data"}
    assert circle(arrows(house(data="import arkasr.model", **others))) == ["arkasr.data", "arkasr.model"]
    assert circle(arrows(house(data="", **others))) == []


def test_an_intruder_is_seen(house):
    assert intruders(house(builtin__in__losses="", cli="x = 'arkasr.builtin.losses'"))
    assert intruders(house(builtin__in__losses="", cli="", plugins__in__registry="import arkasr.builtin.losses"))
    assert not intruders(house(builtin__in__losses="", cli="", plugins__in__registry="x = 'arkasr.builtin.losses'"))


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("import arkasr", True),
        ("from arkasr import hookimpl, UserError", True),
        ("x = 'arkasr.builtin.b:C'", True),
        ("from arkasr.builtin import b", True),
        ("from arkasr import config", False),
        ("import arkasr.typed", False),
        ("from arkasr.model import loading", False),
        ("x = 'arkasr.model.loading:load'", False),
    ],
)
def test_a_way_past_the_face_is_seen(text, allowed):
    assert (beyond_face({"arkasr.builtin.a": ast.parse(text)}, "arkasr.builtin") == []) is allowed

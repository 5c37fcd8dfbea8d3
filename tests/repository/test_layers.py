"""The layout of arkasr: imports between subpackages, names of test files, size of the top level, docstrings.

An import counts wherever it is: in functions, under TYPE_CHECKING, and as a string that is the name of a module
("arkasr.model.loading", "arkasr.model.loading:load"), because such strings are imported lazily.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from source_tree import (
    PUBLIC_INTERFACE,
    ROOT,
    import_pairs,
    imported_names,
    parse_package,
    plugin_packages,
    project,
    subpackage,
    subpackages,
)

import arkasr

FLOORS = {
    1: {"config", "errors", "interfaces", "languages", "utils"},
    2: {"corpora", "data", "distributions", "hookspecs", "model", "scoring"},
    2.5: {PUBLIC_INTERFACE},
    3: {"builtin", "plugins", "testing"},
    4: {"distill", "planning"},
    5: {"evaluation"},
    6: {"reporting", "transcription"},
    7: {"export", "serving", "sweeps", "training"},
    8: {"__main__", "cli"},
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
MAX_TOP_LEVEL_MODULES = 7
# The imports that go up. Both are strings, which are imported at the first use. Users write `arkasr.transcribe`, which
# is not in `arkasr.__all__`, so no subpackage or plugin may import it, and `transformers.pipeline`.
FOR_USERS = {
    ("arkasr", "arkasr.transcription.api"),
    ("arkasr.model.pipelines", "arkasr.transcription.pipeline"),
}


def upward_imports(modules: dict[str, ast.Module]) -> list[str]:
    own = import_pairs(modules) - FOR_USERS
    pairs = sorted((a, b) for a, b in own if FLOOR_OF[subpackage(a)] < FLOOR_OF[subpackage(b)])
    return [f"{importing} imports {imported}" for importing, imported in pairs]


def cycle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names that are left after repeated removal of those that import nothing or are not imported."""
    left = {(a, b) for a, b in pairs if a != b}
    while left:
        importing, imported = {a for a, _ in left}, {b for _, b in left}
        kept = {(a, b) for a, b in left if b in importing and a in imported}
        if kept == left:
            return sorted(importing)
        left = kept
    return []


def private_imports(modules: dict[str, ast.Module], own_package: str) -> list[str]:
    """Return the imports of arkasr that are not in its public interface. `own_package` may import itself."""
    found = []
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node).removeprefix("arkasr.") in arkasr._FOR_USERS:
                found.append(f"{module} uses {ast.unparse(node)}")
            for name in imported_names(node, module, False):
                own = name == own_package or name.startswith(f"{own_package}.")
                public = isinstance(node, ast.ImportFrom) and name.removeprefix("arkasr.") in arkasr.__all__
                if name.split(".")[0] == "arkasr" and name != "arkasr" and not own and not public:
                    found.append(f"{module} imports {name}")
    return found


def builtin_imports(modules: dict[str, ast.Module]) -> list[str]:
    """Return the imports of built-ins by others. `plugins` may name them in strings but not import them."""
    pairs = {
        (a, b)
        for a, b in import_pairs(modules)
        if subpackage(b) == "builtin" and subpackage(a) not in ("builtin", "plugins")
    }
    registry = "arkasr.plugins.registry"
    statements = (node for node in ast.walk(modules[registry]) if isinstance(node, ast.Import | ast.ImportFrom))
    names = [name for node in statements for name in imported_names(node, registry, False)]
    return sorted(f"{a} imports {b}" for a, b in pairs) + [name for name in names if ".builtin" in name]


def test_every_subpackage_has_a_floor():
    missing = {subpackage(module) for module in project()} - set(FLOOR_OF)
    assert not missing, f"add {missing} to FLOORS"


def test_imports_go_to_the_same_or_a_lower_floor():
    assert upward_imports(project()) == []


def test_modules_and_subpackages_have_no_import_cycle():
    pairs = import_pairs(project()) - FOR_USERS
    assert cycle(pairs) == []
    assert cycle((subpackage(a), subpackage(b)) for a, b in pairs) == []


def test_builtins_import_public_interface_only():
    builtins = {name: tree for name, tree in project().items() if subpackage(name) == "builtin"}
    assert len(builtins) > 1 and private_imports(builtins, "arkasr.builtin") == []


def test_packages_under_plugins_import_public_interface_only():
    assert plugin_packages() and private_imports(plugin_packages(), "nothing") == []


def test_builtins_are_named_by_the_registry_only():
    assert builtin_imports(project()) == []
    assert ("arkasr.plugins.registry", "arkasr.builtin.losses") in import_pairs(project())


def test_floor_1_imports_standard_library_yaml_and_tqdm_only():
    allowed = {"arkasr", "yaml", "tqdm", *sys.stdlib_module_names}  # tqdm: in utils.console.Progress
    inside_functions = {f"arkasr.utils.{name}" for name in ("devices", "rendezvous", "timing")}  # these import torch
    for module, tree in project().items():
        if FLOOR_OF[subpackage(module)] == 1 and module not in inside_functions:
            nodes = _outside_type_checking(tree)
            names = {name.split(".")[0] for node in nodes for name in imported_names(node, module, False)}
            assert names <= allowed, module


def _outside_type_checking(tree: ast.Module) -> Iterable[ast.AST]:
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    hidden = {id(inner) for guard in guards for inner in ast.walk(guard)}
    return (node for node in ast.walk(tree) if id(node) not in hidden)


def test_lazy_names_of_public_interface_exist():
    modules = project()
    for name, module in arkasr._LAZY.items():
        defined = {getattr(node, "name", None) for node in modules[module].body}
        assert name in defined, f"arkasr.{name} is not in {module}"


def test_only_names_for_users_are_imported_from_above():
    own = {("arkasr", module) for module in arkasr._FOR_USERS.values()}
    assert own == {pair for pair in FOR_USERS if pair[0] == "arkasr"} and import_pairs(project()) >= FOR_USERS
    assert list(arkasr._FOR_USERS) == ["transcribe"] and "transcribe" not in arkasr.__all__
    nodes = {node.name for node in project()["arkasr.transcription.api"].body if isinstance(node, ast.FunctionDef)}
    assert "transcribe" in nodes


def test_top_level_has_few_modules():
    modules = [path.name for path in (ROOT / "arkasr").glob("*.py")]
    assert len(modules) <= MAX_TOP_LEVEL_MODULES, f"move one of {modules} into a subpackage"


@pytest.mark.parametrize("name", subpackages(project()))
def test_subpackage_docstring_names_contents_and_allowed_imports(name):
    first, *others = (ast.get_docstring(project()[name]) or "").split("\n\n")
    assert first.strip(), f"{name}: the docstring must name what the subpackage contains"
    message = f'{name}: the docstring must have a second paragraph "May import ..."'
    assert any(re.search(r"\b[Mm]ay import\b", paragraph) for paragraph in others), message


@pytest.mark.parametrize("name", [name for name in subpackages(project()) if name.count(".") == 1])
def test_subpackage_imports_only_what_its_docstring_allows(name):
    paragraph = (ast.get_docstring(project()[name]) or "").split("ay import")[-1].split("\n\n")[0]
    if "every subpackage below" in paragraph:  # the floors hold it
        return
    own = subpackage(name)
    pairs = import_pairs(project()) - FOR_USERS
    imported = {subpackage(b) for a, b in pairs if subpackage(a) == own} - {own, "", "builtin"}
    assert imported <= set(re.findall(r"`(\w+)`", paragraph)), f"{name}: correct the docstring or the imports"


def misnamed_tests(folder: Path) -> list[str]:
    """Return the test files of a subpackage that are not named after one of its modules."""
    parts = {part for name in project() if subpackage(name) == folder.name for part in name.split(".")[1:]}
    files = sorted(folder.glob("test_*.py")) if parts else []
    return [str(p.relative_to(ROOT)) for p in files if not any(f"{p.stem}_".startswith(f"test_{x}_") for x in parts)]


def test_test_files_are_named_after_modules():
    wrong = [path for folder in sorted((ROOT / "tests").iterdir()) for path in misnamed_tests(folder)]
    assert wrong == [], "name each file test_<module>.py or test_<module>_<topic>.py"


@pytest.fixture
def package(tmp_path):
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
def test_upward_imports_finds_every_kind_of_import(package, text):
    assert upward_imports(package(config=text, cli="")) == ["arkasr.config imports arkasr.cli"]


def test_cycle_is_found(package):
    others = {"model": "from arkasr import data", "corpora": "import arkasr.data"}
    assert cycle(import_pairs(package(data="import arkasr.model", **others))) == ["arkasr.data", "arkasr.model"]
    assert cycle(import_pairs(package(data="", **others))) == []


def test_builtin_imports_are_found(package):
    builtin = "arkasr.builtin.losses"
    assert builtin_imports(package(builtin__in__losses="", cli=f"x = '{builtin}'"))
    assert builtin_imports(package(builtin__in__losses="", cli="", plugins__in__registry=f"import {builtin}"))
    assert not builtin_imports(package(builtin__in__losses="", cli="", plugins__in__registry=f"x = '{builtin}'"))


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("import arkasr", True),
        ("from arkasr import hookimpl, UserError", True),
        ("x = 'arkasr.builtin.b:C'", True),
        ("from arkasr.builtin import b", True),
        ("from arkasr import config", False),
        ("from arkasr import transcribe", False),
        ("import arkasr\narkasr.transcribe('a.wav')", False),
        ("import arkasr.config.validate", False),
        ("from arkasr.model import loading", False),
        ("x = 'arkasr.model.loading:load'", False),
    ],
)
def test_private_imports_are_found(text, allowed):
    assert (private_imports({"arkasr.builtin.a": ast.parse(text)}, "arkasr.builtin") == []) is allowed

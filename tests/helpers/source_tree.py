"""The parsed modules of arkasr and the imports among them. Every file is read once for all tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PUBLIC_INTERFACE = ""  # subpackage() of arkasr/__init__.py


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_package(root: Path) -> dict[str, ast.Module]:
    """Return the parsed modules of the package `arkasr` in `root`, by dotted name."""
    return {module_name(path, root): ast.parse(path.read_text()) for path in sorted((root / "arkasr").rglob("*.py"))}


@cache
def project() -> dict[str, ast.Module]:
    """Return the parsed modules of this project's arkasr, by dotted name."""
    return parse_package(ROOT)


@cache
def plugin_packages() -> dict[str, ast.Module]:
    """Return the parsed modules of the packages under plugins/, without their tests, by path."""
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "plugins").rglob("*.py"))}
    return {name: ast.parse(path.read_text()) for name, path in paths.items() if "/tests/" not in name}


def subpackages(modules: dict[str, ast.Module]) -> list[str]:
    """Return the dotted names of all subpackages of arkasr, nested ones included."""
    return [name for name in modules if "." in name and any(other.startswith(f"{name}.") for other in modules)]


def subpackage(module: str) -> str:
    """Return the subpackage or top-level module that a module belongs to."""
    return module.split(".")[1] if "." in module else PUBLIC_INTERFACE


def imported_names(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the dotted names that a syntax node of `module` may import.

    These are the names in import statements, and strings that are names of arkasr's modules, such as
    "arkasr.model.loading:load". Such strings are imported lazily.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        yield from (f"{origin}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant):
        found = re.fullmatch(r"(arkasr(?:\.\w+)+)(?::[\w.]+)?", node.value) if isinstance(node.value, str) else None
        yield from found.groups() if found else ()


def import_pairs(modules: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Return (importing module, imported module) for all imports among these modules."""
    pairs, packages = set(), {"arkasr", *subpackages(modules)}
    for module, tree in modules.items():
        for name in (name for node in ast.walk(tree) for name in imported_names(node, module, module in packages)):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != module:
                pairs.add((module, name))
    return pairs

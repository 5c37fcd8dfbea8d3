"""Docstrings of the public code in arkasr: Google style sections for arguments and return values."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest
from source_tree import project

# Decorators of functions that need no `Returns:`: properties, and generators that only mark a `with` block.
NO_RETURN_VALUE = {"property", "cached_property", "contextmanager"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.AST, where: str) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    """Yield (location, function, class) for public functions, methods of public classes, and their constructors."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and (method.name == "__init__" or not method.name.startswith("_")):
                    yield f"{where}:{node.name}.{method.name}", method, node
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield f"{where}:{node.name}", node, None


def decorators(function: Function) -> set[str]:
    names = (ast.unparse(node.func if isinstance(node, ast.Call) else node) for node in function.decorator_list)
    return {name.rpartition(".")[2] for name in names}


def arguments(function: Function, in_class: bool) -> list[str]:
    """Return the names of the documented arguments: all public ones but self or cls."""
    args = function.args
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    if in_class and "staticmethod" not in decorators(function):
        positional = positional[1:]
    others = [arg.arg for arg in (args.vararg, *args.kwonlyargs, args.kwarg) if arg]
    return [name for name in (*positional, *others) if not name.startswith("_")]


def returns_value(function: Function) -> bool:
    annotation = ast.unparse(function.returns) if function.returns else "None"
    return not (annotation in ("None", "NoReturn") or decorators(function) & NO_RETURN_VALUE)


def section(docstring: str, name: str) -> str | None:
    """Return the body of a Google style section, dedented, or None if there is no such section."""
    found = re.search(rf"^{name}:\n((?:[ ]+.*\n|\n)*)", docstring + "\n", re.M)
    return inspect.cleandoc("\n" + found[1]) if found else None


def problems(where: str, function: Function, owner: ast.ClassDef | None) -> list[str]:
    """Return what the docstring of a function lacks. A constructor may be documented in the class docstring."""
    docstring = ast.get_docstring(function) or ""
    if function.name == "__init__" and owner:
        docstring += "\n\n" + (ast.get_docstring(owner) or "")
    if not docstring.strip():
        return [f"{where}: no docstring"]
    if re.search(r"\bSee `", docstring):
        return []
    names, documented = arguments(function, owner is not None), section(docstring, "Args") or ""
    missing = [name for name in names if not re.search(rf"^\*{{0,2}}{name}(?: \([^)]*\))?:", documented, re.M)]
    found = [f"{where}: Args: lacks {', '.join(missing)}"] if missing else []
    described = section(docstring, "Returns") or section(docstring, "Yields")
    described = described or (not names and docstring.startswith(("Return ", "Yield ")))  # the summary is enough
    if returns_value(function) and not described:
        found.append(f"{where}: no Returns:")
    return found


@pytest.mark.parametrize("module", sorted(project()))
def test_public_functions_document_arguments_and_return_values(module):
    path = module.replace(".", "/")
    found = [problem for item in public_functions(project()[module], path) for problem in problems(*item)]
    assert not found, "\n".join(["", *found])


SAMPLE = '''
class Public:
    """A class.

    Args:
        a: First.
    """
    def __init__(self, a, b): ...
    def _private(self, x): ...
    @property
    def size(self) -> int:
        """Size."""
    @staticmethod
    def make(x, *rest, y=1, **more) -> int:
        """Make.

        Args:
            x: One
                y: not an argument
            *rest: Others.
            **more: More.

        Returns:
            A number.
        """
    def score(self, x) -> int:
        """Score. See `arkasr.Teacher.score`."""
    def total(self) -> int:
        """Return the sum."""
    def count(self) -> int:
        """Count."""

class _Hidden:
    def method(self, x): ...

def bare(x): ...
def value(x: int) -> int:
    """Return it.

    Args:
        x (int): It.
    """
@contextmanager
def block() -> Iterator[None]:
    """Open a block."""
'''


def test_problems_finds_missing_sections():
    found = [text for item in public_functions(ast.parse(SAMPLE), "m") for text in problems(*item)]
    assert found == [
        "m:Public.__init__: Args: lacks b",
        "m:Public.make: Args: lacks y",
        "m:Public.count: no Returns:",
        "m:bare: no docstring",
        "m:value: no Returns:",
    ]

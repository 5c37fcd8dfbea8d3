"""docs/architecture.md: its tree names what exists and leaves nothing out, and its floors are those of the tests."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from pages import ROOT, blocks, read, section

PAGE = read("docs/architecture.md")
CACHES = {"__pycache__", "build", "dist", "site"}


def tree() -> list[tuple[list[str], str]]:
    """Return the lines of the annotated tree: paths relative to the root, and their description."""
    lines, above = [], {0: ""}
    for line in blocks(section(PAGE, "Where things are"), "text")[0].splitlines():
        indent, names, text = re.fullmatch(r"( *)(\S+(?: \S+)*)(?:  +(.+))?", line).groups()
        paths = [above[len(indent)] + name for name in names.split()]
        above[len(indent) + 2] = paths[-1]
        lines.append((paths, text or ""))
    return lines


@pytest.mark.parametrize(("paths", "text"), tree())
def test_tree_names_existing_paths(paths, text):
    for path in paths:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    if paths[0].endswith("/"):
        for name in re.findall(r"\b\w+\.(?:py|yaml|sh)\b", text):
            assert (ROOT / paths[0] / name).is_file() or paths[0] == "docs/", name


def written_by_hand(path: Path) -> bool:
    """Return whether a file is source, configuration or prose, or a folder contains such files."""
    if path.name.startswith(".") or path.name in CACHES:
        return False
    return (
        any(map(written_by_hand, path.iterdir())) if path.is_dir() else path.suffix in (".py", ".sh", ".yaml", ".toml")
    )


@pytest.mark.parametrize("folder", ["", "arkasr", "egs"])
def test_tree_leaves_nothing_out(folder):
    named = {ROOT / path for paths, _ in tree() for path in paths}
    missing = [path for path in (ROOT / folder).iterdir() if written_by_hand(path) and path not in named]
    assert missing == [], "add them to the tree of docs/architecture.md"


def test_floors_are_those_of_the_layer_test():
    spec = importlib.util.spec_from_file_location("test_layers", ROOT / "tests" / "repository" / "test_layers.py")
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    shown = dict(re.findall(r"^\| (\d) \| (.+) \|$", section(PAGE, "Imports go one way"), re.M))
    for floor, rooms in layers.FLOORS.items():
        names = rooms - {""}
        assert [name for name in names if f"`{name}`" not in shown[str(int(floor))]] == []

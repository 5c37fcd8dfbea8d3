"""No call that loads from a folder or the Hub may leave transformers to ask whether its code should run."""

from __future__ import annotations

import ast

import pytest
from source_tree import ROOT

LOADERS = {"from_pretrained", "from_config"}
SOURCES = sorted(
    path
    for folder in ("arkasr", "plugins", "benchmarks", "docs", "egs")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.parts
)


def loading_calls(tree: ast.AST) -> list[ast.Call]:
    """List calls of `from_pretrained`, and of `from_config` on transformers' Auto classes."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in LOADERS:
            continue
        auto = isinstance(node.func.value, ast.Name) and node.func.value.id.startswith("Auto")
        if node.func.attr == "from_pretrained" or auto:
            found.append(node)
    return found


def is_safe(call: ast.Call) -> bool:
    if ast.unparse(call.func).endswith("PeftModel.from_pretrained"):
        return True  # adds weights to a model that is there already, and has no such option
    values = [k.value for k in call.keywords if k.arg == "trust_remote_code"]
    return len(values) == 1 and isinstance(values[0], ast.Constant) and values[0].value is False


@pytest.mark.parametrize(
    ("source", "safe"),
    [
        ("AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)", True),
        ("AutoTokenizer.from_pretrained(path, **hub)", False),
        ("AutoModel.from_config(config)", False),
        ("peft.PeftModel.from_pretrained(model, path)", True),
        ("super().from_pretrained(path, trust_remote_code=True)", False),
    ],
)
def test_the_scan_recognises_calls(source, safe):
    [call] = loading_calls(ast.parse(source))
    assert is_safe(call) == safe


def test_no_call_lets_transformers_run_code_of_a_folder():
    calls = [(path, call) for path in SOURCES for call in loading_calls(ast.parse(path.read_text()))]
    assert len(calls) > 10
    unsafe = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls if not is_safe(call)]
    assert not unsafe, "pass trust_remote_code=False"

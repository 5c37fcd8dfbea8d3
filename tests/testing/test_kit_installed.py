"""tests/installed.py lays a package out as pip does: what other tests take for an installed plugin is one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from installed import install

TEMPLATE = Path(__file__).parents[2] / "plugins" / "arkasr-template"


def what_is_lacking() -> str:
    """Say what an installation without a network and an environment of its own lacks here; nothing: ''."""
    lacking = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
    if not lacking and importlib.util.find_spec("wheel") is None:
        version = tuple(int(part) for part in metadata.version("setuptools").split(".")[:2])
        lacking = ["wheel, or setuptools 70.1"] if version < (70, 1) else []
    return ", ".join(lacking)


def laid_out(folder: Path) -> tuple[set[str], set[tuple[str, str, str]]]:
    """Return the modules that lie in a folder, and its distributions' entry points."""
    found = metadata.distributions(path=[str(folder)])
    points = {(made.metadata["Name"], p.name, p.value) for made in found for p in made.entry_points}
    return {path.name for path in folder.glob("*.py")}, points


@pytest.mark.skipif(bool(what_is_lacking()), reason=f"to build a package offline there is no {what_is_lacking()}")
def test_pip_lays_the_template_out_as_the_tests_do(tmp_path):
    package = tmp_path / TEMPLATE.name
    shutil.copytree(TEMPLATE, package, ignore=shutil.ignore_patterns("__pycache__"))  # pip builds inside it
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path / "pip"), str(package)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    install(TEMPLATE, tmp_path / "ours")
    assert laid_out(tmp_path / "pip") == laid_out(tmp_path / "ours")
    assert laid_out(tmp_path / "pip")[1] == {("arkasr-template", "template", "arkasr_template")}

"""tests/helpers/installed.py installs a package as pip does, so tests can use it for installed plugins."""

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


def missing_build_tools() -> str:
    """Return the packages that are missing to build a package offline and without isolation, '' if none."""
    missing = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
    if not missing and importlib.util.find_spec("wheel") is None:
        version = tuple(int(part) for part in metadata.version("setuptools").split(".")[:2])
        missing = ["wheel, or setuptools 70.1"] if version < (70, 1) else []
    return ", ".join(missing)


def installed_files(folder: Path) -> tuple[set[str], set[tuple[str, str, str]]]:
    """Return the modules in a folder, and the entry points of its distributions."""
    found = metadata.distributions(path=[str(folder)])
    points = {(one.metadata["Name"], p.name, p.value) for one in found for p in one.entry_points}
    return {path.name for path in folder.glob("*.py")}, points


@pytest.mark.skipif(
    bool(missing_build_tools()), reason=f"cannot build a package offline without {missing_build_tools()}"
)
def test_install_helper_equals_pip(tmp_path):
    package = tmp_path / TEMPLATE.name
    shutil.copytree(TEMPLATE, package, ignore=shutil.ignore_patterns("__pycache__"))  # pip builds inside it
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path / "pip"), str(package)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    install(TEMPLATE, tmp_path / "helper")
    assert installed_files(tmp_path / "pip") == installed_files(tmp_path / "helper")
    assert installed_files(tmp_path / "pip")[1] == {("arkasr-template", "template", "arkasr_template")}

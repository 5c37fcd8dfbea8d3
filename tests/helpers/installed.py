"""Installs a plugin package into a folder as `pip install --target` does, without network access."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any


def install(package: Path, target: Path) -> dict[str, Any]:
    """Copy the modules of a package to `target`, write its metadata, and return its [project] table."""
    settings = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    target.mkdir(parents=True, exist_ok=True)
    layout = settings["tool"]["setuptools"]
    for module in layout.get("py-modules", []):
        shutil.copy(package / f"{module}.py", target)
    for name in layout.get("packages", []):
        shutil.copytree(package / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{entry} = {module}\n" for entry, module in project["entry-points"]["arkasr"].items())
    (info / "entry_points.txt").write_text(f"[arkasr]\n{points}")
    return project

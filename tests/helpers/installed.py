"""Lays a plugin package out as `pip install --target` would, from its pyproject.toml, without a network."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any


def install(package: Path, target: Path) -> dict[str, Any]:
    """Copy a package's modules and write its metadata into `target`; return its [project] table."""
    made = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    project = made["project"]
    target.mkdir(parents=True, exist_ok=True)
    layout = made["tool"]["setuptools"]
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

"""Fixtures of all tests of plugins: a registry without loaded plugins, and packages that tests install."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from fresh_plugins import fresh_plugins


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Load the plugins again in each test, without environment variables, and remove their modules afterwards."""
    monkeypatch.delenv("ARKASR_PLUGINS", raising=False)
    monkeypatch.delenv("ARKASR_STRICT_PLUGINS", raising=False)
    with fresh_plugins("fake_"):
        yield


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a package with one entry point and its modules on the import path."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(distribution: str, entry: str, modules: dict[str, str], target: str = "") -> Path:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (folder / "entry_points.txt").write_text(f"[arkasr]\n{entry} = {target or next(iter(modules))}\n")
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        return tmp_path

    return make

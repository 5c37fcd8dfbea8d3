"""Plugins that are loaded again for one test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from arkasr.plugins import registry


@contextmanager
def fresh_plugins(prefix: str) -> Iterator[None]:
    """Load all plugins again inside; remove their modules whose names start with `prefix` afterwards."""
    importlib.invalidate_caches()
    registry._load.cache_clear()
    before = set(sys.modules)
    try:
        yield
    finally:
        registry._load.cache_clear()
        for name in set(sys.modules) - before:
            if name.startswith(prefix):
                del sys.modules[name]

"""A Python for recipes that starts their stages fast."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loaded_python import loaded_python


@pytest.fixture(scope="session")
def forked_stages() -> Iterator[Path]:
    """The path of a Python that forks `-m arkasr` from a process with the packages that it imports."""
    with tempfile.TemporaryDirectory() as folder, loaded_python(Path(folder)) as python:
        yield python

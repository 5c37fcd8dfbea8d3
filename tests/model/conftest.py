"""Fixtures of the tests of models: a tiny model of each type."""

from __future__ import annotations

import pytest
from tiny import student, teacher


@pytest.fixture(scope="module")
def qwen():
    return teacher(4)


@pytest.fixture(scope="module")
def ark():
    return student(4)

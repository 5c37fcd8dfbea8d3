"""Shared by the tests of arkasr.testing: the message of a failed check, and tiny models that are built once."""

from __future__ import annotations

from functools import lru_cache

import pytest

from arkasr.testing import tiny_student, tiny_teacher


@lru_cache
def student():
    """Return the cached tiny student. Do not change it."""
    return tiny_student()


@lru_cache
def teacher():
    """Return the cached tiny teacher. Do not change it."""
    return tiny_teacher()


class PluginError(Exception):
    """Raised by broken plugins in tests."""


def failure_message(check, *arguments, **options) -> str:
    """Run a check that must fail, and return its message."""
    with pytest.raises(AssertionError) as failure:
        check(*arguments, **options)
    message = str(failure.value)
    assert message.startswith(f"{check.__name__}: ") and "\n" not in message
    return message

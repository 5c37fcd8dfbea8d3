"""What the tests of the plugin kit share: how a check fails, and tiny models that are built once."""

from __future__ import annotations

from functools import lru_cache

import pytest

from arkasr.testing import tiny_student, tiny_teacher


@lru_cache
def student():
    """A tiny student; not to be changed."""
    return tiny_student()


@lru_cache
def teacher():
    """A tiny teacher; not to be changed."""
    return tiny_teacher()


class Loud(Exception):
    """What a broken plugin raises."""


def caught(check, *arguments, **options) -> str:
    """Return the sentence with which a check fails."""
    with pytest.raises(AssertionError) as failure:
        check(*arguments, **options)
    message = str(failure.value)
    assert message.startswith(f"{check.__name__}: ") and "\n" not in message
    return message

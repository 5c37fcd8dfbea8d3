"""Fixtures of all tests of plans: no network connection, and few builds of the paper's models."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from arkasr.planning import plan


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Fail if anything opens a network connection."""

    def refuse(*_):
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module", autouse=True)
def outline_cache():
    """Count the parameters of each model only once in each file: building the paper's models takes one second."""
    outlines, outline = {}, plan._outline

    def cached(config, source):
        key = config.to_json_string()
        outlines[key] = outlines.get(key) or outline(config, source)
        return replace(outlines[key], source=source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_outline", cached)
        yield

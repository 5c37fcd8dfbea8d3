"""Packages with plugins that tests write, and what the registry tells about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.errors import UserError
from arkasr.plugins import registry

GOOD = """
from dataclasses import dataclass
import arkasr

@dataclass
class Options:
    rate: float = 1.0

class Plugin:
    def __init__(self, options, **context):
        self.options, self.context = options, context

@arkasr.hookimpl
def register_teachers(register):
    register("{name}", Plugin, Options)

@arkasr.hookimpl
def register_token_mappers(register):
    register("{name}", "{name}_parts:Mapper", "{name}_parts:Options")

@arkasr.hookimpl
def register_losses(register):
    register("{name}", Plugin)
"""
PARTS = """
from dataclasses import dataclass

@dataclass
class Options:
    depth: int

class Mapper:
    def __init__(self, options, student, teacher):
        self.depth, self.pair = options.depth, (student, teacher)
"""
ONE_LOSS = "import arkasr\n\n@arkasr.hookimpl\ndef register_losses(register):\n    register({arguments})\n"


def rows(distribution: str) -> list[dict[str, str]]:
    return [row for row in registry.listing() if row["distribution"] == distribution]


def good(install, name: str = "fake_good", distribution: str = "arkasr-good") -> Path:
    return install(distribution, name, {name: GOOD.format(name=name), f"{name}_parts": PARTS})


def refusal(call, *arguments, **context) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **context)
    assert "\n" not in str(caught.value)
    return str(caught.value)

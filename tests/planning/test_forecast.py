"""Times of phases that follow the assumptions, and the documented assumptions."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from planned_runs import planned

from arkasr.planning.assumptions import Assumptions


def test_phase_seconds_follow_the_limiting_assumption():
    base = planned()["seconds"]
    assert planned(mfu=0.8)["seconds"]["teacher"] == base["teacher"] / 2
    assert planned(mfu=0.8)["seconds"]["decode"] == base["decode"]
    assert planned(layer_ms=1.6)["seconds"]["decode"] == pytest.approx(2 * base["decode"])
    slow = planned(bandwidth=10.0)["seconds"]["decode"]
    assert planned(bandwidth=5.0)["seconds"]["decode"] == pytest.approx(2 * slow) and slow > base["decode"]
    assert planned(network=0.1)["seconds"]["student"] == pytest.approx(2 * 1_139_873_024 / 1e8, rel=1e-3)
    recomputed = planned("base_opd", ("fsdp.activation_checkpointing=blocks",), network=1e6)["seconds"]
    assert recomputed["backward"] == pytest.approx(1.5 * planned(network=1e6)["seconds"]["backward"], rel=1e-3)


def test_documented_options_and_defaults_are_the_assumptions():
    page = (Path(__file__).parents[2] / "docs/plan.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `--(\w+)` \| (\w+(?:\.\d+)?)", page, re.M))
    assert documented.pop("gpus") == "required"
    defaults = {field.name: field.default for field in fields(Assumptions) if field.name != "gpus"}
    assert {name: float(value) for name, value in documented.items()} == defaults

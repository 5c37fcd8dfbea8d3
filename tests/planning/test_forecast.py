"""Times of phases that follow the assumptions, and the documented assumptions."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from planned_runs import planned

from arkasr.planning.assumptions import Assumptions


def test_phase_seconds_follow_the_limiting_assumption():
    base = planned(gpus=1, launch_us=1e-3)["seconds"]
    products = planned(gpus=1, launch_us=1e-3, bandwidth=1e6)["seconds"]["teacher"]
    assert planned(gpus=1, launch_us=1e-3, bandwidth=1e6, mfu=0.8)["seconds"]["teacher"] == pytest.approx(
        products / 2, rel=0.01
    )
    assert base["teacher"] > products
    assert planned(gpus=1, launch_us=1e4)["seconds"]["teacher"] == pytest.approx(
        planned(gpus=1, launch_us=5e3)["seconds"]["teacher"] * 2
    )


def test_collectives_take_the_network_that_their_ranks_share():
    """24 GPUs in machines of 8. A gather moves 2 bytes per parameter, a reduction 4."""
    total = 1_139_873_024
    over_all = planned("base_opd", ("fsdp.replicate=1",), network=0.1)["seconds"]
    assert over_all["student"] == pytest.approx(2 * total / 1e8, rel=1e-3)
    assert over_all["backward"] == pytest.approx((2 + 4) * total / 1e8, rel=1e-3)
    in_machines = planned("base_opd", ("fsdp.replicate=0",), network=0.01, node_network=1.0)["seconds"]
    assert in_machines["student"] == pytest.approx(2 * total / 1e9, rel=1e-3)
    assert in_machines["backward"] == pytest.approx((2 + 4) * total / 1e9 + 2 * 4 * total / 8 / 1e7, rel=1e-3)
    alone = planned("base_opd", ("fsdp.replicate=0",), gpus=8, network=0.01, node_network=1.0)["seconds"]
    assert alone["backward"] == pytest.approx((2 + 4) * total / 1e9, rel=1e-3)


def test_decoding_seconds_are_reads_and_a_minimum_per_kernel():
    base = planned(gpus=1)["seconds"]["decode"]
    minimum = planned(gpus=1, kernel_us=5.4)["seconds"]["decode"] - base
    reads = planned(gpus=1, bandwidth=1500.0)["seconds"]["decode"] - base
    assert base == pytest.approx(minimum + reads) and minimum > reads > 0


def test_recomputation_adds_a_forward_pass_to_the_backward_pass():
    fast = {"gpus": 1, "bandwidth": 1e6, "launch_us": 1e-3}
    kept = planned("base_opd", ("fsdp.activation_checkpointing=none",), **fast)["seconds"]["backward"]
    assert planned("base_opd", **fast)["seconds"]["backward"] == pytest.approx(1.5 * kept, rel=0.02)


def test_documented_options_and_defaults_are_the_assumptions():
    page = (Path(__file__).parents[2] / "docs/plan.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `--(\w+)` \| (required|\d+(?:\.\d+)?)", page, re.M))
    assert documented.pop("gpus") == "required"
    defaults = {field.name: field.default for field in fields(Assumptions) if field.name != "gpus"}
    assert {name: float(value) for name, value in documented.items()} == defaults

"""Verdicts, charts of error rates and comparisons with controls."""

from __future__ import annotations

import re

import numpy as np
import pytest
from score_examples import METRICS, SCORES, SETS

from arkasr.evaluation.paper_numbers import title
from arkasr.reporting.page import controls, rates
from arkasr.reporting.page.decoded import DecodedSet
from arkasr.reporting.page.experiment import Experiment
from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally

PARTS = [
    {"label": "under 2 s", "utterances": 4, "reference_length": 40, "errors": 4, "rate_percent": 10.0},
    {"label": "2 to 5 s", "utterances": 6, "reference_length": 60, "errors": 18, "rate_percent": 30.0},
]


def experiment(scores=SCORES, metrics=METRICS):
    return Experiment("exp", SETS, scores, metrics, {run: {} for run in scores})


@pytest.mark.parametrize(
    ("interval", "word"), [((-3, -1), "better"), ((1, 3), "worse"), ((-1, 2), "unclear"), ((-2, 0), "unclear")]
)
def test_verdict_follows_the_interval(interval, word):
    assert word in rates.verdict({"difference_percent": 1.0, "interval_percent": interval})


@pytest.mark.parametrize("change", [None, {}, {"difference_percent": None, "interval_percent": None}])
def test_verdict_without_a_comparison_is_a_dash(change):
    assert rates.verdict(change) == "-"


def test_overview_draws_every_rate_with_its_interval():
    (found,) = rates.overview(experiment())
    charts = found.blocks[-1].charts
    assert [chart.title for chart in charts] == ["test-clean", "test-other"]
    assert "Teacher: 5.0 [4.0, 7.0]" in charts[0].summary and "Base+OPD: 20.0 [19.0, 22.0]" in charts[0].summary
    zero, twenty = (next(tick.at for tick in charts[0].x_ticks if tick.text == text) for text in ("0", "20"))
    dot = charts[0].rows[2].dots[0]
    assert dot.x == twenty and dot.low == pytest.approx(zero + 19 / 20 * (twenty - zero), abs=0.1)


def test_overview_of_runs_without_base_has_no_verdicts():
    (found,) = rates.overview(experiment({"base_opd": SCORES["base_opd"] | {"sets": SCORES["base"]["sets"]}}))
    assert [block.kind for block in found.blocks] == ["charts"]


def with_parts(parts):
    return {
        run: content | {"sets": {name: entry | {"breakdown": parts} for name, entry in content["sets"].items()}}
        for run, content in SCORES.items()
    }


def test_breakdown_draws_each_part_of_each_run():
    found = rates.breakdown(experiment(with_parts({"duration": PARTS, "condition": PARTS[:1]})))
    charts = [chart for block in found.blocks if block.kind == "charts" for chart in block.charts]
    assert [chart.title for chart in charts] == ["Duration", "Duration"]  # one condition is no breakdown
    assert [row.label for row in charts[0].rows] == ["under 2 s", "2 to 5 s"]
    assert [dot.text for dot in charts[0].rows[1].dots] == ["30.0"] * len(SCORES)


def test_breakdown_of_many_speakers_shows_those_with_most_words():
    many = [{**PARTS[0], "label": f"s{i:02}", "reference_length": i} for i in range(40)]
    found = rates.breakdown(experiment(with_parts({"speaker": many})))
    chart = found.blocks[2].charts[0]
    assert [row.label for row in chart.rows] == [f"s{i}" for i in range(28, 40)]
    assert re.search("the 12 of 40 with most words", chart.title)


def test_breakdown_without_parts_is_absent_with_a_reason():
    assert "scores.json" in rates.breakdown(experiment())


def decoded(**errors):
    zeros = np.zeros(30, dtype=np.int64)
    tallies = {run: Tally(zeros + 9, np.array(values), zeros, zeros) for run, values in errors.items()}
    return DecodedSet(SETS[0], {}, [], {}, tallies, {})


def test_controls_are_compared_with_each_distilled_run():
    rng = np.random.default_rng(0)
    found = decoded(base_opd=rng.integers(0, 3, 30), base_steps=rng.integers(1, 4, 30))
    scores = SCORES | {"base_steps": SCORES["base"]}
    section = controls.section([found], experiment(scores, METRICS | {"base_steps": METRICS["base"]}))
    ((run, control, cell),) = [
        ["".join(span.text for span in cell).replace("\u00a0", " ") for cell in row] for row in section.blocks[1].rows
    ]
    change = compare(found.tallies["base_opd"], found.tallies["base_steps"])
    assert (run, control) == ("Base+OPD", title("base_steps"))
    assert f"{change['difference_percent']:+.2f} [{change['interval_percent'][0]:+.2f}," in cell and "better" in cell


def test_controls_are_absent_with_a_reason_if_there_are_none():
    assert "without distillation" in controls.section([], experiment())

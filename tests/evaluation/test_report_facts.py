"""The environment in RESULTS.md: teachers and versions, without secrets."""

from __future__ import annotations

from arkasr.evaluation.report_facts import environment


def test_environment_groups_runs_by_teacher_and_names_unrecorded_ones():
    header = {"jiwer": "4.0.0", "sets": {}}
    header["bootstrap"] = {"resamples": 1000, "seed": 0}
    teacher = {"name": "http", "options": {"url": "http://u:hunter2@h"}, "path": "", "weights": ""}
    scores = {run: header | {"teacher": teacher} for run in ("teacher", "base_opd")}
    scores["base"] = header | {"recorded": False}
    text = environment(scores, {run: {} for run in scores})
    assert "- teacher (row Teacher, Base+OPD): `http`, http://***@h" in text
    assert "- Base: decoded by an older version of arkasr" in text


def test_environment_names_the_weights_of_checkpoints():
    header = {"jiwer": "4.0.0", "sets": {}, "bootstrap": {"resamples": 1000, "seed": 0}}
    scores = {"mine": header | {"checkpoint": {"path": "/m/mine", "plugin": ""}, "weights": "0123456789abcdef"}}
    scores["tiny"] = header | {"checkpoint": {"path": "p", "plugin": "whisper"}, "weights": ""}
    text = environment(scores, {run: {"checkpoint": {}} for run in scores})
    assert "- row mine: /m/mine, weights 0123456789ab" in text and "row tiny:" not in text

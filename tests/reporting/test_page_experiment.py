"""The runs of an experiment by kind."""

from __future__ import annotations

import pytest
from reported import rows_of_run

from arkasr.reporting.page.experiment import Experiment

OPD, OTHER = rows_of_run("opd", 2), rows_of_run("supervised", 2)


def experiment(**metrics):
    return Experiment("exp", [], {run: {"sets": {}} for run in metrics}, metrics, {run: {} for run in metrics})


def test_runs_are_distilled_controls_base_and_teacher():
    found = experiment(teacher=[], base=OTHER, base_td=OTHER, base_opd=OPD, base_td_opd=OPD, tiny=[])
    assert found.distilled == found.compared == ["base_opd", "base_td_opd"]
    assert found.controls == ["base_td"]  # tiny was not trained here
    assert found.base == "base" and found.shown == ["teacher", "base", "base_opd", "base_td_opd"]


@pytest.mark.parametrize(
    ("runs", "base", "compared"),
    [
        ({"base": OTHER}, None, ["base"]),
        ({"teacher": []}, None, ["teacher"]),
        ({"teacher": [], "base": OTHER}, None, ["base"]),
        ({"base": OTHER, "base_td": OTHER}, "base", ["base_td"]),
        ({"other": []}, None, ["other"]),
        ({"base_opd": OPD}, None, ["base_opd"]),
    ],
)
def test_runs_to_compare_of_small_experiments(runs, base, compared):
    found = experiment(**runs)
    assert found.base == base and found.compared == compared

"""Commands in RESULTS.md: of all runs, without secrets."""

from __future__ import annotations

import json

import pytest

from arkasr.evaluation.report_facts import commands, environment
from arkasr.utils.redact import command_without_secrets


def test_commands_lists_other_runs_and_skips_damaged_ones(tmp_path, capsys):
    for run, content in (("base_td", json.dumps({"command": "arkasr train a --run base_td"})), ("broken", "{")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(content)
    text = commands(str(tmp_path), "data", {"base": {"command": "arkasr train a --run base", "config": {}}})
    assert "arkasr train a --run base_td" in text and "--runs base\n" in text and "broken" not in text
    assert "broken/run.json: not valid JSON" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "clean"),
    [
        ("arkasr train 'a b.yaml' x=1", "arkasr train 'a b.yaml' x=1"),
        ("run teacher.options.url=http://u:hunter2@h", "run 'teacher.options.url=http://***@h'"),
        ("run teacher.options.api_key=hunter2 seed=1", "run 'teacher.options.api_key=***' seed=1"),
        ("run 'http://u:hunter2@h", "run 'http://***@h"),
        ("", ""),
    ],
)
def test_command_without_secrets_changes_only_words_with_secrets(command, clean):
    assert command_without_secrets(command) == clean


def test_environment_groups_runs_by_teacher_and_names_unrecorded_ones():
    header = {"normalizer": {"name": "english", "version": "2"}, "jiwer": "4.0.0", "sets": {}}
    header["bootstrap"] = {"resamples": 1000, "seed": 0}
    teacher = {"name": "http", "options": {"url": "http://u:hunter2@h"}, "path": "", "weights": ""}
    scores = {run: header | {"teacher": teacher} for run in ("teacher", "base_opd")}
    scores["base"] = header | {"recorded": False}
    text = environment(scores, {run: {} for run in scores})
    assert "- teacher (row Teacher, Base+OPD): `http`, http://***@h" in text
    assert "- Base: decoded by an older version of arkasr" in text

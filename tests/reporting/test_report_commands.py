"""Commands in RESULTS.md: of all runs, test sets and checkpoints, without secrets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from score_examples import SCORES, SETS

from arkasr.reporting.report_commands import commands
from arkasr.utils.redact import command_without_secrets


def test_commands_lists_other_runs_and_skips_damaged_ones(tmp_path, capsys):
    for run, content in (("base_td", json.dumps({"command": "arkasr train a --run base_td"})), ("broken", "{")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(content)
    records = {"base": {"command": "arkasr train a --run base", "config": {}}}
    text = commands(str(tmp_path), "data", SETS, {"base": SCORES["base"]}, records)
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


def test_commands_decode_each_data_directory_and_named_test_set_with_their_rows(tmp_path):
    own = [*SETS, replace(SETS[0], name="zh", datadir="other"), replace(SETS[0], name="call", spec="call=c.jsonl")]
    entry = SCORES["base"]["sets"]["test-clean"]
    whisper = {"checkpoint": {"path": "openai/whisper-tiny", "plugin": "whisper"}, "sets": {"call": entry}}
    scores = {"base": {"sets": dict.fromkeys(["test-clean", "zh"], entry)}, "tiny": whisper}
    lines = commands(str(tmp_path), "data", own, scores, {}).splitlines()
    base = f"arkasr score --expdir {tmp_path} --datadir"
    assert [line for line in lines if line.startswith("arkasr score")] == [
        f"{base} data --runs base",
        f"{base} other --runs base",
        f"{base} data --checkpoint tiny=whisper:openai/whisper-tiny --test_sets call=c.jsonl",
    ]

"""Reading what runs have logged and recorded, whole or damaged."""

from __future__ import annotations

import json

import pytest
from json_lines import write_lines

from arkasr.errors import UserError
from arkasr.evaluation.run_records import read_metrics, read_run, read_scores


def test_read_metrics_keeps_last_row_of_repeated_step(tmp_path, capsys):
    path = tmp_path / "base" / "metrics.jsonl"
    write_lines(path, [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "dev_error": 0.5}])
    with open(path, "a") as file:
        file.write('{"step": 3, "lo\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": 1.0}\n')
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path, "base")] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert "line 4: not a metrics row" in capsys.readouterr().out
    assert read_metrics(tmp_path, "teacher") == []


def test_read_metrics_skips_lines_that_are_no_rows_and_counts_them(tmp_path, capsys):
    path = tmp_path / "base" / "metrics.jsonl"
    path.parent.mkdir()
    odd = [
        b'{"step": "x", "loss": 1}',
        b'{"step": true, "loss": 1}',
        b'{"step": 1.5, "loss": 1}',
        b'{"step": 1e999, "loss": 1}',
        b'{"loss": 1}',
        b'{"loss": 1, "step": 1' + b"0" * 400 + b"}",
        b'{"step": 1, "loss": 1' + b"0" * 5000 + b"}",
        b'{"step": 1, "loss": "low"}',
        b'{"step": 1, "loss": [1]}',
        b"\xff\xfe\x00",
        b"\0\0\0",
        b"[" * 100_000,
        b"7",
        b"null",
        b"",
    ]
    path.write_bytes(b"\n".join([*odd, b'{"step": 4, "loss": NaN, "vuss": Infinity, "dev_error": 0.5}', b'{"st']))
    assert read_metrics(tmp_path, "base") == [{"step": 4, "loss": None, "vuss": None, "dev_error": 0.5}]
    assert "line 1: not a metrics row, skipped (number of skipped lines: 16)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"\0\0"])
@pytest.mark.parametrize(
    ("name", "read", "stage"), [("run.json", read_run, 3), ("scores.json", read_scores, 5)], ids=["run", "scores"]
)
def test_reading_damaged_record_names_it(tmp_path, name, read, stage, content):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*--stage {stage}"):
        read(tmp_path, "base")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"versions": "2.12"}, "key 'versions' must be a mapping, got '2.12'"),
        ({"command": ["arkasr"]}, "key 'command' must be text"),
        ({"plugins": ["x"]}, "run.json, plugins: must be a mapping, got 'x'"),
        ({"inputs": []}, "key 'inputs' must be a mapping"),
        ({"world_size": "2"}, "key 'world_size' must be a whole number"),
    ],
)
def test_read_run_checks_types(tmp_path, record, message):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as caught:
        read_run(tmp_path, "base")
    assert message in str(caught.value)


def test_read_run_reads_configuration_and_names_damaged_one(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run.json").write_text('{"commit": null, "world_size": 2}')
    (tmp_path / "base" / "config.yaml").write_text("optim:\n  lr: 1e-4\n")
    assert read_run(tmp_path, "base") == {"world_size": 2, "config": {"optim": {"lr": 1e-4}}}
    assert read_run(tmp_path, "teacher") == {"config": {}}
    for content in (b"a: [", b"\xff\xfe", b"- 1", b"decode: 3", b"teacher: x", b"objective: [1]"):
        (tmp_path / "base" / "config.yaml").write_bytes(content)
        with pytest.raises(UserError, match=r"base/config\.yaml"):
            read_run(tmp_path, "base")


SCORES = {"metric": "wer", "normalizer": {"name": "raw", "version": "1"}}
SET = {"rate_percent": 1.0, "interval_percent": [0.5, 2], "utterances": 3}


def test_read_scores_checks_types(tmp_path):
    (tmp_path / "base").mkdir()
    path = tmp_path / "base" / "scores.json"
    for good in (SET, {"rate_percent": None, "interval_percent": None, "utterances": 3}):
        path.write_text(json.dumps(SCORES | {"sets": {"test": good}}))
        found = read_scores(tmp_path, "base")["sets"]["test"]
        profile = {"name": "raw", "version": "1", "packages": {}}
        assert found == good | {"metric": "wer", "profile": profile}  # of older versions
    for change in (
        {"rate_percent": "low"},
        {"interval_percent": [1]},
        {"interval_percent": ["a", 1]},
        {"utterances": 0.5},
    ):
        path.write_text(json.dumps(SCORES | {"sets": {"test": SET | change}}))
        with pytest.raises(UserError, match=f"scores.json, set test: key '{next(iter(change))}'"):
            read_scores(tmp_path, "base")
    for change in ({"sets": []}, {"normalizer": {}}, {"metric": None}):
        path.write_text(json.dumps(SCORES | {"sets": {"test": SET}} | change))
        with pytest.raises(UserError, match="scores.json"):
            read_scores(tmp_path, "base")
    assert read_scores(tmp_path, "teacher") is None


def test_read_run_refuses_an_empty_configuration(tmp_path):
    (tmp_path / "base").mkdir()
    assert read_run(tmp_path, "base") == {"config": {}}
    (tmp_path / "base" / "config.yaml").write_bytes(b"")
    with pytest.raises(UserError, match=r"base/config.yaml: is empty; "):
        read_run(tmp_path, "base")

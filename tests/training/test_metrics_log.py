"""Rows of metrics.jsonl: digits of small numbers, torn lines, and which steps have rows."""

from __future__ import annotations

import json

import pytest
from corpus_fixture import metrics

from arkasr.training.metrics_log import drop_rows_after, significant
from arkasr.training.train import train


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e-8, 1e-8),
        (1.23456789012e-8, 1.23456789e-8),
        (0.1 + 0.2, 0.3),
        (123456789012.0, 123456789012.0),
        (12345.678901234, 12345.6789),
        (-2.0, -2.0),
        (0.0, 0.0),
    ],
)
def test_significant_keeps_small_and_whole_numbers(value, expected):
    assert significant(value) == expected


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_significant_accepts_infinities(value):
    assert significant(value) == value


@pytest.mark.slow
def test_learning_rate_of_1e_8_is_logged(conf, datadir, tmp_path):
    changes = ["optim.lr=1e-8", "optim.warmup_steps=3", "train.steps=3", "train.eval_every=0"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    rates = [row["learning_rate"] for row in metrics(tmp_path / "base")]
    assert rates == pytest.approx([1e-8 / 3, 2e-8 / 3, 1e-8], rel=1e-8)


def test_torn_lines_are_dropped_and_counted(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step}) for step in range(1, 6)]
    path.write_bytes("\n".join([*rows[:2], "\0\0", '{"loss": 1}', *rows[2:], '{"step": 6, "lo']).encode())
    drop_rows_after(path, 4)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert f"warning: {path}: 2 damaged lines removed, the first is line 3" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("every", "steps"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_last_step_always_has_a_row_and_a_checkpoint(conf, datadir, tmp_path, every, steps):
    changes = ["train.steps=5", f"train.log_every={every}", f"train.save_every={every}", "train.eval_every=0"]
    train(str(conf), "base", str(tmp_path), str(datadir), [*changes, "train.keep=9"])
    assert [row["step"] for row in metrics(tmp_path / "base")] == steps
    saved = sorted(int(path.name[5:]) for path in (tmp_path / "base" / "checkpoints").iterdir())
    assert saved == steps

"""Reading what runs have logged."""

from __future__ import annotations

from json_lines import write_lines

from arkasr.evaluation.results_io import read_metrics


def test_read_metrics_keeps_last_row_of_repeated_step(tmp_path, capsys):
    path = tmp_path / "base" / "metrics.jsonl"
    write_lines(path, [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "dev_error": 0.5}])
    with open(path, "a") as file:
        file.write('{"step": 3, "lo\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": 1.0}\n')
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path, "base")] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert "line 4: not a metrics row" in capsys.readouterr().out
    assert read_metrics(tmp_path, "teacher") == []

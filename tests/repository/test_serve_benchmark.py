"""The benchmark of the service runs on a few clips and prints its table. Speed is not tested."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from scripted_recognizer import ScriptedRecognizer
from served import served

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import serve as benchmark


@pytest.fixture
def recognizer(monkeypatch) -> ScriptedRecognizer:
    """The model of a service in this process, which the benchmark measures."""
    recognizer = ScriptedRecognizer()

    @contextmanager
    def service(_model, _options, _program):
        with served(recognizer) as running:
            yield os.getpid(), running.port

    monkeypatch.setattr(benchmark, "service", service)
    return recognizer


def run(datadir: Path) -> int:
    words = ["--model", "m", "--clips", str(datadir / "train.jsonl.gz"), "--count", "10", "--clients", "4"]
    with pytest.raises(SystemExit) as ended:
        benchmark.main(words)
    return int(ended.value.code)


def test_serve_prints_one_row_per_number_of_clients(datadir, recognizer, capsys):
    assert run(datadir) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \|$", printed, re.M)
    assert [(row[0], row[6]) for row in rows] == [("1", "0"), ("4", "0")] and rows[0][2] == "1.00"
    assert all(float(p50) <= float(p99) and int(peak) > 0 for _, _, _, p50, p99, peak, _ in rows)
    assert sum(map(len, recognizer.batches)) == 4 + 10 + 10 and "texts that differ: 0" in printed


def test_serve_with_random_weights_sends_noise_to_a_service_that_ends_transcripts(recognizer, tmp_path, monkeypatch):
    programs, own = [], benchmark.service
    monkeypatch.setattr(benchmark, "service", lambda *words: programs.append(words) or own(*words))
    words = ["--size", "mini", "--vocab", "300", "--count", "5", "--longest", "1.5", "--clients", "2", "--repeats", "2"]
    with pytest.raises(SystemExit) as ended:
        benchmark.main([*words, "--weights", str(tmp_path)])
    assert not ended.value.code and sum(map(len, recognizer.batches)) == 4 + 3 * 5
    ((model, _, (program,)),) = programs
    assert Path(model).parent == tmp_path and Path(program).name == "capped.py" and Path(program).is_file()


def test_serve_needs_clips_for_a_trained_model(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--model", "m"])
    assert "--clips: names what --model transcribes" in capsys.readouterr().err


def test_serve_fails_if_a_request_fails(datadir, recognizer, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ValueError("no text")

    monkeypatch.setattr(recognizer, "transcribe", fail)
    assert run(datadir) == 1
    assert re.search(r"\| 10 \|$", capsys.readouterr().out, re.M)

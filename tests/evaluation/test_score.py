"""The files that `score` reads and writes."""

from __future__ import annotations

import gzip
import json

import pytest
from json_lines import write_lines

from arkasr.errors import UserError
from arkasr.evaluation.score import score

REFERENCES = {"u1": "THE CAT SAT", "u2": "A DOG", "u3": ""}


def cut(identity, text):
    recording = {"id": identity, "sources": [], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    part = {"id": identity, "recording_id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "text": text}
    head = {"id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    return {**head, "recording": recording, "supervisions": [part]}


def hypothesis(identity, text, **more):
    fixed = {"reference": REFERENCES.get(identity, ""), "seconds": 1.0, "num_tokens": 3}
    fixed |= {"stopped": True, "looping": False}
    return {"id": identity, "hypothesis": text, **fixed, **more}


@pytest.fixture
def workspace(tmp_path):
    """A data folder with one test set of three utterances, and the decoded run "base"."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    data.mkdir()
    corpus = {"name": "toy", "metric": "wer", "normalizer": "english", "scale": "mini", "test_sets": ["test"]}
    (data / "corpus.json").write_text(json.dumps(corpus))
    with gzip.open(data / "test.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(cut(identity, text)) + "\n" for identity, text in REFERENCES.items())
    rows = [hypothesis("u1", "the cat sat"), hypothesis("u2", "a frog", stopped=False, looping=True)]
    rows += [hypothesis("u3", "thank you")]
    write_lines(exp / "base" / "decode" / "test.jsonl", rows)
    return exp, data


def scores_of(exp, run="base"):
    return json.loads((exp / run / "scores.json").read_text())


def test_score_writes_scores_results_and_figures(workspace, capsys, monkeypatch):
    exp, _ = workspace
    monkeypatch.chdir(exp.parent)
    score("exp", "data", ["base"])
    content = scores_of(exp)
    got = content["sets"]["test"]
    assert content["normalizer"] == {"name": "english", "version": "2"} and content["jiwer"].count(".") == 2
    assert (got["reference_length"], got["errors"], got["insertions"], got["not_stopped"]) == (5, 3, 2, 1)
    assert got["looping"] == 1
    assert got["rate_percent"] == pytest.approx(60) and got["missing_hypotheses"] == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith("Figure:  exp/figures/error_rates.png") and "Results: exp/RESULTS.md" in out
    assert max(map(len, out.splitlines())) <= 80 and "60.00" in out
    assert (exp / "RESULTS.md").read_text().startswith("# Results: toy, miniature")


def test_score_counts_missing_hypothesis_as_deletions_and_empty_hypotheses_separately(workspace, capsys):
    exp, data = workspace
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u2", "..."), hypothesis("u3", "")])
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["test"]
    assert (got["deletions"], got["missing_hypotheses"], got["empty_hypotheses"]) == (5, 1, 2)
    assert "warning: base, test: 1 of 3 utterances have no hypothesis (first: u1)" in capsys.readouterr().out


def test_score_reports_not_stopped_as_unknown_if_decoder_does_not_report_it(workspace):
    exp, data = workspace
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "the cat sat", stopped=None)])
    score(str(exp), str(data), ["base"])
    assert scores_of(exp)["sets"]["test"]["not_stopped"] is None
    assert "| 2 | 0 | - | 0 |" in (exp / "RESULTS.md").read_text()


def test_score_accepts_hypotheses_without_looping_key(workspace):
    exp, data = workspace
    row = hypothesis("u1", "the cat sat")
    del row["looping"]
    write_lines(exp / "base" / "decode" / "test.jsonl", [row])
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["test"]
    assert got["looping"] is None and got["not_stopped"] == 0


def test_score_compares_runs_with_base(workspace):
    exp, data = workspace
    write_lines(exp / "base_opd" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    score(str(exp), str(data), ["base", "base_opd"])
    assert scores_of(exp, "base_opd")["sets"]["test"]["against_base"]["relative_percent"] == -100
    assert "against_base" not in scores_of(exp)["sets"]["test"]


def test_score_counts_characters_of_mandarin_corpus(workspace):
    exp, data = workspace
    corpus = json.loads((data / "corpus.json").read_text()) | {"metric": "cer", "normalizer": "mandarin"}
    (data / "corpus.json").write_text(json.dumps(corpus))
    score(str(exp), str(data), ["base"])
    assert scores_of(exp)["sets"]["test"]["reference_length"] == len("thecatsat" + "adog")


def break_ids(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("v9", "x")])


def break_text(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "x", reference="other words")])


def break_line(exp, data):
    (exp / "base" / "decode" / "test.jsonl").write_text('{"id": "u1", "hyp')


def break_twice(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "x")] * 2)


def break_key(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [{"id": "u1", "stopped": True}])


def break_decode(exp, data):
    (exp / "base" / "decode" / "test.jsonl").unlink()


def break_references(exp, data):
    (data / "test.jsonl.gz").unlink()


def break_gzip(exp, data):
    (data / "test.jsonl.gz").write_bytes((data / "test.jsonl.gz").read_bytes()[:40])


def break_empty_set(exp, data):
    gzip.open(data / "test.jsonl.gz", "wt").close()


def break_corpus(exp, data):
    (data / "corpus.json").unlink()


def break_metric(exp, data):
    (data / "corpus.json").write_text('{"name": "x", "metric": "mer", "normalizer": "raw", "test_sets": ["test"]}')


def break_normalizer(exp, data):
    (data / "corpus.json").write_text('{"name": "x", "metric": "wer", "normalizer": "oral", "test_sets": ["test"]}')


def break_sets(exp, data):
    (data / "corpus.json").write_text('{"name": "x", "metric": "wer", "normalizer": "raw", "test_sets": []}')


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (break_ids, ["base/decode/test.jsonl: decoded from other data", "v9", "test.jsonl.gz"]),
        (break_text, ["base/decode/test.jsonl: decoded from other data", "u1", "data/test.jsonl.gz"]),
        (break_line, ["test.jsonl, line 1", "--stage 4"]),
        (break_twice, ["line 2", "duplicate id u1"]),
        (break_key, ["line 1: key 'hypothesis' is missing"]),
        (break_decode, ["base/decode/test.jsonl: no such file", "--stage 4"]),
        (break_references, ["test.jsonl.gz: no such file", "--stage 1"]),
        (break_gzip, ["test.jsonl.gz: cannot be read", "--stage 1"]),
        (break_empty_set, ["test.jsonl.gz: holds no cuts"]),
        (break_corpus, ["corpus.json: no such file", "--stage 1"]),
        (break_metric, ["corpus.json", "'mer'", "wer, cer"]),
        (break_normalizer, ["corpus.json", "'oral'", "english, mandarin, raw"]),
        (break_sets, ["corpus.json: key 'test_sets' is missing"]),
    ],
)
def test_score_rejects_broken_input_and_names_it(workspace, damage, parts):
    exp, data = workspace
    damage(exp, data)
    with pytest.raises(UserError) as caught:
        score(str(exp), str(data), ["base"])
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (exp / "RESULTS.md").exists()


def test_score_rejects_empty_runs(workspace):
    with pytest.raises(UserError, match="--runs"):
        score(str(workspace[0]), str(workspace[1]), [])

"""What scores.json and RESULTS.md hold besides the error rate: speakers, significance, parts, words on silence."""

from __future__ import annotations

import json
import re

import pytest
from decoded import ENGLISH, cut, scores_of, write_data, write_hypotheses
from json_lines import write_lines
from score_examples import rows_of

from arkasr.evaluation.texts_io import read_utterances
from arkasr.reporting.score import score
from arkasr.scoring.utterances import Utterance

TEXTS = {f"u{i}": f"word number {i}" for i in range(6)} | {"silent": ""}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A scored experiment with two speakers, two conditions and a silent clip. OPD has no errors."""
    tmp_path = tmp_path_factory.mktemp("workspace")
    data = write_data(tmp_path / "data", "toy", {"test": TEXTS}, ENGLISH)
    rows = []
    for number, (identity, text) in enumerate(TEXTS.items()):
        row = cut(identity, text, "English")
        row["supervisions"][0]["speaker"] = "ab"[number % 2]
        rows.append(row | {"custom": {"condition": "noisy" if number % 3 else 5}})
    (data / "test.jsonl.gz").unlink()
    write_lines(data / "test.jsonl", rows)
    corpus = json.loads((data / "corpus.json").read_text()) | {"sets": {"test": {"manifest": "test.jsonl"}}}
    (data / "corpus.json").write_text(json.dumps(corpus))
    wrong = {i: "word" if n % 2 else text for n, (i, text) in enumerate(TEXTS.items())} | {"silent": "thank you"}
    write_hypotheses(tmp_path / "exp", "base", "test", wrong)
    write_hypotheses(tmp_path / "exp", "base_opd", "test", TEXTS)
    score(str(tmp_path / "exp"), str(data), ["base", "base_opd"])
    return tmp_path / "exp", data


def test_read_utterances_reads_speaker_condition_and_duration(workspace):
    found = read_utterances(workspace[1] / "test.jsonl")
    assert found["u0"] == Utterance("word number 0", 1.0, "a", "5") and found["u1"].condition == "noisy"


def test_score_writes_speakers_parts_and_significance(workspace):
    exp, _ = workspace
    base, better = (scores_of(exp, run)["sets"]["test"] for run in ("base", "base_opd"))
    assert (base["speakers"], base["errors"], base["reference_length"]) == (2, 8, 18)
    assert base["utterance_error_percent"] == pytest.approx(100 * 4 / 7, abs=1e-3)
    assert base["interval_by_speaker_percent"] == [pytest.approx(22.2222), pytest.approx(66.6667)]
    assert base["hallucination"] == {
        "clips": 1,
        "clips_with_words": 1,
        "clips_percent": 100,
        "words": 2,
        "seconds": 1.0,
        "words_per_minute": 120,
    }
    errors = {kind: {row["label"]: row["errors"] for row in rows} for kind, rows in base["breakdown"].items()}
    assert errors == {"duration": {"under 2 s": 8}, "speaker": {"a": 2, "b": 6}, "condition": {"5": 4, "noisy": 4}}
    change = better["against_base"]
    assert change["interval_by_speaker_percent"] == [pytest.approx(-66.6667), pytest.approx(-22.2222)]
    assert 0 < change["p_matched_pairs"] < 0.1 and 0 < change["p_bootstrap"] < 0.2
    assert better["hallucination"]["words"] == 0


def test_results_have_a_section_for_each_theme(workspace):
    exp, _ = workspace
    text = (exp / "RESULTS.md").read_text()
    sections = {part.split("\n")[0]: part for part in re.split(r"\n#+ ", text)}
    assert "Fewer than 20 speakers: test (2)." in sections["Intervals by utterance and by speaker"]
    _, _, change = rows_of(sections["Significance of the change from Base"])
    assert change[:3] == ["test", "Base+OPD", "-44.44"]
    _, _, first, second = rows_of(sections["By condition"])
    assert first[:3] == ["test", "5", "3"] and second[1] == "noisy" and second[4:] == ["33.33", "0.00"]
    assert rows_of(sections["By speaker"])[2][-1] == "b"
    assert rows_of(sections["Silence and noise"])[2] == ["test", "Base", "1", "1 (100.0 %)", "2", "120.0"]

"""Recall and leak of hotwords, against counts by hand, and the file of hotwords."""

from __future__ import annotations

import numpy as np
import pytest

from arkasr.errors import UserError
from arkasr.scoring.bootstrap import interval
from arkasr.scoring.hotwords import count_hotwords, hotword_summary, read_hotwords

HOTWORDS = ["ark", "new york", "york"]
REFERENCES = ["the ark in new york", "a dark park", "ark ark", "", "york new"]
HYPOTHESES = ["the park in new york", "a dark ark", "ark ark ark", "york", "york new"]


def test_occurrences_are_runs_of_whole_tokens():
    counts = count_hotwords(HOTWORDS, REFERENCES, HYPOTHESES, "wer")
    assert counts.spoken.tolist() == [3, 0, 2, 0, 1]
    assert counts.found.tolist() == [2, 0, 2, 0, 1]
    assert counts.added.tolist() == [0, 1, 1, 1, 0]
    assert counts.missed == {"ark": 1} and counts.leaked == {"ark": 2, "york": 1}


def test_characters_are_tokens_of_a_character_error_rate():
    counts = count_hotwords(["方舟"], ["用方舟识别", "方 舟"], ["用方周识别", "方舟方舟"], "cer")
    assert (counts.spoken.tolist(), counts.found.tolist(), counts.added.tolist()) == ([1, 1], [0, 1], [0, 1])


def test_summary_holds_shares_and_their_intervals():
    counts = count_hotwords([*HOTWORDS, "ark"], REFERENCES, HYPOTHESES, "wer")
    found = hotword_summary(counts, ["a", "a", "b", "b", "b"])
    numbers = [found[key] for key in ("hotwords", "spoken", "found", "added", "utterances_with_leak")]
    assert numbers == [3, 6, 5, 3, 3]
    assert found["recall_percent"] == pytest.approx(100 * 5 / 6, abs=1e-3) and found["leak_percent"] == 60
    leaks = np.array([0, 1, 1, 1, 0])
    expected = [100 * value for value in interval(leaks, np.ones(5, dtype=np.int64))]
    assert found["leak_interval_percent"] == pytest.approx(expected, abs=1e-3)
    assert found["leak_interval_by_speaker_percent"] == [50, pytest.approx(200 / 3, abs=1e-3)]
    assert found["recall_interval_percent"][0] < found["recall_percent"] <= found["recall_interval_percent"][1]
    assert found["most_leaked"] == {"ark": 2, "york": 1} and found["most_missed"] == {"ark": 1}


def test_recall_is_unknown_if_no_reference_holds_a_hotword():
    found = hotword_summary(count_hotwords(["boat"], REFERENCES, HYPOTHESES, "wer"))
    assert found["recall_percent"] is found["recall_interval_percent"] is None
    assert found["leak_percent"] == 0 and found["leak_interval_by_speaker_percent"] is None


def test_hotwords_are_words_or_lines_of_files(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffARK  ASR\r\n\r\n 方舟 \nARK\n".encode())
    assert read_hotwords(["ARK", f"@{file}", " Librispeech "]) == ("ARK", "ARK ASR", "方舟", "Librispeech")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("@missing.txt", "missing.txt: cannot be read"),
        ("@empty.txt", "@empty.txt: holds no hotword"),
        (" ", "holds no hotword"),
        ("names.txt", "names.txt: is a file, but a word is expected; write @names.txt"),
        ("@latin.txt", "latin.txt, line 1: byte 2 is not UTF-8"),
    ],
)
def test_wrong_hotwords_are_named(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"empty.txt": b"\n \n", "names.txt": b"ARK\n", "latin.txt": "Müller".encode("latin1")}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_hotwords(["ARK", value])

"""Transcript files of all formats, and what is wrong with them."""

from __future__ import annotations

import gzip
import json

import pytest

from arkasr.errors import UserError
from arkasr.scoring.transcript_file import read_transcripts
from arkasr.scoring.utterances import Utterance


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a file and reads its transcripts."""

    def write_and_read(name, content, is_reference=True, chosen=""):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return read_transcripts(str(tmp_path / name), is_reference, chosen)

    return write_and_read


def texts(found):
    return {identity: utterance.text for identity, utterance in found.utterances.items()}


@pytest.mark.parametrize(
    ("name", "content", "chosen"),
    [
        ("a.txt", "A b\n\nc", ""),
        ("a.TXT", "\ufeffA b\r\n\r\nc\r\n", ""),
        ("a.hyp", "A b\n\nc\n", "text"),
        ("a.txt.gz", "A b\n\nc\n", ""),
    ],
)
def test_text_has_one_utterance_per_line(read, name, content, chosen):
    found = read(name, content, chosen=chosen)
    assert found.numbered and texts(found) == {"1": "A b", "2": "", "3": "c"}


@pytest.mark.parametrize(("name", "chosen"), [("text", ""), ("text.gz", ""), ("hyp.txt", "kaldi"), ("hyp", "kaldi")])
def test_kaldi_text_has_ids(read, name, chosen):
    found = read(name, "u1 A b\nu2\n\nu3\tc\u2028d\n", chosen=chosen)
    assert not found.numbered and texts(found) == {"u1": "A b", "u2": "", "u3": "c\u2028d"}


def test_text_that_looks_like_kaldi_is_refused_unless_the_format_is_named(read):
    content = "utt-01 a b\nutt-02 c\n"
    with pytest.raises(UserError, match="begins with an id, such as utt-01.*--format kaldi, or --format text"):
        read("a.txt", content)
    assert texts(read("a.txt", content, chosen="text")) == {"1": "utt-01 a b", "2": "utt-02 c"}


def test_trn_ends_in_ids(read):
    found = read("a.trn", ";; comment\nA b (spk-1)\n(spk-2)\n\nc (d) e (spk-3) \n")
    assert texts(found) == {"spk-1": "A b", "spk-2": "", "spk-3": "c (d) e"}


def test_stm_has_speakers_durations_and_conditions(read):
    lines = [
        ";; comment",
        "f 1 anna 0.00 2.50 <O,F0> A b",
        "f 1 ben 3 4 IGNORE_TIME_SEGMENT_IN_SCORING",
        "f 1 ben 4 5.0 c d",
        "f A ben 5 6 <O>",
    ]
    found = read("a.stm", "\n".join(lines))
    assert found.utterances == {
        "f-1-0.00-2.50": Utterance("A b", 2.5, "anna", "O,F0"),
        "f-1-4-5.0": Utterance("c d", 1.0, "ben", ""),
        "f-A-5-6": Utterance("", 1.0, "ben", "O"),
    }
    assert [segment.id for segment in found.segments] == ["f-1-0.00-2.50", "", "f-1-4-5.0", "f-A-5-6"]


def test_ctm_is_one_utterance_per_channel_in_the_order_of_times(read):
    found = read("a.ctm", ";; c\nf 1 2.0 0.5 b\nf 1 1.0 0.5 A 0.9\ng 1 0 1 c\ng 2 0 1 d\n", is_reference=False)
    assert texts(found) == {"g-1": "c", "g-2": "d", "f": "A b"}
    assert [word.middle for word in found.words] == [0.5, 0.5, 1.25, 2.25]


@pytest.mark.parametrize(
    ("row", "is_reference", "expected"),
    [
        ({"id": "u", "reference": "r", "hypothesis": "h", "text": "t"}, True, Utterance("r")),
        ({"id": "u", "reference": "r", "hypothesis": "h", "text": "t"}, False, Utterance("h")),
        ({"audio_filepath": "u", "text": "t", "pred_text": "p", "duration": 2}, False, Utterance("p", 2.0)),
        (
            {"key": "u", "sentence": "t", "speaker_id": 7, "condition": "noisy"},
            True,
            Utterance("t", None, "7", "noisy"),
        ),
        ({"id": "u", "text": "", "seconds": None, "speaker": None}, True, Utterance("")),
    ],
)
def test_jsonl_reads_the_first_known_key(read, row, is_reference, expected):
    assert read("a.jsonl", json.dumps(row), is_reference).utterances == {"u": expected}


def test_jsonl_reads_cut_manifests(read):
    part = {"text": "a b", "speaker": "s"}
    row = {"id": "u", "duration": 2.5, "custom": {"condition": "10 dB"}, "supervisions": [part, part | {"text": None}]}
    assert read("cuts.jsonl.gz", json.dumps(row)).utterances == {"u": Utterance("a b ", 2.5, "s", "10 dB")}


def test_jsonl_without_ids_is_numbered(read):
    assert read("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n').numbered


def test_jsonl_says_whether_transcripts_stopped_if_all_rows_do(read):
    rows = [{"id": "a", "text": "", "stopped": True}, {"id": "b", "text": "", "stopped": False}]
    lines = "\n".join(map(json.dumps, rows))
    assert read("a.jsonl", lines, False).stopped == {"a": True, "b": False}
    assert read("a.jsonl", lines + '\n{"id": "c", "text": ""}', False).stopped == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "holds no utterance"),
        ("a.txt", "ok\ncaf\u00e9".encode("latin1"), "line 2: byte 4 is not UTF-8; .* iconv -f latin1"),
        ("a.txt", "ok".encode("utf-16"), "is UTF-16"),
        ("a.csv", "id,text\n", "the format is unknown.*--format .one of: text, kaldi, jsonl"),
        ("text", "u1 a\nu2 b\nu1 c\n", "line 3: repeats utterance 'u1' of line 1"),
        ("a.trn", "a b (u1)\na b\n", "line 2: must end in an utterance id"),
        ("a.trn", "{ a / b } c (u1)\n", "line 1: holds alternative transcripts"),
        ("a.trn", ";; nothing\n", "holds no utterance"),
        ("a.stm", "f 1 s 0\n", "line 1: must be 'recording channel speaker begin end"),
        ("a.stm", "f 1 s 0 nan a\n", "line 1: time 'nan' must be a number of seconds"),
        ("a.stm", "f 1 s 2 1 a\n", "line 1: ends at 1 s, not after its begin 2 s"),
        ("a.ctm", "f 1 0 1\n", "line 1: must be 'recording channel begin duration word"),
        ("a.ctm", "f 1 -1 1 a\n", "line 1: time '-1' must be"),
        ("a.ctm", "f 1 0 1 <ALT_BEGIN>\n", "alternative transcripts"),
        ("a.jsonl", "{}\n[1]\n", "line 2: must be a JSON object"),
        ("a.jsonl", '{"id": "u", "text": "a"}\n{"id": "v"', "line 2: not valid JSON"),
        ("a.jsonl", '{"id": "u", "text": "\\ud800"}', "line 1: not valid JSON"),
        ("a.jsonl", '{"id": "u"}', "line 1: has no key for the text; use one of: reference"),
        ("a.jsonl", '{"id": "u", "text": null}', "line 1: key 'text' must be text.*empty text for silence"),
        ("a.jsonl", '{"id": "u", "text": "a"}\n{"text": "b"}', "line 2: has no key for the id"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "line 2: repeats utterance '1'"),
        ("a.jsonl", '{"id": "u", "text": "a", "duration": "2"}', "key 'duration' must be seconds"),
        ("a.txt.gz", None, "cannot be read"),
    ],
)
def test_bad_files_are_errors_that_say_where(read, tmp_path, name, content, message):
    if content is None:
        (tmp_path / name).write_bytes(b"no gzip")
        with pytest.raises(UserError, match=message):
            read_transcripts(str(tmp_path / name), True)
        return
    with pytest.raises(UserError, match=message):
        read(name, content)


def test_absent_files_and_folders_are_errors(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_transcripts(str(path), True, "text")

from __future__ import annotations

import json
from dataclasses import replace

from arkasr.transcription.formats import FORMATS, from_record, record
from arkasr.transcription.results import Failed, Segment, Transcription, Word

WORDS = (Word("你", 3661.5, 3661.75), Word("好", 3661.75, 3662.0))
RESULT = Transcription(
    "calls/a b.m4a",
    "AT <HOME> & 你好",
    (Segment("AT <HOME> &", 0.25, 1.5, stopped=True, looping=False), Segment("你好", 3661.5, 3662.0004, WORDS)),
    3700.0,
    "English",
    "exp/base/final",
    ("cut into 2 windows",),
)


def test_txt_is_the_text_on_one_line():
    assert FORMATS["txt"](replace(RESULT, text="one\ntwo  three")) == "one two three\n"


def test_srt_numbers_subtitles_and_has_hours():
    assert FORMATS["srt"](RESULT) == (
        "1\n00:00:00,250 --> 00:00:01,500\nAT <HOME> &\n\n2\n01:01:01,500 --> 01:01:02,000\n你好\n\n"
    )


def test_vtt_escapes_markup():
    assert FORMATS["vtt"](RESULT) == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.500\nAT &lt;HOME&gt; &amp;\n\n01:01:01.500 --> 01:01:02.000\n你好\n\n"
    )


def test_subtitle_text_cannot_look_like_times():
    segment = Segment("a\n\n00:00:01,000 --> 00:00:02,000", 0.0, 1.0)
    assert FORMATS["srt"](replace(RESULT, segments=(segment,))).count("-->") == 1


def test_tsv_has_a_header_and_one_row_per_segment():
    rows = FORMATS["tsv"](replace(RESULT, name="a\tb.wav")).splitlines()
    assert rows[0].split("\t") == ["name", "start", "end", "text"]
    assert rows[1].split("\t") == ["a b.wav", "0.250", "1.500", "AT <HOME> &"]
    assert len(rows) == 3


def test_json_and_jsonl_hold_all_fields():
    (line,) = FORMATS["jsonl"](RESULT).splitlines()
    assert json.loads(line) == json.loads(FORMATS["json"](RESULT)) == record(RESULT)
    assert "你好" in line
    first, second = json.loads(line)["segments"]
    assert first == {"text": "AT <HOME> &", "start": 0.25, "end": 1.5, "stopped": True, "looping": False}
    assert second["end"] == 3662.0 and second["words"][1] == {"text": "好", "start": 3661.75, "end": 3662.0}


def test_a_record_becomes_the_same_transcription_again():
    exact = replace(RESULT, segments=(RESULT.segments[0], replace(RESULT.segments[1], end=3662.0)))
    assert from_record(json.loads(json.dumps(record(exact)))) == exact


def test_a_failed_file_has_a_name_and_an_error():
    assert record(Failed("a.wav", "no such file")) == {"name": "a.wav", "error": "no such file"}


def test_silence_gives_valid_empty_documents():
    empty = replace(RESULT, text="", segments=())
    assert [FORMATS[kind](empty) for kind in ("txt", "srt", "vtt", "tsv")] == [
        "\n",
        "",
        "WEBVTT\n\n",
        "name\tstart\tend\ttext\n",
    ]

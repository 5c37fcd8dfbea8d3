"""Values of table rows: transcripts, languages, times, names and ids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.corpora.layouts.entries import BACKWARDS, BAD_TEXT, BEFORE_BEGIN, NOT_UTF8
from arkasr.corpora.layouts.table_values import (
    ADDRESS,
    BAD_AUDIO,
    END_AND_DURATION,
    NO_PATH,
    NOT_A_LANGUAGE,
    NOT_A_TIME,
    NOT_TEXT,
    OTHER_TASK,
    TWO_LANGUAGES,
    Languages,
    Times,
    allowed_id,
    audio_fault,
    make_id,
    name,
    task_fault,
    times,
    transcript,
)
from arkasr.corpora.layouts.transcripts import id_fault
from arkasr.languages import LANGUAGES

PROPERTY = settings(max_examples=100, deadline=None)
SECONDS = st.floats(0, 1e5, allow_nan=False)


@pytest.mark.parametrize(
    "value, fault",
    [("a/b c.wav", ""), ("/x.flac", ""), (None, NO_PATH), ("", NO_PATH), (7, BAD_AUDIO), ({"path": "a"}, BAD_AUDIO),
     ("a\0b.wav", BAD_AUDIO), ("https://x.org/a.wav", ADDRESS), ("s3://bucket/a.wav", ADDRESS)],
)  # fmt: skip
def test_audio_must_be_a_local_path(value, fault):
    assert audio_fault(value) == fault


@pytest.mark.parametrize(
    "value, expected",
    [
        ("  two\u3000 words\n", ("two words", "", "")),
        (None, (None, "", "")),
        ("", (None, "", "")),
        (" \ufeff\n", (None, "", "")),
        (7, (None, "", NOT_TEXT)),
        (math.nan, (None, "", NOT_TEXT)),
        (["a"], (None, "", NOT_TEXT)),
        ("a\x00b", ("a\x00b", "", BAD_TEXT)),
        ("a\ud800b", ("a\ud800b", "", BAD_TEXT)),
        ("a\udcffb", ("a\udcffb", "", NOT_UTF8)),
        ("language English<asr_text>hello", ("hello", "English", "")),
        ("language None<asr_text>hello", ("hello", "None", "")),
        ("language Chinese<asr_text> ", (None, "Chinese", "")),
        ("language lessons are hard", ("language lessons are hard", "", "")),
    ],
)
def test_transcript_is_text_or_unknown_or_has_a_reason(value, expected):
    assert transcript(value) == expected


@PROPERTY
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="\ufeff\u200b"), min_size=1))
def test_transcript_keeps_any_unicode_text(text):
    assert transcript(text) == (text, "", "")
    assert transcript(f"language German<asr_text>{text}") == (text, "German", "")


@pytest.mark.parametrize(
    "value, prefix, expected",
    [
        ("de", "", ("German", "")),
        ("zh_CN", "", ("Chinese", "")),
        (None, "English", ("English", "")),
        ("None", "", ("", "")),
        ("", "None", ("", "")),
        ("en", "English", ("English", "")),
        ("None", "English", ("English", "")),
        ("de", "English", ("", TWO_LANGUAGES)),
        (7, "", ("", NOT_A_LANGUAGE)),
        ("Germann", "", ("", "unknown language 'Germann', did you mean German?")),
        ("", "Germann", ("", "unknown language 'Germann', did you mean German?")),
        ("qqqqq", "", ("", "unknown language 'qqqqq'")),
    ],
)
def test_language_comes_from_column_and_prefix(value, prefix, expected):
    assert Languages().read(value, prefix) == expected


def test_every_language_is_read_by_name_and_code():
    for language in LANGUAGES.values():
        assert Languages().read(language.name, "") == Languages().read(language.code.upper(), "") == (language.name, "")


def test_unknown_languages_do_not_give_any_number_of_reasons():
    languages = Languages()
    faults = {languages.read(f"wrong{number}", "")[1] for number in range(100)}
    assert "unknown language" in faults and len(faults) == 21


@pytest.mark.parametrize(
    "values, expected",
    [
        ((None, None, None), Times()),
        (("", "", ""), Times()),
        ((-1, -1, None), Times()),  # the published repository's "whole file"
        ((-1.0, "-1", None), Times()),
        ((None, None, 3.5), Times()),  # a duration alone describes the file
        ((0.0, None, 3.5), Times(0.0, 3.5)),  # NeMo
        ((2.5, None, 1.0), Times(2.5, 3.5)),
        ((2.5, None, None), Times(2.5, None)),
        ((2.5, -1, None), Times(2.5, None)),
        ((None, 4, None), Times(0.0, 4.0)),
        (("1.5", " 2.5", None), Times(1.5, 2.5)),
        ((1, 3, 2.004), Times(1.0, 3.0)),
        ((1, 3, 1), Times(fault=END_AND_DURATION)),
        ((-1, 3, None), Times(fault=BEFORE_BEGIN)),
        ((-0.5, 3, None), Times(fault=BEFORE_BEGIN)),
        ((3, 2, None), Times(3.0, 2.0, BACKWARDS)),
        ((3, 3, None), Times(3.0, 3.0, BACKWARDS)),
        ((0, -2, None), Times(0.0, -2.0, BACKWARDS)),
        ((math.nan, 3, None), Times(fault=NOT_A_TIME)),
        ((0, math.inf, None), Times(fault=NOT_A_TIME)),
        ((0, "nan", None), Times(fault=NOT_A_TIME)),
        ((0, "1_0", None), Times(fault=NOT_A_TIME)),
        (("00:01", 3, None), Times(fault=NOT_A_TIME)),
        ((True, 3, None), Times(fault=NOT_A_TIME)),
        (([1], 3, None), Times(fault=NOT_A_TIME)),
        ((10**400, None, None), Times(fault=NOT_A_TIME)),
    ],
)
def test_times_of_every_format(values, expected):
    assert times(*values) == expected


@PROPERTY
@given(SECONDS, SECONDS)
def test_times_round_trip_as_numbers_and_as_text(one, other):
    start, end = sorted((one, other))
    expected = Times(start, end, "" if start < end else BACKWARDS)
    assert times(start, end, None) == times(repr(start), repr(end), None) == expected


@PROPERTY
@given(SECONDS, st.floats(1e-3, 1e5))
def test_start_and_duration_give_the_end(start, duration):
    assert times(start, None, duration) == Times(start, start + duration)


@pytest.mark.parametrize("task, fault", [("asr", ""), ("ASR", ""), (None, ""), ("", ""), ("ast", OTHER_TASK)])
def test_task_must_be_asr(task, fault):
    assert task_fault(task) == fault


@pytest.mark.parametrize(
    "value, expected",
    [(7, ("7", "")), (" s 1 ", ("s 1", "")), (None, ("", "")), (True, ("", "fault")), (1.5, ("", "fault")),
     ("a\x07b", ("a\x07b", "fault"))],
)  # fmt: skip
def test_names_are_text_or_whole_numbers(value, expected):
    assert name(value, "fault") == expected


def test_made_ids_differ_by_folder_suffix_and_times():
    places = ["a/b.wav", "a_b.wav", "c/b.wav", "a/b.flac", "a-b.wav"]
    spans = [(0.0, None), (0.0, 1.0), (0.001, 1.0), (0.0, 1.001), (1.0, None)]
    made = [make_id(place, *span) for place in places for span in spans]
    assert len(set(made)) == len(made) == 25
    assert make_id("x/call 17.wav", 12.5, 15.25).startswith("call_17-12.50-15.25-")


@PROPERTY
@given(st.text(min_size=1), SECONDS, st.none() | SECONDS)
def test_made_ids_are_allowed_and_stable(audio, start, end):
    made = make_id(audio, start, end)
    assert id_fault(made) == "" and made == make_id(audio, start, end)


@PROPERTY
@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_with_any_characters_become_allowed_and_stay_different(one, other):
    assert id_fault(allowed_id(one)) == ""
    assert (allowed_id(one) == allowed_id(other)) == (one == other)


def test_allowed_ids_are_kept():
    assert allowed_id("84-121123-0001") == "84-121123-0001"
    assert allowed_id("speaker 1/utt 2").startswith("speaker_1_utt_2-")

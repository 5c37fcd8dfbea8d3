"""Values of table rows: transcripts, languages, tasks and names."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.corpora.layouts.entries import BAD_TEXT, NOT_UTF8
from arkasr.corpora.layouts.table_values import (
    ADDRESS,
    BAD_AUDIO,
    NO_PATH,
    NOT_A_LANGUAGE,
    NOT_TEXT,
    OTHER_TASK,
    TWO_LANGUAGES,
    Languages,
    audio_fault,
    name,
    task_fault,
    transcript,
)
from arkasr.languages import LANGUAGES

PROPERTY = settings(max_examples=100, deadline=None)


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

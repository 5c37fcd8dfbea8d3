from __future__ import annotations

from arkasr.transcription.cues import MOST_COLUMNS, MOST_SECONDS, cues
from arkasr.transcription.results import Segment, Transcription, Word


def found(segment):
    return list(cues(Transcription("a", segment.text, (segment,), segment.end, "English", "m")))


def spoken(words, step=0.5):
    timed = tuple(Word(word, i * step, (i + 1) * step) for i, word in enumerate(words))
    return Segment(" ".join(words), 0.0, len(words) * step, timed)


def test_segments_without_word_times_stay_whole():
    segment = Segment("word " * 100, 1.0, 28.0)
    assert found(segment) == [(1.0, 28.0, segment.text)]


def test_long_segments_are_divided_at_words_and_lose_none():
    words = [f"word{i}," for i in range(60)]
    parts = found(spoken(words))
    assert " ".join(part.text for part in parts).split() == words
    assert all(part.end - part.start <= MOST_SECONDS and len(part.text) <= MOST_COLUMNS for part in parts)
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]


def test_a_subtitle_ends_at_a_long_pause():
    words = (Word("one", 0.0, 0.5), Word("two", 2.0, 2.5))
    assert [part.text for part in found(Segment("one two", 0.0, 2.5, words))] == ["one", "two"]


def test_chinese_keeps_its_text_without_spaces_and_counts_two_columns():
    text = "今天天气很好\uff0c我们去公园\u3002" * 5
    signs = [sign for sign in text if sign.isalpha()]
    words = tuple(Word(sign, 0.1 * i, 0.1 * (i + 1)) for i, sign in enumerate(signs))
    parts = found(Segment(text, 0.0, 6.0, words))
    assert "".join(part.text for part in parts) == text and len(parts) == 2
    assert all(2 * len(part.text) <= MOST_COLUMNS + 2 for part in parts)


def test_words_that_are_not_in_the_text_leave_the_segment_whole():
    segment = Segment("one two", 0.0, 20.0, (Word("three", 0.0, 20.0),))
    assert found(segment) == [(0.0, 20.0, "one two")]

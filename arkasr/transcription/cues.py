"""Subtitles: segments, or parts of them that are short enough to read if words have times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import east_asian_width

from arkasr.transcription.results import Segment, Transcription, Word

MOST_SECONDS = 7.0  # of one subtitle
MOST_COLUMNS = 84  # two lines of 42 narrow characters
LONG_PAUSE_S = 1.0  # between words, at which a subtitle ends


class Cue(NamedTuple):
    """One subtitle.

    Attributes:
        start: Seconds from the start of the file.
        end: Seconds.
        text: Its text.
    """

    start: float
    end: float
    text: str


def cues(result: Transcription) -> Iterator[Cue]:
    """Divide a transcription into subtitles.

    Args:
        result: The transcription.

    Yields:
        One subtitle per segment. A segment whose words have times is divided at words, so that a subtitle lasts at most
        `MOST_SECONDS`, has at most `MOST_COLUMNS` columns and spans no long pause, as far as single words allow it.
    """
    for segment in result.segments:
        places = _places(segment)
        if not places:
            yield Cue(segment.start, segment.end, segment.text)
            continue
        first = 0
        for i in range(1, len(places) + 1):
            if i == len(places) or _is_full(segment, places, first, i):
                text = segment.text[places[first] : places[i] if i < len(places) else None]
                yield Cue(segment.words[first].start, segment.words[i - 1].end, text.strip())
                first = i


def _places(segment: Segment) -> list[int]:
    """Return where each word begins in the text. Empty if there are no words, or one is not in the text."""
    places, end = [], 0
    for word in segment.words:
        place = segment.text.find(word.text, end)
        if place < 0:
            return []
        places.append(place)
        end = place + len(word.text)
    return places


def _is_full(segment: Segment, places: list[int], first: int, word: int) -> bool:
    """Return whether a subtitle that begins with the word `first` ends before this word."""
    words: tuple[Word, ...] = segment.words
    text = segment.text[places[first] : places[word] + len(words[word].text)]
    pause = words[word].start - words[word - 1].end
    long = words[word].end - words[first].start > MOST_SECONDS
    return long or pause > LONG_PAUSE_S or _columns(text) > MOST_COLUMNS


def _columns(text: str) -> int:
    """Return the width of a text. Characters of Chinese, Japanese and Korean are two columns wide."""
    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)

"""What a transcription returns. All outputs, such as files, Python and the service, are made from these records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word and its time.

    Attributes:
        text: The word, with its punctuation. In languages that are written without spaces, one character.
        start: Start in seconds from the start of the file.
        end: End in seconds.
    """

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two cuts of the audio.

    Attributes:
        text: Its text, without spaces at its ends.
        start: Start in seconds from the start of the file.
        end: End in seconds.
        words: Its words with their times, if they were asked for.
        stopped: Whether the model ended the text. False: a limit of tokens cut it. None: not reported.
        looping: Whether the text repeats a phrase too often, at its end or before it (see `redecoding.is_repeated`).
            None: not at its middle, and not reported for its end.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    stopped: bool | None = None
    looping: bool | None = None


@dataclass(frozen=True)
class Transcription:
    """The text of one file.

    Attributes:
        name: Name of the file as it was passed.
        text: The whole text.
        segments: Its segments in order. None of them is empty.
        seconds: Length of the audio.
        language: English name of the language that the model was told.
        model: Name of the model.
        notes: What the reader should know, one sentence each: audio that ends early, a text that a limit cut, a loop
            that was decoded again.
    """

    name: str
    text: str
    segments: tuple[Segment, ...]
    seconds: float
    language: str
    model: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A file that could not be transcribed.

    Attributes:
        name: Name of the file as it was passed.
        reason: What is wrong and what to do, in one sentence.
    """

    name: str
    reason: str

"""The utterances that a corpus's own files list, and the reasons why some of them cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Reasons as they appear in dropped.jsonl and corpus.json.
NO_AUDIO = "audio file is missing"
NO_TRANSCRIPT = "audio without transcript"
NO_TEXT = "no text"
NOT_UTF8 = "text is not UTF-8"
BAD_TEXT = "control character in the text"
BAD_ID = "id is not allowed"
REPEATED = "repeated id"
REPEATED_RECORDING = "repeated id of a recording"
UNREADABLE = "audio cannot be read"
BAD_PATH = "path of the audio is not UTF-8"
EMPTY = "audio is empty"
SEVERAL_CHANNELS = "audio has several channels"
NO_CHANNEL = "audio has no such channel"
BEFORE_BEGIN = "begins before its recording"
BACKWARDS = "ends before it begins"
TOO_SHORT = "shorter than one sample"
PAST_END = "ends after its recording"
INCOMPLETE = "a field is missing in the transcript"
UNTRANSCRIBED = "no transcript, which dev and test sets need"
NO_LANGUAGE = "no language in the row or in corpus.yaml"


@dataclass
class NoOptions:
    """The section `options` of corpus.yaml for layouts without options."""


@dataclass(slots=True)
class Entry:
    """One utterance that the corpus lists.

    Attributes:
        part: Corpus part.
        id: Utterance id.
        audio: Path of the audio file.
        text: Transcript, as written in the corpus. None if no transcript is known.
        reason: Why the utterance cannot be used. Empty if it can.
        speaker: Name of the speaker. None if the corpus does not name one.
        recording: Id of the long recording. Empty if the utterance is the whole file.
        begin: Start in a long recording, in seconds.
        end: End in a long recording, in seconds. None for the end of the file.
        language: English name of the language, if the row names one. Empty: the language of corpus.yaml.
        cut: The cut itself as a dictionary, of a corpus that holds Lhotse's cuts: with one supervision and this id.
            None: stage 1 makes the cut of the fields above.
    """

    part: str
    id: str
    audio: Path
    text: str | None = ""
    reason: str = ""
    speaker: str | None = None
    recording: str = ""
    begin: float = 0.0
    end: float | None = None
    language: str = ""
    cut: dict[str, Any] | None = None

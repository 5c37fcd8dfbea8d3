"""The utterances that a corpus's own files list, and the reasons why some of them cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arkasr.utils.console import track

# Reasons as they appear in dropped.jsonl and corpus.json.
NO_AUDIO = "transcript without audio"
NO_TRANSCRIPT = "audio without transcript"
NO_TEXT = "no text"
NOT_UTF8 = "text is not UTF-8"
REPEATED = "repeated id"
UNREADABLE = "audio cannot be read"
EMPTY = "audio is empty"
BACKWARDS = "ends before it begins"
PAST_END = "ends after its recording"
INCOMPLETE = "a field is missing in the transcript"
LEFT_OUT = "left out by Lhotse"
# Transcripts round the ends of segments, and opus rounds lengths to whole frames. A segment that ends at most this
# much after its recording is kept and trimmed.
END_TOLERANCE_S = 0.1


@dataclass(slots=True)
class Entry:
    """One utterance that the corpus lists.

    Attributes:
        part: Corpus part.
        id: Utterance id.
        audio: Path of the audio file.
        text: Transcript.
        reason: Why the utterance cannot be used. Empty if it can.
        begin: Start in a long recording, in seconds.
        end: End in a long recording, in seconds. None if the utterance is the whole file.
    """

    part: str
    id: str
    audio: Path
    text: str = ""
    reason: str = ""
    begin: float = 0.0
    end: float | None = None


@dataclass
class Scan:
    """All utterances of the scanned parts.

    Attributes:
        entries: The utterances.
        malformed: Whether a transcript file has a blank line, at which Lhotse's recipe fails.
    """

    entries: list[Entry]
    malformed: bool = False

    def needs_mirror(self, skipped_by_lhotse: frozenset[str]) -> bool:
        """Return whether Lhotse's recipe would fail on the corpus, or keep unusable utterances.

        Args:
            skipped_by_lhotse: Reasons for which the recipe itself skips an utterance.

        Returns:
            True if the recipe must read a mirror with the usable utterances instead of the corpus.
        """
        return self.malformed or any(entry.reason and entry.reason not in skipped_by_lhotse for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one audio file.

    Attributes:
        frames: Number of samples per channel.
        rate: Sampling rate in Hz.
        reason: Why the file cannot be used. Empty if it can.
    """

    frames: int = 0
    rate: int = 0
    reason: str = ""


def parse_line(raw: bytes) -> tuple[str, str, str] | None:
    """Parse a transcript line of the form `<id> <text>`.

    Args:
        raw: The line as read from the file.

    Returns:
        Utterance id, text with single spaces, and reason (empty if the line is fine). None for a blank line.
    """
    try:
        fields, reason = raw.decode("utf-8").split(maxsplit=1), ""
    except UnicodeDecodeError:
        fields, reason = raw.decode("utf-8", "replace").split(maxsplit=1), NOT_UTF8
    if not fields:
        return None
    text = " ".join(fields[1].split()) if len(fields) > 1 else ""
    return fields[0], text, reason or ("" if text else NO_TEXT)


def mark_repeated(entries: Iterable[Entry], groups: list[list[str]]) -> None:
    """Give the reason REPEATED to every usable entry whose id an earlier entry of its group has.

    Args:
        entries: Entries of all parts, changed in place.
        groups: Lists of parts. Ids must be unique within the parts of one list.
    """
    group_of = {part: number for number, parts in enumerate(groups) for part in parts}
    seen: set[tuple[int, str]] = set()
    for entry in entries:
        if entry.reason:
            continue
        key = (group_of[entry.part], entry.id)
        if key in seen:
            entry.reason = REPEATED
        seen.add(key)


def read_header(path: Path) -> Header:
    """Read the header of an audio file, and its last sample to detect a truncated file without decoding all of it.

    Args:
        path: The file.

    Returns:
        The header. `reason` is set if the file is missing, empty, truncated or not audio.
    """
    import soundfile

    if not path.is_file():
        return Header(reason=NO_AUDIO)
    if path.stat().st_size == 0:
        return Header(reason=EMPTY)
    try:
        with soundfile.SoundFile(path) as audio:
            if audio.frames <= 0:
                return Header(reason=EMPTY)
            audio.seek(audio.frames - 1)
            complete = len(audio.read(1)) == 1
            return Header(audio.frames, audio.samplerate, "" if complete else UNREADABLE)
    except (soundfile.SoundFileError, OSError):
        return Header(reason=UNREADABLE)


def check_audio(entries: list[Entry], num_jobs: int) -> dict[Path, Header]:
    """Read the header of every audio file of usable entries, and give the unusable entries their reason.

    Args:
        entries: Entries of all parts, changed in place.
        num_jobs: Number of threads.

    Returns:
        The headers by path.
    """
    paths = list(dict.fromkeys(entry.audio for entry in entries if not entry.reason))
    with ThreadPoolExecutor(max(1, num_jobs)) as pool:
        headers = dict(zip(paths, list(track(pool.map(read_header, paths), "Checking audio", len(paths), "files"))))
    for entry in entries:
        if not entry.reason:
            entry.reason = _audio_reason(entry, headers[entry.audio])
    return headers


def _audio_reason(entry: Entry, header: Header) -> str:
    if header.reason or entry.end is None:
        return header.reason
    if entry.end <= entry.begin:
        return BACKWARDS
    return PAST_END if entry.end > header.frames / header.rate + END_TOLERANCE_S else ""

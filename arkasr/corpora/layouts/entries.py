"""What a corpus's own files claim to hold, utterance by utterance, and why some of it cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arkasr.utils.console import track

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
# Segment ends are rounded in the transcripts, and opus lengths by its frames: so much past the end is trimmed.
END_TOLERANCE_S = 0.1


@dataclass(slots=True)
class Entry:
    """One utterance. `begin` and `end` in seconds of a long recording; `reason` is empty while it can be used."""

    part: str
    id: str
    audio: Path
    text: str = ""
    reason: str = ""
    begin: float = 0.0
    end: float | None = None


@dataclass
class Scan:
    """All entries of a corpus, and whether a transcript file itself (a blank line) would stop Lhotse."""

    entries: list[Entry]
    malformed: bool = False

    def needs_mirror(self, skips: frozenset[str]) -> bool:
        """Tell whether Lhotse would die on the corpus, or keep what cannot be used; it `skips` some reasons itself."""
        return self.malformed or any(entry.reason and entry.reason not in skips for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Header:
    """What an audio file holds, or in `reason` why not."""

    frames: int = 0
    rate: int = 0
    reason: str = ""


def parse_line(raw: bytes) -> tuple[str, str, str] | None:
    """Split a transcript line into id, text and reason (empty when fine); None for a blank line."""
    try:
        fields, reason = raw.decode("utf-8").split(maxsplit=1), ""
    except UnicodeDecodeError:
        fields, reason = raw.decode("utf-8", "replace").split(maxsplit=1), NOT_UTF8
    if not fields:
        return None
    text = " ".join(fields[1].split()) if len(fields) > 1 else ""
    return fields[0], text, reason or ("" if text else NO_TEXT)


def mark_repeated(entries: Iterable[Entry], groups: list[list[str]]) -> None:
    """Give the reason REPEATED to usable entries whose id an earlier one has in the same group of parts."""
    group_of = {part: number for number, parts in enumerate(groups) for part in parts}
    seen: set[tuple[int, str]] = set()
    for entry in entries:
        if entry.reason:
            continue
        key = (group_of[entry.part], entry.id)
        if key in seen:
            entry.reason = REPEATED
        seen.add(key)


def probe(path: Path) -> Header:
    """Read an audio file's header and its last sample, so that a file cut short is found without decoding it all."""
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
            whole = len(audio.read(1)) == 1
            return Header(audio.frames, audio.samplerate, "" if whole else UNREADABLE)
    except (soundfile.SoundFileError, OSError):
        return Header(reason=UNREADABLE)


def check_audio(entries: list[Entry], num_jobs: int) -> dict[Path, Header]:
    """Open every audio file of usable entries and give the bad ones their reason. Returns the headers by path."""
    paths = list(dict.fromkeys(entry.audio for entry in entries if not entry.reason))
    with ThreadPoolExecutor(max(1, num_jobs)) as pool:
        headers = dict(zip(paths, list(track(pool.map(probe, paths), "Checking audio", len(paths), "files"))))
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

"""WenetSpeech's on-disk layout: WenetSpeech.json, which lists the segments of long opus recordings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.entries import REPEATED_RECORDING, Entry, NoOptions
from arkasr.corpora.layouts.segments import audio_fault, homes, number, segment_fault, subsets
from arkasr.corpora.layouts.transcripts import clean, read_bytes, text_fault
from arkasr.errors import UserError

_JSON = "WenetSpeech.json"
_TAGS = re.compile(r"<[A-Z]+>")  # <MUSIC> and <SIL> mark no speech, <PERIOD> and <QUESTIONMARK> punctuation


class WenetSpeech:
    """WenetSpeech on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Its parts are the subsets that segments name.

    Args:
        root: The folder that holds WenetSpeech.json.
        corpus: The corpus.yaml. It has no options for this layout.
    """

    expected: ClassVar[str] = f"{_JSON} and the audio files that it names"
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    options: ClassVar[type[NoOptions]] = NoOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root = root

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return (folder / _JSON).is_file()

    @cached_property
    def _audios(self) -> list[Any]:
        path = self.root / _JSON
        try:
            audios = json.loads(read_bytes(path).decode())["audios"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'{path}: not JSON with a list "audios" ({error}); download the file again') from None
        if not isinstance(audios, list):
            raise UserError(f'{path}: "audios" must be a list, found {type(audios).__name__}; download the file again')
        return audios

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`.

        Raises:
            UserError: If WenetSpeech.json is not valid.
        """
        return sorted({name for audio in self._audios for segment in _segments(audio) for name in subsets(segment)})

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is size and time of the JSON, which is too large to read for this."""
        state = (self.root / _JSON).stat()
        return f"{state.st_size} {state.st_mtime_ns}"

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. All parts share one file."""
        return [self.root / _JSON]

    def scan(self, parts: list[str]) -> list[Entry]:
        """See `CorpusLayout.scan`. An item that names no subset is counted with the first part."""
        seen: set[str] = set()
        entries = [entry for audio in self._audios for entry in self._entries(audio, parts, seen)]
        self.__dict__.pop("_audios", None)  # the entries hold what is needed, and two copies may exceed the memory
        return entries

    def _entries(self, audio: Any, parts: list[str], seen: set[str]) -> Iterator[Entry]:
        """Yield the segments of one recording. `seen` holds the ids of earlier recordings, and gets this one."""
        fields = audio if isinstance(audio, dict) else {}
        name, fault = str(fields.get("aid", "?")), audio_fault(audio)
        if not fault:
            fault = REPEATED_RECORDING if name in seen else ""
            seen.add(name)
        path = self.root / fields["path"] if isinstance(fields.get("path"), str) else self.root / _JSON
        segments = _segments(audio)
        if fault and not segments:
            yield Entry(parts[0], name, path, reason=fault)
        for segment in segments:
            for part in homes(segment, parts):
                yield self._entry(part, segment, name, path, fault or segment_fault(segment))

    @staticmethod
    def _entry(part: str, segment: Any, recording: str, path: Path, fault: str) -> Entry:
        if fault:
            name = segment.get("sid", "?") if isinstance(segment, dict) else "?"
            return Entry(part, str(name), path, reason=fault, recording=recording)
        text = clean(_TAGS.sub("", segment["text"]))  # a text that is only a tag, such as <MUSIC>, becomes empty
        begin, end = number(segment["begin_time"]), number(segment["end_time"])
        return Entry(part, segment["sid"], path, text, text_fault(text), None, recording, begin or 0.0, end)


def _segments(audio: Any) -> list[Any]:
    segments = audio.get("segments") if isinstance(audio, dict) else None
    return segments if isinstance(segments, list) else []

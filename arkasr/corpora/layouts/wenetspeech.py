"""WenetSpeech's on-disk layout: WenetSpeech.json with segments of long opus recordings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.entries import INCOMPLETE, NO_TEXT, Entry, Scan
from arkasr.errors import UserError

_JSON = "WenetSpeech.json"
_AUDIO_FIELDS = ("aid", "path", "duration", "segments")
_SEGMENT_FIELDS = ("sid", "begin_time", "end_time", "subsets", "text")
_TAGS = re.compile(r"<[A-Z]+>")  # <MUSIC>, <SIL>: no speech; <PERIOD>, <QUESTIONMARK>: punctuation


class WenetSpeech:
    """A corpus in this layout. `root` is the folder that holds WenetSpeech.json."""

    expected = f"{_JSON} and the audio files that it names"
    homes = ("",)
    skips: frozenset[str] = frozenset()  # Lhotse opens no audio file and keeps every segment

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def found(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return (folder / _JSON).is_file()

    @cached_property
    def _audios(self) -> list[dict]:
        path = self.root / _JSON
        try:
            audios = json.loads(path.read_text(encoding="utf-8"))["audios"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path}: not JSON with a list "audios" ({error}); fetch the file again') from None
        return audios

    def parts(self) -> list[str]:
        """Return the subsets that segments name."""
        segments = (segment for audio in self._audios for segment in audio.get("segments", []))
        return sorted({name for segment in segments for name in segment.get("subsets", [])})

    def fingerprint(self) -> str:
        """Return what tells cheaply that other parts are there than before: the JSON has gigabytes."""
        state = (self.root / _JSON).stat()
        return f"{state.st_size} {state.st_mtime_ns}"

    def transcripts(self, parts: list[str]) -> list[Path]:
        """Return the transcript file."""
        return [self.root / _JSON]

    def scan(self, parts: list[str]) -> Scan:
        """List the segments of the parts."""
        entries = [entry for audio in self._audios for entry in self._entries(audio, parts)]
        return Scan(entries)

    def _entries(self, audio: dict, parts: list[str]) -> Iterator[Entry]:
        whole = all(name in audio for name in _AUDIO_FIELDS)
        path = self.root / audio.get("path", "")
        for segment in audio.get("segments", []):
            complete = whole and all(name in segment for name in _SEGMENT_FIELDS)
            text = self.clean(segment.get("text", ""))
            for part in parts:
                if part in segment.get("subsets", []):
                    entry = Entry(part, str(segment.get("sid", "?")), path, text)
                    entry.reason = INCOMPLETE if not complete else "" if text else NO_TEXT
                    if complete:
                        entry.begin, entry.end = float(segment["begin_time"]), float(segment["end_time"])
                    yield entry

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """Write a WenetSpeech.json that holds the given entries only, with absolute audio paths."""
        wanted = {entry.id: entry.text for entry in entries}
        audios = []
        for audio in self._audios:
            segments = [
                {**segment, "text": wanted.pop(segment["sid"])}
                for segment in audio.get("segments", [])
                if segment.get("sid") in wanted and all(name in segment for name in _SEGMENT_FIELDS)
            ]
            if segments:
                audios.append({**audio, "path": str(self.root / audio["path"]), "segments": segments})
        folder.mkdir(parents=True)
        (folder / _JSON).write_text(json.dumps({"audios": audios}, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def clean(text: str) -> str:
        """Take out tags and surplus spaces; what was only a tag such as <MUSIC> becomes empty."""
        return " ".join(_TAGS.sub("", text).split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """Call Lhotse's own prepare_wenet_speech; it wants a list of parts that all exist."""
        from lhotse.recipes import prepare_wenet_speech

        self.__dict__.pop("_audios", None)  # Lhotse reads the file once more: two copies would not fit
        return prepare_wenet_speech(root, dataset_parts=parts, output_dir=output_dir, num_jobs=num_jobs)

"""WenetSpeech's on-disk layout: WenetSpeech.json, which lists the segments of long opus recordings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from arkasr.corpora.layouts.entries import INCOMPLETE, NO_TEXT, Entry, Scan
from arkasr.errors import UserError

_JSON = "WenetSpeech.json"
_AUDIO_FIELDS = ("aid", "path", "duration", "segments")
_SEGMENT_FIELDS = ("sid", "begin_time", "end_time", "subsets", "text")
_TAGS = re.compile(r"<[A-Z]+>")  # <MUSIC> and <SIL> mark no speech, <PERIOD> and <QUESTIONMARK> punctuation


class WenetSpeech:
    """WenetSpeech on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Its parts are the subsets that segments name.

    Args:
        root: The folder that holds WenetSpeech.json.
    """

    expected: ClassVar[str] = f"{_JSON} and the audio files that it names"
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    skipped_by_lhotse: ClassVar[frozenset[str]] = frozenset()  # Lhotse opens no audio file and keeps every segment

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def matches(folder: Path) -> bool:
        """See `CorpusLayout.matches`."""
        return (folder / _JSON).is_file()

    @cached_property
    def _audios(self) -> list[dict]:
        path = self.root / _JSON
        try:
            audios = json.loads(path.read_text(encoding="utf-8"))["audios"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path}: not JSON with a list "audios" ({error}); download the file again') from None
        return audios

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`.

        Raises:
            UserError: If WenetSpeech.json is not valid.
        """
        segments = (segment for audio in self._audios for segment in audio.get("segments", []))
        return sorted({name for segment in segments for name in segment.get("subsets", [])})

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is size and time of the JSON, which is too large to read for this."""
        state = (self.root / _JSON).stat()
        return f"{state.st_size} {state.st_mtime_ns}"

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. All parts share one file."""
        return [self.root / _JSON]

    def scan(self, parts: list[str]) -> Scan:
        """See `CorpusLayout.scan`."""
        entries = [entry for audio in self._audios for entry in self._entries(audio, parts)]
        return Scan(entries)

    def _entries(self, audio: dict, parts: list[str]) -> Iterator[Entry]:
        has_audio = all(name in audio for name in _AUDIO_FIELDS)
        path = self.root / audio.get("path", "")
        for segment in audio.get("segments", []):
            complete = has_audio and all(name in segment for name in _SEGMENT_FIELDS)
            text = self.clean(segment.get("text", ""))
            for part in parts:
                if part in segment.get("subsets", []):
                    entry = Entry(part, str(segment.get("sid", "?")), path, text)
                    entry.reason = INCOMPLETE if not complete else "" if text else NO_TEXT
                    if complete:
                        entry.begin, entry.end = float(segment["begin_time"]), float(segment["end_time"])
                    yield entry

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """See `CorpusLayout.mirror`. The JSON names the audio files by absolute paths, without links."""
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
        """See `CorpusLayout.clean`. Removes tags, so a text that is only a tag such as <MUSIC> becomes empty."""
        return " ".join(_TAGS.sub("", text).split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """See `CorpusLayout.manifests`. All parts must exist."""
        from lhotse.recipes import prepare_wenet_speech

        self.__dict__.pop("_audios", None)  # Lhotse reads the file again, and two copies may exceed the memory
        return prepare_wenet_speech(root, dataset_parts=parts, output_dir=output_dir, num_jobs=num_jobs)

"""LibriSpeech's on-disk layout: `<part>/<speaker>/<chapter>/` with FLAC files and one `*.trans.txt` per chapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, Entry, NoOptions
from arkasr.corpora.layouts.transcripts import read_lines
from arkasr.corpora.layouts.walk import find_files, subfolders

_AUDIO, _TRANSCRIPT = ".flac", ".trans.txt"


class LibriSpeech:
    """LibriSpeech on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Args:
        root: The folder that holds the parts.
        corpus: The corpus.yaml. It has no options for this layout.
    """

    expected: ClassVar[str] = (
        "<part>/<speaker>/<chapter>/*.trans.txt with .flac files beside (part: train-clean-100, dev-clean, ...)"
    )
    subfolders: ClassVar[tuple[str, ...]] = ("", "LibriSpeech")  # Lhotse's download makes the second
    options: ClassVar[type[NoOptions]] = NoOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root = root
        self._files: dict[str, list[Path]] = {}  # of the parts that were walked

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return next(folder.glob(f"*/*/*/*{_TRANSCRIPT}"), None) is not None

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`."""
        return subfolders(self.root)

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is the list of parts."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`."""
        return [path for part in parts for path in self._walk(part) if path.name.endswith(_TRANSCRIPT)]

    def scan(self, parts: list[str]) -> list[Entry]:
        """See `CorpusLayout.scan`."""
        return [entry for part in parts for entry in self._part(part)]

    def _walk(self, part: str) -> list[Path]:
        if part not in self._files:
            self._files[part] = find_files(self.root / part, (_TRANSCRIPT, _AUDIO), (_AUDIO,))
        return self._files[part]

    def _part(self, part: str) -> list[Entry]:
        files = self._walk(part)
        audio = {path for path in files if path.name.endswith(_AUDIO)}
        entries = []
        for transcript in (path for path in files if path.name.endswith(_TRANSCRIPT)):
            for name, text, reason in read_lines(transcript):
                path = self._audio(part, transcript.parent, name, audio)
                reason = reason or ("" if path in audio or os.path.isfile(path) else NO_AUDIO)
                entries.append(Entry(part, name, path, text, reason, speaker=name.split("-")[0]))
        spare = sorted(audio - {entry.audio for entry in entries})
        return entries + [Entry(part, path.stem, path, reason=NO_TRANSCRIPT) for path in spare]

    def _audio(self, part: str, chapter: Path, name: str, audio: set[Path]) -> Path:
        """Return the audio file beside the transcript, or else in the folder of its id (`1-2-3`: `1/2/1-2-3.flac`)."""
        beside = chapter / f"{name}{_AUDIO}"
        if beside in audio:
            return beside
        return (self.root / part / name.replace("-", "/")).parent / f"{name}{_AUDIO}"

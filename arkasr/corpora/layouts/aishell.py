"""AISHELL-1's on-disk layout: `data_aishell/wav/<part>/<speaker>/*.wav` and one transcript file for all parts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, REPEATED, Entry, NoOptions
from arkasr.corpora.layouts.transcripts import read_lines
from arkasr.corpora.layouts.walk import find_files, subfolders

_TRANSCRIPT = Path("data_aishell/transcript/aishell_transcript_v0.8.txt")
_WAV = Path("data_aishell/wav")
_AUDIO = (".wav",)
# The transcript has some Latin letters in full width, and Latin letters in both cases. Lhotse's recipe unifies them so.
_HALF_WIDTH = str.maketrans("ａｂｃｋｔ", "abckt")  # noqa: RUF001 (full-width letters are what it replaces)


class Aishell:
    """AISHELL-1 on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Args:
        root: The folder that holds data_aishell.
        corpus: The corpus.yaml. It has no options for this layout.
    """

    expected: ClassVar[str] = f"{_TRANSCRIPT} and {_WAV}/{{train,dev,test}}/<speaker>/*.wav"
    subfolders: ClassVar[tuple[str, ...]] = ("", "aishell")  # Lhotse's download makes the second
    options: ClassVar[type[NoOptions]] = NoOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root = root

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return (folder / _TRANSCRIPT).is_file() and (folder / _WAV).is_dir()

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`."""
        return subfolders(self.root / _WAV)

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is the list of parts."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. All parts share one file."""
        return [self.root / _TRANSCRIPT]

    def scan(self, parts: list[str]) -> list[Entry]:
        """See `CorpusLayout.scan`."""
        audio: dict[str, Path] = {}
        entries = []
        for path in (path for part in parts for path in self._wav(part)):
            if audio.setdefault(path.stem, path) != path:
                entries.append(Entry(self._part(path), path.stem, path, reason=REPEATED))  # noqa: PERF401 (the test has a side effect)
        part_of_speaker = {path.parent.name: self._part(path) for path in audio.values()}
        others = {path.stem for part in self.parts() if part not in parts for path in self._wav(part)}
        for name, text, reason in read_lines(self.root / _TRANSCRIPT):
            if name not in others:
                entries.append(self._entry(audio, part_of_speaker, parts[0], name, text, reason))
        listed = {entry.id for entry in entries if entry.reason != REPEATED}
        spare = [path for stem, path in audio.items() if stem not in listed]
        return entries + [Entry(self._part(path), path.stem, path, reason=NO_TRANSCRIPT) for path in spare]

    def _wav(self, part: str) -> list[Path]:
        return find_files(self.root / _WAV / part, _AUDIO, _AUDIO)

    def _part(self, path: Path) -> str:
        return path.relative_to(self.root / _WAV).parts[0]

    def _entry(
        self, audio: dict[str, Path], part_of_speaker: dict[str, str], default: str, name: str, text: str, reason: str
    ) -> Entry:
        """Make an entry. A transcript without audio belongs to its speaker's part (BAC009S0002W0122: S0002)."""
        text = text.translate(_HALF_WIDTH).upper().replace(" ", "")
        if name in audio:
            return Entry(self._part(audio[name]), name, audio[name], text, reason, audio[name].parent.name)
        speaker = name[6:11]
        part = part_of_speaker.get(speaker, default)
        path = self.root / _WAV / part / speaker / f"{name}.wav"
        return Entry(part, name, path, text, reason or NO_AUDIO)

"""AISHELL-1's on-disk layout: `data_aishell/wav/<part>/<speaker>/*.wav` and one transcript file for all parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, REPEATED, Entry, Scan, parse_line

_TRANSCRIPT = Path("data_aishell/transcript/aishell_transcript_v0.8.txt")
_WAV = Path("data_aishell/wav")


class Aishell:
    """AISHELL-1 on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Args:
        root: The folder that holds data_aishell.
    """

    expected: ClassVar[str] = f"{_TRANSCRIPT} and {_WAV}/{{train,dev,test}}/<speaker>/*.wav"
    subfolders: ClassVar[tuple[str, ...]] = ("", "aishell")  # Lhotse's download makes the second
    skipped_by_lhotse: ClassVar[frozenset[str]] = frozenset({NO_AUDIO, NO_TRANSCRIPT})

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def matches(folder: Path) -> bool:
        """See `CorpusLayout.matches`."""
        return (folder / _TRANSCRIPT).is_file() and (folder / _WAV).is_dir()

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`."""
        return sorted(path.name for path in (self.root / _WAV).iterdir() if path.is_dir())

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is the list of parts."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. All parts share one file."""
        return [self.root / _TRANSCRIPT]

    def scan(self, parts: list[str]) -> Scan:
        """See `CorpusLayout.scan`."""
        audio: dict[str, Path] = {}
        entries, malformed = [], False
        for path in (path for part in parts for path in sorted((self.root / _WAV / part).rglob("*.wav"))):
            if audio.setdefault(path.stem, path) != path:
                entries.append(Entry(self._part(path), path.stem, path, reason=REPEATED))  # noqa: PERF401 (the test has a side effect)
        part_of_speaker = {path.parent.name: self._part(path) for path in audio.values()}
        others = self._ids_of_other_parts(parts)
        for raw in (self.root / _TRANSCRIPT).read_bytes().splitlines():
            parsed = parse_line(raw)
            malformed |= parsed is None
            if parsed and parsed[0] not in others:
                entries.append(self._entry(audio, part_of_speaker, parts[0], *parsed))
        listed = {entry.id for entry in entries if entry.reason != REPEATED}
        spare = [path for stem, path in audio.items() if stem not in listed]
        entries += [Entry(self._part(path), path.stem, path, reason=NO_TRANSCRIPT) for path in spare]
        return Scan(entries, malformed)

    def _part(self, path: Path) -> str:
        return path.relative_to(self.root / _WAV).parts[0]

    def _ids_of_other_parts(self, parts: list[str]) -> set[str]:
        """Return the ids of the parts that were not requested. The transcript file lists them too."""
        others = [part for part in self.parts() if part not in parts]
        return {path.stem for part in others for path in (self.root / _WAV / part).rglob("*.wav")}

    def _entry(
        self, audio: dict[str, Path], part_of_speaker: dict[str, str], default: str, name: str, text: str, reason: str
    ) -> Entry:
        """Make an entry. A transcript without audio belongs to its speaker's part (BAC009S0002W0122: S0002)."""
        if name in audio:
            return Entry(self._part(audio[name]), name, audio[name], text, reason)
        speaker = name[6:11]
        part = part_of_speaker.get(speaker, default)
        return Entry(part, name, self.root / _WAV / part / speaker / f"{name}.wav", text, NO_AUDIO)

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """See `CorpusLayout.mirror`."""
        for entry in entries:
            link = folder / entry.audio.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(entry.audio)
        transcript = folder / _TRANSCRIPT
        transcript.parent.mkdir(parents=True)
        transcript.write_text("".join(f"{entry.id} {entry.text}\n" for entry in entries), encoding="utf-8")

    @staticmethod
    def clean(text: str) -> str:
        """See `CorpusLayout.clean`. Lhotse has already removed the spaces between words."""
        return " ".join(text.split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """See `CorpusLayout.manifests`. Lhotse's recipe always reads all three parts, in one thread."""
        from lhotse.recipes import prepare_aishell

        return prepare_aishell(root, output_dir=output_dir)

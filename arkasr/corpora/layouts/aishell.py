"""AISHELL-1's on-disk layout: `data_aishell/wav/<part>/<speaker>/*.wav` and one transcript file for all parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, REPEATED, Entry, Scan, parse_line

_TRANSCRIPT = Path("data_aishell/transcript/aishell_transcript_v0.8.txt")
_WAV = Path("data_aishell/wav")


class Aishell:
    """A corpus in this layout. `root` is the folder that holds data_aishell."""

    expected = f"{_TRANSCRIPT} and {_WAV}/{{train,dev,test}}/<speaker>/*.wav"
    homes = ("", "aishell")  # where it may lie below the folder given; Lhotse's download makes the second
    skips = frozenset({NO_AUDIO, NO_TRANSCRIPT})  # by Lhotse itself, with a warning

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def found(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return (folder / _TRANSCRIPT).is_file() and (folder / _WAV).is_dir()

    def parts(self) -> list[str]:
        """Return the parts on disk."""
        return sorted(path.name for path in (self.root / _WAV).iterdir() if path.is_dir())

    def fingerprint(self) -> str:
        """Return what tells cheaply that other parts are there than before."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """Return the transcript file."""
        return [self.root / _TRANSCRIPT]

    def scan(self, parts: list[str]) -> Scan:
        """List what the transcript and the audio files of the parts claim."""
        audio: dict[str, Path] = {}
        entries, malformed = [], False
        for path in (path for part in parts for path in sorted((self.root / _WAV / part).rglob("*.wav"))):
            if audio.setdefault(path.stem, path) != path:
                entries.append(Entry(self._part(path), path.stem, path, reason=REPEATED))
        homes = {path.parent.name: self._part(path) for path in audio.values()}
        others = self._stems_elsewhere(parts)
        for raw in (self.root / _TRANSCRIPT).read_bytes().splitlines():
            parsed = parse_line(raw)
            malformed |= parsed is None
            if parsed and parsed[0] not in others:
                entries.append(self._entry(audio, homes, parts[0], *parsed))
        listed = {entry.id for entry in entries if entry.reason != REPEATED}
        spare = [path for stem, path in audio.items() if stem not in listed]
        entries += [Entry(self._part(path), path.stem, path, reason=NO_TRANSCRIPT) for path in spare]
        return Scan(entries, malformed)

    def _part(self, path: Path) -> str:
        return path.relative_to(self.root / _WAV).parts[0]

    def _stems_elsewhere(self, parts: list[str]) -> set[str]:
        """Return the ids of parts that were not asked for: the transcript file names them too."""
        others = [part for part in self.parts() if part not in parts]
        return {path.stem for part in others for path in (self.root / _WAV / part).rglob("*.wav")}

    def _entry(
        self, audio: dict[str, Path], homes: dict[str, str], default: str, name: str, text: str, reason: str
    ) -> Entry:
        """Make an entry; a transcript without audio belongs to its speaker's part (BAC009S0002W0122: S0002)."""
        if name in audio:
            return Entry(self._part(audio[name]), name, audio[name], text, reason)
        speaker = name[6:11]
        part = homes.get(speaker, default)
        return Entry(part, name, self.root / _WAV / part / speaker / f"{name}.wav", text, NO_AUDIO)

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """Write a corpus of links that holds the given entries only."""
        for entry in entries:
            link = folder / entry.audio.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(entry.audio)
        transcript = folder / _TRANSCRIPT
        transcript.parent.mkdir(parents=True)
        transcript.write_text("".join(f"{entry.id} {entry.text}\n" for entry in entries), encoding="utf-8")

    @staticmethod
    def clean(text: str) -> str:
        """Return the text of a supervision as it is to be learnt; Lhotse has joined the words already."""
        return " ".join(text.split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """Call Lhotse's own prepare_aishell, which reads all three parts in one thread."""
        from lhotse.recipes import prepare_aishell

        return prepare_aishell(root, output_dir=output_dir)

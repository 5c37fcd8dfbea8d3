"""LibriSpeech's on-disk layout: `<part>/<speaker>/<chapter>/`, FLAC files and one `*.trans.txt` a chapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, Entry, Scan, parse_line


class LibriSpeech:
    """A corpus in this layout. `root` is the folder that holds the parts."""

    expected = "<part>/<speaker>/<chapter>/*.trans.txt with .flac files beside (part: train-clean-100, dev-clean, ...)"
    homes = ("", "LibriSpeech")  # where it may lie below the folder given; Lhotse's download makes the second
    skips = frozenset({NO_AUDIO, NO_TRANSCRIPT})  # by Lhotse itself, with a warning

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def found(folder: Path) -> bool:
        """Tell whether the folder has this layout."""
        return next(folder.glob("*/*/*/*.trans.txt"), None) is not None

    def parts(self) -> list[str]:
        """Return the parts on disk."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def fingerprint(self) -> str:
        """Return what tells cheaply that other parts are there than before."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """Return the transcript files of the parts."""
        return [path for part in parts for path in sorted((self.root / part).rglob("*.trans.txt"))]

    def scan(self, parts: list[str]) -> Scan:
        """List what transcripts and audio files of the parts claim."""
        entries, malformed = [], False
        for part in parts:
            listed = set()
            for transcript in self.transcripts([part]):
                for raw in transcript.read_bytes().splitlines():
                    parsed = parse_line(raw)
                    malformed |= parsed is None
                    if parsed:
                        entries.append(self._entry(part, *parsed))
                        listed.add(entries[-1].audio)
            spare = sorted(set((self.root / part).rglob("*.flac")) - listed)
            entries += [Entry(part, path.stem, path, reason=NO_TRANSCRIPT) for path in spare]
        return Scan(entries, malformed)

    def _entry(self, part: str, name: str, text: str, reason: str) -> Entry:
        """Make an entry; its audio lies where the id says (as Lhotse has it), not where the transcript lies."""
        audio = (self.root / part / name.replace("-", "/")).parent / f"{name}.flac"
        return Entry(part, name, audio, text, reason or ("" if audio.is_file() else NO_AUDIO))

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """Write a corpus of links that holds the given entries only."""
        lines: dict[Path, list[str]] = {}
        for entry in entries:
            link = folder / entry.audio.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(entry.audio)
            lines.setdefault(link.parent, []).append(f"{entry.id} {entry.text}\n")
        for home, rows in lines.items():
            (home / f"{home.parent.name}-{home.name}.trans.txt").write_text("".join(rows), encoding="utf-8")

    @staticmethod
    def clean(text: str) -> str:
        """Return the text of a supervision as it is to be learnt."""
        return " ".join(text.split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """Call Lhotse's own prepare_librispeech."""
        from lhotse.recipes import prepare_librispeech

        return prepare_librispeech(root, dataset_parts=parts, output_dir=output_dir, num_jobs=num_jobs)

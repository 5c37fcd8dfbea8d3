"""LibriSpeech's on-disk layout: `<part>/<speaker>/<chapter>/` with FLAC files and one `*.trans.txt` per chapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from arkasr.corpora.layouts.entries import NO_AUDIO, NO_TRANSCRIPT, Entry, Scan, parse_line


class LibriSpeech:
    """LibriSpeech on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    Args:
        root: The folder that holds the parts.
    """

    expected: ClassVar[str] = (
        "<part>/<speaker>/<chapter>/*.trans.txt with .flac files beside (part: train-clean-100, dev-clean, ...)"
    )
    subfolders: ClassVar[tuple[str, ...]] = ("", "LibriSpeech")  # Lhotse's download makes the second
    skipped_by_lhotse: ClassVar[frozenset[str]] = frozenset({NO_AUDIO, NO_TRANSCRIPT})

    def __init__(self, root: Path):
        self.root = root

    @staticmethod
    def matches(folder: Path) -> bool:
        """See `CorpusLayout.matches`."""
        return next(folder.glob("*/*/*/*.trans.txt"), None) is not None

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is the list of parts."""
        return " ".join(self.parts())

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`."""
        return [path for part in parts for path in sorted((self.root / part).rglob("*.trans.txt"))]

    def scan(self, parts: list[str]) -> Scan:
        """See `CorpusLayout.scan`."""
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
        """Make an entry. Like Lhotse, take the audio path from the id, not from the transcript's folder."""
        audio = (self.root / part / name.replace("-", "/")).parent / f"{name}.flac"
        return Entry(part, name, audio, text, reason or ("" if audio.is_file() else NO_AUDIO))

    def mirror(self, folder: Path, entries: list[Entry]) -> None:
        """See `CorpusLayout.mirror`."""
        lines: dict[Path, list[str]] = {}
        for entry in entries:
            link = folder / entry.audio.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(entry.audio)
            lines.setdefault(link.parent, []).append(f"{entry.id} {entry.text}\n")
        for chapter, rows in lines.items():
            (chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt").write_text("".join(rows), encoding="utf-8")

    @staticmethod
    def clean(text: str) -> str:
        """See `CorpusLayout.clean`."""
        return " ".join(text.split())

    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]:
        """See `CorpusLayout.manifests`."""
        from lhotse.recipes import prepare_librispeech

        return prepare_librispeech(root, dataset_parts=parts, output_dir=output_dir, num_jobs=num_jobs)

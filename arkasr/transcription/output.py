"""Where transcriptions go: standard output, one file, or a folder with one file per source. Written as they come."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

from arkasr.errors import UserError
from arkasr.transcription.formats import FORMATS, TSV_HEADER, one_line, record, tsv_rows, txt
from arkasr.transcription.journal import Journal
from arkasr.transcription.published_rows import filled
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.source import Source
from arkasr.utils.console import visible
from arkasr.utils.files import write_text

SINGLE = ("srt", "vtt")  # one file of these holds one transcription
JOURNAL = "arkasr.jsonl"  # name of a journal, behind a dot


class Output(Protocol):
    """Writes results in the order of the sources."""

    def write(self, source: Source, result: Transcription | Failed) -> None:
        """Write one result.

        Args:
            source: The source.
            result: What became of it.
        """

    def close(self) -> None:
        """Complete the output."""


class StreamOutput:
    """All results in one text.

    Args:
        file: Where it is written.
        kind: Name of the format.
        is_single: Whether there is exactly one source, so that its name need not be written.
    """

    def __init__(self, file: IO[str], kind: str, is_single: bool):
        self._file, self._kind, self._single = file, kind, is_single
        self._count, self._terminal = 0, file.isatty()
        if kind == "tsv":
            file.write(TSV_HEADER)

    def write(self, source: Source, result: Transcription | Failed) -> None:
        """See `Output`."""
        text = self._text(source, result)
        self._file.write(visible(text) if self._terminal else text)
        self._file.flush()
        self._count += 1

    def _text(self, source: Source, result: Transcription | Failed) -> str:
        if self._kind in ("json", "jsonl"):
            fields = record(result) if source.row is None else filled(source.row, result)
            if self._kind == "jsonl":
                return one_line(fields)
            text = json.dumps(fields, ensure_ascii=False, indent=2)
            return text + "\n" if self._single else (",\n" if self._count else "[\n") + text
        if isinstance(result, Failed):
            return ""
        if self._kind == "tsv":
            return tsv_rows(result)
        if self._kind == "txt" and not self._single:
            return f"{' '.join(result.name.split())}\t{txt(result)}"
        return FORMATS[self._kind](result)

    def close(self) -> None:
        """See `Output`."""
        if self._kind == "json" and not self._single:
            self._file.write("\n]\n" if self._count else "[]\n")
        self._file.flush()


class FileOutput(StreamOutput):
    """One file with all results.

    Args:
        path: The file.
        kind: Name of the format.
        is_single: See `StreamOutput`.
        journal: Notes that the file is written here.
    """

    def __init__(self, path: Path, kind: str, is_single: bool, journal: Journal):
        journal.claim(path)
        super().__init__(path.open("w", encoding="utf-8", errors="backslashreplace"), kind, is_single)

    def close(self) -> None:
        """See `Output`."""
        super().close()
        self._file.close()


class FolderOutput:
    """One file per transcription.

    Args:
        folder: The folder.
        kind: Name of the format.
        sources: All sources, which determine the names of the files.
        journal: Notes which files are written here.
    """

    def __init__(self, folder: Path, kind: str, sources: Sequence[Source], journal: Journal):
        self._kind, self._journal = kind, journal
        self._targets = {
            id(source): folder / f"{name}.{kind}" for source, name in zip(sources, file_names(sources), strict=True)
        }
        for target in self._targets.values():
            if target.exists():
                journal.claim(target)

    def write(self, source: Source, result: Transcription | Failed) -> None:
        """See `Output`."""
        if isinstance(result, Failed):
            return
        target = self._targets[id(source)]
        self._journal.claim(target)
        text = FORMATS[self._kind](result)
        if source.row is not None and self._kind in ("json", "jsonl"):
            text = one_line(filled(source.row, result))
        write_text(target, text.encode(errors="backslashreplace").decode())

    def close(self) -> None:
        """See `Output`."""


def file_names(sources: Sequence[Source]) -> list[str]:
    """Choose the names of output files, so that no two are equal.

    Args:
        sources: N sources.

    Returns:
        N names without suffix. Equal ones get what distinguishes them: the suffix of the audio, then its folder, then
        a number.
    """
    names = [source.place for source in sources]
    parent = _common([os.path.dirname(os.path.abspath(source.name)) for source in sources])
    names = _distinct(names, [f"{source.place}{Path(source.name).suffix}" for source in sources])
    below = [os.path.relpath(os.path.abspath(source.name), parent) for source in sources]
    names = _distinct(names, [name.replace("..", "_").strip("/") for name in below])
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return names


def _common(folders: Iterable[str]) -> str:
    return os.path.commonpath([*dict.fromkeys(folders)])


def _distinct(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    """Replace names that occur several times by longer ones."""
    count = Counter(names)
    return [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]


def chosen_format(kind: str, output: str) -> str:
    """Return the format of the output.

    Args:
        kind: Format that the user named, or "".
        output: Where the output goes, or "".

    Returns:
        `kind`, else the format of which the output has the suffix, else txt.

    Raises:
        UserError: There is no such format.
    """
    kind = kind or Path(output).suffix.lower().removeprefix(".")
    if kind in FORMATS:
        return kind
    if kind and not output:
        raise UserError(f"--format {kind}: is not a format; use one of {', '.join(FORMATS)}")
    return "txt"


def is_folder(output: str) -> bool:
    """Return whether the output is a folder.

    Args:
        output: Value of --output.

    Returns:
        True if it exists as a folder, ends with a slash, or has no suffix.
    """
    return os.path.isdir(output) or output.endswith("/") or (not Path(output).suffix and not os.path.exists(output))


def check_single(kind: str, sources: Sequence[Source]) -> None:
    """Refuse to write several transcriptions in a format that holds one.

    Args:
        kind: Name of the format.
        sources: The sources.

    Raises:
        UserError: There are several.
    """
    if kind in SINGLE and len(sources) > 1:
        raise UserError(
            f"--format {kind}: one file holds the subtitles of one recording, got {len(sources)}; name a folder with "
            "--output"
        )

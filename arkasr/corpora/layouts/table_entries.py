"""From rows of a table to entries."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from arkasr.corpora.layouts.columns import ColumnMap, Names
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.table_ids import allowed_id, make_id
from arkasr.corpora.layouts.table_times import Times, times
from arkasr.corpora.layouts.table_values import (
    NOT_A_NAME,
    NOT_AN_ID,
    Languages,
    audio_fault,
    name,
    task_fault,
    transcript,
)

_WHOLE_FILE = Times()
_RECENT_FILES = 100  # whose rows share one path and one id of the recording, which saves memory and time


class _File(NamedTuple):
    """An audio file: its path, the path that ids are made of, and the made id of the whole file."""

    path: Path
    relative: str
    recording: str


class EntryMaker:
    """Makes entries of the rows of one table.

    A row with a fault becomes an entry with the place of the row as id, and the reason.

    Args:
        table: The file. Relative paths of audio begin at its folder.
        root: Folder of the corpus. The ids of rows with a fault begin there.
        columns: The columns.
    """

    def __init__(self, table: Path, root: Path, columns: ColumnMap):
        self.table, self.columns = table, columns
        self._folder, self._place = str(table.parent), table.relative_to(root).as_posix()
        self._languages = Languages()
        self._file = lru_cache(_RECENT_FILES)(self._find)

    def fault(self, part: str, line: int, reason: str, audio: Path | None = None) -> Entry:
        """Make the entry of a row that cannot be used.

        Args:
            part: Part that the row is counted with.
            line: Line of the row, from 1.
            reason: Why the row cannot be used.
            audio: Path of its audio. None if the row names none.

        Returns:
            The entry.
        """
        return Entry(part, f"{self._place}:{line}", audio or self.table, None, reason)

    def entry(self, part: str, line: int, row: dict[str, Any]) -> Entry:
        """Make the entry of a row.

        Args:
            part: Its part.
            line: Line of the row, from 1.
            row: The row by column names.

        Returns:
            The entry. Whether the audio exists and is long enough is not checked.
        """
        names = self.columns.of(row)
        value = _get(row, names.audio)
        if fault := audio_fault(value):
            return self.fault(part, line, fault)
        audio = self._file(value)
        text, prefix, fault = transcript(_get(row, names.text))
        language, language_fault = self._languages.read(_get(row, names.language), prefix)
        speaker, speaker_fault = name(_get(row, names.speaker), NOT_A_NAME)
        span = _span(row, names)
        ident, id_reason = _ident(row, names, audio, span)
        fault = fault or language_fault or speaker_fault or span.fault or id_reason or task_fault(_get(row, names.task))
        if fault:
            return self.fault(part, line, fault, audio.path)
        recording = "" if _is_whole(span) else audio.recording
        speaker = sys.intern(speaker)
        return Entry(part, ident, audio.path, text, "", speaker or None, recording, span.start, span.end, language)

    def _find(self, audio: str) -> _File:
        relative = audio.removeprefix(f"{self._folder}/").removeprefix("./")
        return _File(Path(os.path.join(self._folder, audio)), relative, make_id(relative, 0.0, None))


def _get(row: dict[str, Any], column: str | None) -> Any:
    return row[column] if column is not None else None


def _span(row: dict[str, Any], names: Names) -> Times:
    if names.start is None and names.end is None:
        return _WHOLE_FILE
    return times(_get(row, names.start), _get(row, names.end), _get(row, names.duration))


def _is_whole(span: Times) -> bool:
    return span.start == 0 and span.end is None


def _ident(row: dict[str, Any], names: Names, audio: _File, span: Times) -> tuple[str, str]:
    """Return the id of a row, and the reason why it cannot be used."""
    ident, fault = name(_get(row, names.id), NOT_AN_ID)
    if not ident and not fault:
        return audio.recording if _is_whole(span) else make_id(audio.relative, span.start, span.end), ""
    return allowed_id(ident), fault

"""From rows of a table to entries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.columns import ColumnMap, Names
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.table_values import (
    NOT_A_NAME,
    NOT_AN_ID,
    Languages,
    Times,
    audio_fault,
    make_id,
    name,
    task_fault,
    times,
    transcript,
)
from arkasr.corpora.layouts.transcripts import id_fault

_WHOLE_FILE = Times()


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
        audio = Path(os.path.join(self._folder, value))  # faster than joining paths
        text, prefix, fault = transcript(_get(row, names.text))
        language, language_fault = self._languages.read(_get(row, names.language), prefix)
        speaker, speaker_fault = name(_get(row, names.speaker), NOT_A_NAME)
        span = _span(row, names)
        relative = value.removeprefix(f"{self._folder}/").removeprefix("./")
        ident, id_reason = _ident(row, names, relative, span)
        fault = fault or language_fault or speaker_fault or span.fault or id_reason or task_fault(_get(row, names.task))
        if fault:
            return self.fault(part, line, fault, audio)
        is_whole = span.start == 0 and span.end is None
        recording = "" if is_whole else make_id(relative, 0.0, None)
        return Entry(part, ident, audio, text, "", speaker or None, recording, span.start, span.end, language)


def _get(row: dict[str, Any], column: str | None) -> Any:
    return row[column] if column is not None else None


def _span(row: dict[str, Any], names: Names) -> Times:
    if names.start is None and names.end is None:
        return _WHOLE_FILE
    return times(_get(row, names.start), _get(row, names.end), _get(row, names.duration))


def _ident(row: dict[str, Any], names: Names, audio: str, span: Times) -> tuple[str, str]:
    """Return the id of a row, and the reason why it cannot be used."""
    ident, fault = name(_get(row, names.id), NOT_AN_ID)
    if not ident and not fault:
        return make_id(audio, span.start, span.end), ""
    return ident, fault or id_fault(ident)

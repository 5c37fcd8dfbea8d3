"""Which column of a table holds which field: by the key `columns` of corpus.yaml, else by the names in common use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from arkasr.errors import UserError

# The first name that a row has is used.
DEFAULT_NAMES: dict[str, tuple[str, ...]] = {
    "audio": ("audio", "audio_filepath", "audio_path", "wav", "path", "file_name"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "language": ("language", "lang"),
    "speaker": ("speaker", "speaker_id"),
    "start": ("start", "offset", "begin_time"),
    "end": ("end", "end_time"),
    "duration": ("duration",),
    "split": ("split",),
    "id": ("id",),
    "task": ("task",),
}


class Names(NamedTuple):
    """The column of each field. None for a field without a column."""

    audio: str | None
    text: str | None
    language: str | None
    speaker: str | None
    start: str | None
    end: str | None
    duration: str | None
    split: str | None
    id: str | None
    task: str | None


class ColumnMap:
    """Finds the columns of rows, and remembers which columns of corpus.yaml no row had.

    Args:
        columns: Column by field, as in corpus.yaml. None for the default names.
    """

    def __init__(self, columns: Mapping[str, str | None]):
        self.chosen = {name: column for name, column in columns.items() if column is not None}
        self._known: dict[tuple[str, ...], Names] = {}

    def of(self, row: Mapping[str, Any]) -> Names:
        """Return the columns of a row.

        Args:
            row: The row by column names.

        Returns:
            The columns, which are the same for all rows with the same names.
        """
        names = tuple(row)
        found = self._known.get(names)
        if found is None:
            found = self._known[names] = Names(**{name: self._column(name, row) for name in DEFAULT_NAMES})
        return found

    def _column(self, field: str, row: Mapping[str, Any]) -> str | None:
        allowed = (self.chosen[field],) if field in self.chosen else DEFAULT_NAMES[field]
        return next((name for name in allowed if name in row), None)

    def no_audio(self, path: Path, row: Mapping[str, Any]) -> UserError:
        """Describe a table whose rows have no column for the audio.

        Args:
            path: The table.
            row: One of its rows.

        Returns:
            The error, to be raised by the caller.
        """
        column = self.chosen.get("audio")
        wanted = f"{column!r} (key columns.audio)" if column else f"any of {', '.join(DEFAULT_NAMES['audio'])}"
        return UserError(
            f"{path}: has no column for the audio; found {', '.join(map(repr, row)) or 'no columns'}, expected "
            f"{wanted}; name yours in corpus.yaml, for example `columns: {{audio: {_likely(row)}}}`"
        )

    def require_found(self, paths: Iterable[Path]) -> None:
        """Check that every column of corpus.yaml was in some row so far.

        Args:
            paths: The tables that were read, for the message.

        Raises:
            UserError: A column was in no row.
        """
        found = dict.fromkeys(name for names in self._known for name in names)
        for field, column in self.chosen.items():
            if found and column not in found:
                near = difflib.get_close_matches(column, found, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"found {', '.join(map(repr, found))}"
                raise UserError(
                    f"columns.{field} {column!r}: no row of {', '.join(map(str, paths))} has this column; {hint}; "
                    "correct corpus.yaml"
                )


def _likely(row: Mapping[str, Any]) -> str:
    """Return the column that most likely names audio files, as an example."""
    words = ("audio", "wav", "file", "path")
    return next((name for word in words for name in row if word in name.lower()), "my_column")

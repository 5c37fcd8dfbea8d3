"""The table files of a corpus folder, and the parts that their rows belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.corpora.layouts.table_rows import Row, read_rows
from arkasr.corpora.layouts.walk import list_folder
from arkasr.errors import UserError

METADATA = "metadata"  # name of the tables of an audiofolder, as Hugging Face's datasets read them
_FOLDERS = ("train", "dev", "validation", "valid", "test")  # of an audiofolder with one table for all
_HEAD = 100  # rows that are looked at to find the columns of a table whose first rows may be damaged


@dataclass(frozen=True)
class Table:
    """One table file.

    Attributes:
        path: The file.
        part: The part of rows that name none.
        by_folder: Whether the folder in the path of the audio names the part, as in an audiofolder.
    """

    path: Path
    part: str
    by_folder: bool = False

    def rows(self) -> Iterator[Row]:
        """Yield the rows, see `read_rows`."""
        return read_rows(self.path)

    def checked_rows(self, columns: ColumnMap) -> Iterator[Row]:
        """Read the rows, and check that one of the first has a column for the audio.

        Args:
            columns: The columns.

        Returns:
            All rows.

        Raises:
            UserError: The table has no rows, or no column for the audio.
        """
        rows = self.rows()
        head = list(islice(rows, _HEAD))
        if not head:
            raise UserError(
                f"{self.path}: holds no rows; write one row per clip into it, or remove it from corpus.yaml"
            )
        objects = [row for _, row in head if isinstance(row, dict)]
        if objects and all(columns.of(row).audio is None for row in objects):
            raise columns.no_audio(self.path, objects[0])
        return chain(head, rows)

    def names_parts(self, columns: ColumnMap) -> bool:
        """Return whether rows name their parts in a column.

        Args:
            columns: The columns.

        Returns:
            True if one of the first rows has the column.
        """
        return any(isinstance(row, dict) and columns.of(row).split for _, row in islice(self.rows(), _HEAD))

    def part_of(self, row: dict[str, Any], columns: ColumnMap, named: bool) -> str:
        """Return the part of a row.

        Args:
            row: The row.
            columns: The columns.
            named: See `names_parts`.

        Returns:
            The part. Empty if rows of this table name their part, and this one does not.
        """
        names = columns.of(row)
        if named:
            value = row[names.split] if names.split else None
            return value.strip() if isinstance(value, str) else "" if value is None else str(value)
        if self.by_folder and names.audio and isinstance(row[names.audio], str):
            folder, _, rest = row[names.audio].removeprefix("./").partition("/")
            return folder if rest and folder in _FOLDERS else self.part
        return self.part

    def count_parts(self, columns: ColumnMap) -> Counter[str]:
        """Count the rows of each part. Reads all rows, unless the file is one part.

        Args:
            columns: The columns.

        Returns:
            Number of rows by part. 0 for the part of a file that is one part.
        """
        named = self.names_parts(columns)
        if not named and not self.by_folder:
            return Counter({self.part: 0})
        parts = (self.part_of(row, columns, named) for _, row in self.rows() if isinstance(row, dict))
        return Counter(part for part in parts if part)


def find_tables(place: Path, suffixes: tuple[str, ...]) -> list[Table]:
    """List the tables of a corpus.

    Args:
        place: A folder, or one table.
        suffixes: Suffixes of tables. A further `.gz` is allowed.

    Returns:
        The tables in the folder, and those named `metadata` in its subfolders, sorted by path. Hidden files are left
        out.

    Raises:
        UserError: The folder cannot be read.
    """
    if place.is_file():
        return [_table(place)] if is_table(place.name, suffixes) else []
    found = []
    for entry in list_folder(place):
        if entry.name.startswith("."):
            continue
        if entry.is_file() and is_table(entry.name, suffixes):
            found.append(_table(Path(entry.path)))
        elif entry.is_dir():
            names = [f"{METADATA}{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz")]
            paths = [path for path in (Path(entry.path, name) for name in names) if path.is_file()]
            found += [Table(path, entry.name) for path in paths]
    return sorted(found, key=lambda table: table.path)


def _table(path: Path) -> Table:
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return Table(path, "train", by_folder=True) if stem == METADATA else Table(path, stem)


def is_table(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file is a table by its name.

    Args:
        name: Name of the file.
        suffixes: Suffixes of tables. A further `.gz` is allowed.

    Returns:
        True if it has one of the suffixes.
    """
    return name.removesuffix(".gz").endswith(suffixes)

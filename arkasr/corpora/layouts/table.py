"""Your own audio in tables: files with one row per clip, as JSON lines or as comma- or tab-separated values.

A corpus is a folder of tables or one table. docs/own_audio.md describes the formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.corpora.layouts.entries import Entry, NoOptions
from arkasr.corpora.layouts.table_entries import EntryMaker
from arkasr.corpora.layouts.table_files import Table, find_tables
from arkasr.corpora.layouts.table_rows import CSV_SUFFIXES, JSONL_SUFFIXES
from arkasr.errors import UserError
from arkasr.utils.console import log

NO_PART = "row names no part"


class Tables:
    """Tables on disk, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    A table is one part with the name of the file. If its rows name their part in a column, these are the parts.

    Args:
        root: The folder of the tables, or one table.
        corpus: The corpus.yaml with the names of columns.
    """

    expected: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    options: ClassVar[type[NoOptions]] = NoOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root = root.parent if root.is_file() else root
        self._place, self._chosen, self._language = root, vars(corpus.columns), corpus.language

    @classmethod
    def matches(cls, folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return folder.exists() and bool(find_tables(folder, cls.suffixes))

    @cached_property
    def _parts(self) -> dict[Table, Counter[str]]:
        """The number of rows by part of each table, 0 for tables of one part."""
        columns = ColumnMap(self._chosen)
        parts = {table: table.count_parts(columns) for table in find_tables(self._place, self.suffixes)}
        owners: dict[str, Path] = {}
        for table, counts in parts.items():
            if list(counts.values()) == [0]:
                other = owners.setdefault(table.part, table.path)
                if other != table.path:
                    raise UserError(
                        f"{other} and {table.path}: are both the part {table.part}; remove one of them, or name one "
                        "table with --corpus_dir"
                    )
        return parts

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`.

        Raises:
            UserError: A table cannot be read, or two tables are the same part.
        """
        return sorted({part for counts in self._parts.values() for part in counts})

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It is size and time of the tables, whose rows may name the parts."""
        tables = find_tables(self._place, self.suffixes)
        states = ((table.path.relative_to(self.root), table.path.stat()) for table in tables)
        return " ".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. These are the tables with rows of the parts."""
        return [table.path for table in self._used(parts)]

    def scan(self, parts: list[str]) -> Iterator[Entry]:
        """See `CorpusLayout.scan`. Rows are read one at a time. Those without a part are counted with their table's.

        Raises:
            UserError: A table is damaged as a whole, has no rows or no audio, or lacks a column that corpus.yaml names.
        """
        columns, used = ColumnMap(self._chosen), self._used(parts)
        languages = Counter[str]()
        for table in used:
            for entry in _entries(table, parts, columns, EntryMaker(table.path, self.root, columns)):
                if not entry.reason:
                    languages[entry.language or self._language or "no language"] += 1
                yield entry
        columns.require_found([table.path for table in used])
        _log_languages(languages)

    def _used(self, parts: list[str]) -> list[Table]:
        return [table for table, counts in self._parts.items() if not counts.keys().isdisjoint(parts)]


def _entries(table: Table, parts: list[str], columns: ColumnMap, maker: EntryMaker) -> Iterator[Entry]:
    named, wanted, others = table.names_parts(columns), {part: part for part in parts}, Counter[str]()
    home = table.part if table.part in wanted else parts[0]
    for line, row in table.checked_rows(columns):
        if isinstance(row, str):
            yield maker.fault(home, line, row)
            continue
        part = table.part_of(row, columns, named)
        if part in wanted:
            yield maker.entry(wanted[part], line, row)  # all rows share one string
        elif part:
            others[part] += 1
        else:
            yield maker.fault(home, line, NO_PART)
    if others:
        names = ", ".join(f"{part} ({count})" for part, count in sorted(others.items()))
        log(f"{table.path}: {others.total()} rows belong to parts that corpus.yaml does not use: {names}")


def _log_languages(languages: Counter[str]) -> None:
    """Log the number of rows of each language, if there are several."""
    if len(languages) > 1:
        counts = (f"{name} ({count})" for name, count in sorted(languages.items()))
        log(f"The rows are in several languages: {', '.join(counts)}")


class JsonTables(Tables):
    """Tables of JSON lines, see `Tables`."""

    expected: ClassVar[str] = "<part>.jsonl or <part>.json with one JSON object per line, as it is or with .gz"
    suffixes: ClassVar[tuple[str, ...]] = JSONL_SUFFIXES


class CsvTables(Tables):
    """Tables of comma- or tab-separated values, see `Tables`."""

    expected: ClassVar[str] = "<part>.csv or <part>.tsv with a header, as it is or with .gz"
    suffixes: ClassVar[tuple[str, ...]] = CSV_SUFFIXES

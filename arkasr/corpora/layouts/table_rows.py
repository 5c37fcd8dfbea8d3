"""The rows of one table file: lines of JSON, or comma- or tab-separated values, as they are or compressed by gzip.

A row that cannot be read does not hide the others. It comes with the reason.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

from arkasr.corpora.layouts.entries import NOT_UTF8
from arkasr.errors import UserError
from arkasr.utils.console import log

NOT_JSON = "row is not JSON"
NOT_AN_OBJECT = "row is not a JSON object"
OTHER_LENGTH = "row has another number of fields than the header"
HEADER_AGAIN = "row repeats the header"

# Number of the line on which the row begins, from 1, and the row by column names or the reason why it has none.
Row = tuple[int, dict[str, Any] | str]

JSONL_SUFFIXES = (".jsonl", ".json")
CSV_SUFFIXES = (".csv", ".tsv")
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HEAD = 4096  # bytes that are looked at for UTF-16, which is half zeros for most languages
_LONGEST_FIELD = 10_000_000  # characters of one field of a CSV file
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}


def read_rows(path: Path) -> Iterator[Row]:
    """Read a table, one row at a time.

    Args:
        path: A file with one of the suffixes above, or one of them and `.gz`.

    Yields:
        The rows in order. Empty lines are left out.

    Raises:
        UserError: The file cannot be read or is in UTF-16, or its header or its quotes are damaged.
    """
    try:
        with _open(path) as file:
            is_csv = path.name.removesuffix(".gz").endswith(CSV_SUFFIXES)
            yield from (_csv_rows(path, file) if is_csv else _json_rows(path, file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the compressed file is damaged ({error}); copy or compress it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); make it readable") from error


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading after its byte order mark."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    opened: Any = gzip.open(path, "rb") if packed else path.open("rb", buffering=0)  # noqa: SIM115 (the caller closes)
    file = io.BufferedReader(opened, 1 << 20)
    head = file.peek(_HEAD)[:_HEAD]
    if head.startswith(_UTF16) or 4 * head.count(0) > len(head) > 0:
        file.close()
        raise UserError(f"{path}: must be UTF-8 text, found UTF-16 or zero bytes; convert it with iconv -t UTF-8")
    if head.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    return file


def _json_rows(path: Path, file: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if number == 1 and line.lstrip()[:1] == b"[":
            raise UserError(
                f"{path}: is one JSON list; every line must be one JSON object; convert it with jq -c '.[]' {path.name}"
            )
        if line := line.strip():
            yield number, _json_row(line)


def _json_row(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):
        return NOT_JSON
    return row if isinstance(row, dict) else NOT_AN_OBJECT


def _csv_rows(path: Path, file: IO[bytes]) -> Iterator[Row]:
    """Yield rows. A tab-separated file has no quotes, because a lone quotation mark in it must not swallow rows."""
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    csv.field_size_limit(_LONGEST_FIELD)
    first = text.readline()
    if path.name.removesuffix(".gz").endswith(".tsv"):
        options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    else:
        options = {"delimiter": _separator(path, first), "strict": True}
    reader = csv.reader(chain([first], text), **options)
    header: list[str] = []
    begin = 1
    try:
        for fields in reader:
            number, begin = begin, reader.line_num + 1
            if not any(fields):
                continue
            if not header:
                header = _checked_header(path, fields)
                continue
            yield number, _csv_row(header, fields)
    except csv.Error as error:
        raise UserError(
            f"{path}: line {begin}: is not valid CSV ({error}); put fields with quotation marks, commas or line ends "
            "into quotation marks, and double the quotation marks in them"
        ) from None


def _separator(path: Path, line: str) -> str:
    """Return the separator of the header. Commas, unless it has none of them but tabs or semicolons."""
    separator = max(_SEPARATORS, key=line.count) if "," not in line else ","
    if separator != ",":
        _log_separator(path, _SEPARATORS[separator])
    return separator


@cache
def _log_separator(path: Path, separator: str) -> None:
    """Log once per table, which is read several times."""
    log(f"{path}: has no commas in its header, so its columns are separated by {separator}")


def _checked_header(path: Path, fields: list[str]) -> list[str]:
    header = [name.strip() for name in fields]
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: the header names the column {repeated[0]!r} twice; rename one of them")
    return header


def _csv_row(header: list[str], fields: list[str]) -> dict[str, Any] | str:
    if len(fields) != len(header):
        return OTHER_LENGTH
    if [name.strip() for name in fields] == header:
        return HEADER_AGAIN
    return dict(zip(header, fields, strict=True))

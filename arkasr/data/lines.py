"""The entries of manifest files as dictionaries, with one sentence for every way in which a file can be broken."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import yaml
from lhotse.serialization import decode_json_line

from arkasr.data.blocks import GZIP, WHOLE, Block
from arkasr.errors import UserError

LINE_SUFFIXES = (".jsonl", ".jsonl.gz")  # formats that can be read line by line
WHOLE_SUFFIXES = (".json", ".json.gz", ".yaml", ".yaml.gz", ".yml", ".yml.gz")  # read as a whole
MIXED = "MixedCut"
CUTS = ("MonoCut", "MultiCut", MIXED, "PaddingCut", "Cut")  # "Cut": what Lhotse below 0.8 called a MonoCut
MOST_BYTES = 2**26  # per line. A few MB of gzip can unpack to more than fits into memory
MOST_WHOLE_BYTES = 2**30  # of a file that is read as a whole
WRITE_AGAIN = "write or copy this file again"
MAKE_CUTS = (
    "stage 1 makes cuts of tables, data sets and folders of audio, see docs/own_audio.md and egs/own; of your own "
    "manifests, see docs/large_corpora.md"
)


def entries(file: Path, start: int = 0, block: Block = WHOLE) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the cuts of one manifest file as dictionaries.

    Compression is recognised by content, so that a renamed file is read too. Blank lines are skipped.

    Args:
        file: A file in a format of `LINE_SUFFIXES` or `WHOLE_SUFFIXES`.
        start: Number of the first line to return, from 0. Earlier lines are read, but not parsed. Formats that are read
            as a whole count entries instead of lines.
        block: The lines to read. Only for formats of `LINE_SUFFIXES`.

    Yields:
        Number of the line or entry, and the dictionary of one cut, with `id`, `type` and, except in mixed cuts,
        `duration` of the right types.

    Raises:
        UserError: The file has another format, is empty, damaged or cut short, or an entry is not a cut.
    """
    by_line = file.name.endswith(LINE_SUFFIXES)
    if not by_line and not file.name.endswith(WHOLE_SUFFIXES):
        raise UserError(
            f"{file}: not the name of a manifest; allowed: {', '.join(LINE_SUFFIXES + WHOLE_SUFFIXES)}; {MAKE_CUTS}"
        )
    numbered = _lines(file, start, block) if by_line else islice(enumerate(_whole(file)), start, None)
    yield from require_cuts(file, numbered, "line" if by_line else "entry")


def numbered_values(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield the values of a file with one JSON value per line, such as recordings or supervisions.

    Args:
        file: The file. Compression is recognised by content.

    Yields:
        Number of the line, from 0, and its value. Blank lines are skipped.

    Raises:
        UserError: The file is empty, damaged or cut short, or a line is not JSON.
    """
    return _lines(file, 0, WHOLE)


def require_cuts(file: Path, numbered: Iterable[tuple[int, Any]], unit: str = "line") -> Iterator[tuple[int, Any]]:
    """Check that values are cuts.

    Args:
        file: Their file, for messages.
        numbered: Pairs of number and value.
        unit: What is numbered, for messages.

    Yields:
        The same pairs.

    Raises:
        UserError: A value is not a cut.
    """
    for number, item in numbered:
        if problem := _problem(item):
            raise UserError(f"{file}: {unit} {number + 1} is not a cut: {problem}")
        yield number, item


@contextmanager
def _opened(file: Path, offset: int = 0) -> Iterator[IO[bytes]]:
    with file.open("rb") as plain:
        magic = plain.read(2)
        if not magic:
            raise UserError(f"{file}: the file is empty (0 bytes); {WRITE_AGAIN}")
        plain.seek(offset)
        if magic == GZIP:
            with gzip.open(plain) as unpacked:
                yield unpacked  # type: ignore[misc]  # GzipFile is an IO[bytes] in all but name
        else:
            yield plain


def _lines(file: Path, start: int, block: Block) -> Iterator[tuple[int, Any]]:
    with _opened(file, block.offset) as content:
        lines = iter(partial(content.readline, MOST_BYTES + 1), b"")
        numbered = enumerate(islice(lines, block.lines), block.first)
        yield from parse_lines(file, ((n, line) for n, line in numbered if n >= start))


def parse_lines(file: Path, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Any]]:
    """Parse lines of JSON. Blank lines are skipped.

    Args:
        file: Their file, for messages.
        lines: Pairs of number and line, read while iterating.

    Yields:
        Number and value of each line.

    Raises:
        UserError: One of the lines is not JSON, or the file is damaged or cut short.
    """
    number = -1
    try:
        for number, line in lines:
            if len(line) > MOST_BYTES:
                problem = f"line {number + 1} has more than {MOST_BYTES} bytes, which no cut needs"
                raise UserError(f"{file}: {problem}; {WRITE_AGAIN}, with one cut per line")
            if line.strip():
                yield number, decode_json_line(line.decode("utf-8-sig" if number == 0 else "utf-8"))
    except EOFError as error:
        raise UserError(f"{file}: the file is truncated after line {number + 1}; {WRITE_AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged after line {number + 1} ({error}); {WRITE_AGAIN}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: line {number + 1} is not UTF-8 text; convert the file to UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        problem = f"line {number + 1} is not a cut: not JSON ({getattr(error, 'msg', 'nested too deeply')})"
        raise UserError(f"{file}: {problem}; {WRITE_AGAIN}, with one cut per line") from error


def _whole(file: Path) -> list[Any]:
    """Read a file that holds one list."""
    try:
        with _opened(file) as content:
            data = content.read(MOST_WHOLE_BYTES + 1)
        if len(data) > MOST_WHOLE_BYTES:
            problem = f"has more than {MOST_WHOLE_BYTES} bytes, too many to be read as a whole"
            raise UserError(f"{file}: {problem}; write it as .jsonl.gz, with one cut per line")
        text = data.decode("utf-8-sig")
        items = json.loads(text) if ".json" in file.suffixes else yaml.safe_load(text)
    except EOFError as error:
        raise UserError(f"{file}: the file is truncated; {WRITE_AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged ({error}); {WRITE_AGAIN}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text; convert the file to UTF-8") from error
    except UserError:
        raise
    # YAML raises ValueError, KeyError or AttributeError for dates and booleans that do not exist
    except (ValueError, LookupError, AttributeError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = "a file with one cut per line must be named .jsonl"
        raise UserError(f"{file}: cannot be read as a whole ({reason}); {WRITE_AGAIN}; {advice}") from error
    if not isinstance(items, list):
        raise UserError(f"{file}: must hold a list of cuts, got {type(items).__name__}; {MAKE_CUTS}")
    return items


def _problem(item: Any) -> str:
    """Say why an entry is not a cut, and what to do. Empty if it is one."""
    if not isinstance(item, dict):
        return f"{type(item).__name__} instead of an object; {WRITE_AGAIN}"
    if item.get("type") not in CUTS:
        return f"{_kind(item)}; {MAKE_CUTS}"
    if not isinstance(item.get("id"), str) or not item["id"]:
        return f"its id must be text, got {item.get('id')!r}; correct it"
    seconds = item.get("duration")
    positive = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf
    if item["type"] != MIXED and not positive:
        return f"its duration must be a number of seconds above 0, got {seconds!r}; correct it"
    return ""


def _kind(item: dict[str, Any]) -> str:
    """Name what an entry is, by its keys."""
    if "type" in item:
        return f"unknown type {item['type']!r}"
    if "sources" in item:
        return "it is a recording"
    if "recording_id" in item and "num_features" not in item:
        return "it is a supervision"
    if "audio_filepath" in item or "wav" in item:
        return "it is a row of another toolkit's manifest"
    return "it has no type"

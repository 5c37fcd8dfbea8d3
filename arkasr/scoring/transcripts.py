"""Transcripts of any system, read from files: what all formats have in common."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from arkasr.errors import UserError
from arkasr.scoring.utterances import Utterance

BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Word(NamedTuple):
    """One word of a CTM file, on one channel of a recording, with the middle of its time in seconds."""

    recording: tuple[str, str]
    middle: float
    text: str


class Segment(NamedTuple):
    """One segment of an STM file, on one channel of a recording, with its end in seconds. Empty id: not scored."""

    recording: tuple[str, str]
    end: float
    id: str


@dataclass(frozen=True)
class Transcripts:
    """The transcripts of one file.

    Attributes:
        path: The file.
        utterances: The utterances by id, in the order of the file.
        numbered: Whether the ids are the numbers of the lines, because the file has none.
        words: The words with their times, if the format has times.
        segments: The segments with their times, also those that are not scored, if the format has segments.
        stopped: Whether each transcript ended with a stop token, by id. Empty if the file does not say so.
    """

    path: str
    utterances: dict[str, Utterance]
    numbered: bool = False
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    stopped: dict[str, bool] = field(default_factory=dict)


def read_lines(path: str) -> list[str]:
    """Read the lines of a text file in UTF-8, with any line ends. A file that ends in `.gz` is decompressed.

    Args:
        path: The file.

    Returns:
        The lines without their ends. An end of line at the end of the file begins no further line.

    Raises:
        UserError: The file cannot be read, or is in another encoding.
    """
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if path.endswith(".gz") else data
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); name a file of transcripts") from error
    if data[:2] in BYTE_ORDER_MARKS:
        raise UserError(_another_encoding(path, f"is {BYTE_ORDER_MARKS[data[:2]]}", BYTE_ORDER_MARKS[data[:2]]))
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    return [_decoded(path, number, line.removesuffix(b"\r")) for number, line in enumerate(lines, 1)]


def _decoded(path: str, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{path}, line {number}"
        raise UserError(_another_encoding(where, f"byte {error.start + 1} is not UTF-8", "latin1")) from error


def _another_encoding(where: str, what: str, name: str) -> str:
    return f"{where}: {what}; all files must be UTF-8; convert it, for example with iconv -f {name} -t utf-8"


def by_id(path: str, rows: Iterable[tuple[int, str, Utterance]]) -> dict[str, Utterance]:
    """Collect the utterances of a file.

    Args:
        path: The file, for messages.
        rows: Number of the line, id and utterance of each row.

    Returns:
        The utterances by id, in their order.

    Raises:
        UserError: There is none, or an id comes twice.
    """
    found: dict[str, Utterance] = {}
    lines: dict[str, int] = {}
    for number, identity, utterance in rows:
        if identity in found:
            raise UserError(
                f"{path}, line {number}: repeats utterance {identity!r} of line {lines[identity]}; each utterance must "
                "come once; remove one of them"
            )
        found[identity], lines[identity] = utterance, number
    if not found:
        raise UserError(f"{path}: holds no utterance; name a file with transcripts")
    return found

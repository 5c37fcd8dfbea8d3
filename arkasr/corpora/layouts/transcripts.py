"""Transcript files as bytes, lines and utterances, with byte order marks and all kinds of line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from arkasr.corpora.layouts.entries import BAD_ID, BAD_TEXT, NO_TEXT, NOT_UTF8
from arkasr.errors import UserError

_LONGEST_ID = 200  # bytes; file systems allow names of 255
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKS = str.maketrans({"\ufeff": "", "\u200b": " "})  # byte order marks of joined files; invisible blanks
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_ID = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff/\\]|\s")


def read_bytes(path: Path) -> bytes:
    """Read a file in UTF-8.

    Args:
        path: The file.

    Returns:
        Its content without a byte order mark. Not checked beyond UTF-16.

    Raises:
        UserError: The file cannot be read, or is in UTF-16 or UTF-32.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); make it readable") from error
    if data.startswith(_UTF16) or 4 * data.count(0) > len(data) > 0:
        raise UserError(f"{path}: must be UTF-8 text, found UTF-16 or zero bytes; convert it with iconv -t UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def read_lines(path: Path) -> list[tuple[str, str, str]]:
    """Read a transcript file with lines of the form `<id> <text>`. Blank lines are left out.

    Args:
        path: The file.

    Returns:
        Utterance id, text with single spaces, and reason why the line cannot be used (empty if it can).

    Raises:
        UserError: The file cannot be read, or is in UTF-16.
    """
    parsed = (_parse(line) for line in read_bytes(path).splitlines())
    return [line for line in parsed if line[0]]


def _parse(raw: bytes) -> tuple[str, str, str]:
    try:
        line, reason = raw.decode("utf-8"), ""
    except UnicodeDecodeError:
        line, reason = raw.decode("utf-8", "replace"), NOT_UTF8
    name, _, text = clean(line).partition(" ")
    return name, text, reason or id_fault(name) or text_fault(text)


def clean(text: str) -> str:
    """Normalise white space.

    Args:
        text: Any text.

    Returns:
        The text with single spaces, and without byte order marks.
    """
    return " ".join(text.translate(_MARKS).split())


def id_fault(name: str) -> str:
    """Check an id. Ids become file names and lines of result files.

    Args:
        name: The id.

    Returns:
        Why it cannot be used, or "".
    """
    steps = re.split("[-/]", name)  # LibriSpeech's ids become folders at each dash
    bad = not name or name[0] in "-." or _NOT_IN_ID.search(name) or ".." in steps or "." in steps
    return BAD_ID if bad or len(name.encode()) > _LONGEST_ID else ""


def text_fault(text: str) -> str:
    """Check a transcript.

    Args:
        text: The transcript after `clean`.

    Returns:
        Why it cannot be used, or "".
    """
    return NO_TEXT if not text else BAD_TEXT if _NOT_TEXT.search(text) else ""

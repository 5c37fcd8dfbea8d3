"""The ids of rows that have none, and of rows whose id is not a file name."""

from __future__ import annotations

import re
from hashlib import blake2b

from arkasr.corpora.layouts.transcripts import id_fault

_NOT_IN_NAME = re.compile(r"[^\w.]+")
_HASH_BYTES = 8


def make_id(audio: str, start: float, end: float | None) -> str:
    """Make the id of a row without one: the name of its file, its times, and a hash of path and times.

    Args:
        audio: Path of the audio relative to the table.
        start: Start in seconds.
        end: End in seconds, or None.

    Returns:
        The id, which does not depend on the order of the rows or on the place of the table.
    """
    stem = _words(audio.rpartition("/")[2].rpartition(".")[0])
    digest = _digest(f"{audio}\0{start!r}\0{end!r}")
    if start == 0 and end is None:
        return f"{stem}-{digest}"
    return f"{stem}-{min(start, 1e6):.2f}-{'end' if end is None else f'{min(end, 1e6):.2f}'}-{digest}"


def allowed_id(ident: str) -> str:
    """Replace an id that is not allowed, for example because it has spaces or slashes.

    Args:
        ident: Any id.

    Returns:
        The same id if it is allowed, else its words and a hash of it.
    """
    return f"{_words(ident)}-{_digest(ident)}" if id_fault(ident) else ident


def _words(text: str) -> str:
    """Return the begin of a text without characters that are not allowed in an id."""
    return _NOT_IN_NAME.sub("_", text)[:40].strip("._") or "audio"


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()

"""One file or part of a file that is transcribed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from arkasr.errors import UserError
from arkasr.transcription.audio import AudioStream, open_audio


@dataclass(frozen=True)
class Source:
    """One file, or one part of a file.

    Attributes:
        name: Its name, as the user wrote it, or as its manifest names it.
        open: Returns its audio, each time it is called. Raises UserError if it cannot be read.
        place: Path without suffix for the output, below the folder of the output.
        language: English name of its language. Empty: that of the settings.
        row: The row of the published repository's JSONL, whose fields are kept.
        stamp: Changes when the audio changes. Empty: the audio cannot be recognised, as that of standard input.
    """

    name: str
    open: Callable[[], AudioStream]
    place: str
    language: str = ""
    row: Mapping[str, Any] | None = None
    stamp: str = ""


def audio_file(path: str, place: str = "") -> Source:
    """Describe a file of audio. It need not exist.

    Args:
        path: Its path.
        place: See `Source`. Default: its name without suffix.

    Returns:
        The source.
    """
    return Source(path, partial(open_audio, path), place or Path(path).stem, stamp=file_stamp(path))


def failing(name: str, error: UserError) -> Source:
    """Describe something that cannot be transcribed, so that it is reported in its place.

    Args:
        name: What the user wrote.
        error: What is wrong.

    Returns:
        A source that raises the error when it is opened.
    """
    return Source(name, partial(_fail, error), Path(name).stem or "unnamed")


def _fail(error: UserError) -> NoReturn:
    raise error


def file_stamp(path: str | Path, *others: object) -> str:
    """Return what changes when a file changes.

    Args:
        path: The file.
        *others: What else determines the audio, such as its start in the file.

    Returns:
        16 hexadecimal digits. Empty if there is no such file.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ""
    text = f"{os.path.abspath(path)} {found.st_size} {found.st_mtime_ns} {others}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]

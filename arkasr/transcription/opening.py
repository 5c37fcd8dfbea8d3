"""Open a file of audio with the decoder that can read it, or say in one sentence why none can."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from arkasr.data.waveforms import MAX_RATE, MIN_RATE
from arkasr.errors import UserError
from arkasr.transcription.av_file import UnreadableError, read_av_file
from arkasr.transcription.content import Content, content_of
from arkasr.transcription.decoded import Decoded, without_start
from arkasr.transcription.sound_file import read_sound_file

INSTALL = "pip install 'arkasr[transcribe]'"
FORMATS = "WAV, FLAC, MP3, Ogg, Opus, AIFF, CAF, M4A, AAC, WebM or WMA, or a video with sound"


def decode(source: str | Path | bytes | BinaryIO, name: str, begin: float) -> Decoded:
    """Open audio. See `arkasr.transcription.audio.open_audio`.

    Args:
        source: Path of a file, its bytes, or an open binary file.
        name: Name for messages.
        begin: Seconds at the start that are left out.

    Returns:
        The samples.

    Raises:
        UserError: The source is not there, is a command or an address, cannot be read, or is not audio.
    """
    file, is_own = _file(source, name)
    try:
        decoded = _decoded(source, file, name, begin)
    except BaseException:
        if is_own:
            file.close()
        raise
    if is_own:
        decoded.blocks = _closing(file, decoded.blocks)
    return decoded


def _closing(file: BinaryIO, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with file:
        yield from blocks


def _decoded(source: str | Path | bytes | BinaryIO, file: BinaryIO, name: str, begin: float) -> Decoded:
    # libsndfile reads a path itself. It reads other files through Python functions, which would swallow a signal.
    path = os.fsencode(source) if isinstance(source, str | Path) and isinstance(file, io.BufferedReader) else None
    try:
        decoded = read_sound_file(path or file, begin, lambda at: _rest(file, at))
    except TypeError as error:  # the name of the file ends in .raw
        raise UserError(f"{name}: raw samples have no header; convert the file to WAV or FLAC") from error
    except soundfile.LibsndfileError as error:
        decoded = _other(file, name, begin, error)
    if not MIN_RATE <= decoded.rate <= MAX_RATE:
        allowed = f"{MIN_RATE} to {MAX_RATE} Hz are allowed"
        raise UserError(f"{name}: the sampling rate is {decoded.rate} Hz; {allowed}; write the file again")
    return decoded


def _rest(file: BinaryIO, start: int) -> Iterator[np.ndarray]:
    """Yield the blocks from a sample on, by PyAV. None if it is not installed, or cannot read the file."""
    try:
        decoded = read_av_file(file, 0.0)
    except (ImportError, UnreadableError):
        return
    if decoded is not None:
        yield from without_start(decoded.blocks, start)


def _other(file: BinaryIO, name: str, begin: float, cause: Exception) -> Decoded:
    """Decode what libsndfile cannot."""
    reason = str(cause).rpartition(": ")[2].rstrip(". ")
    try:
        decoded = read_av_file(file, begin)
    except ImportError as error:
        if not (content := content_of(file)).is_audio:
            raise _unreadable(name, content, reason) from error
        raise UserError(
            f"{name}: libsndfile cannot read it ({reason}); formats such as m4a and webm need PyAV: run {INSTALL}, or "
            "convert the file to WAV or FLAC"
        ) from error
    except UnreadableError as error:
        raise _unreadable(name, content_of(file), str(error)) from error
    if decoded is None:
        raise UserError(f"{name}: holds no audio; name a file with sound")
    if not decoded.rate:
        raise _unreadable(name, content_of(file), "no part of it can be decoded")
    return decoded


def _unreadable(name: str, content: Content, reason: str) -> UserError:
    """Return the error of a file that no decoder can read."""
    if content.is_audio:
        reason = " ".join(reason.split())[:200]
        what_to_do = "check that it is complete and copy it again, or convert it to WAV or FLAC"
        return UserError(
            f"{name}: cannot be read as audio: {content.what}, or coded in an unknown way ({reason}); {what_to_do}"
        )
    return UserError(f"{name}: cannot be read as audio: {content.what}; name a file in one of these formats: {FORMATS}")


def _file(source: str | Path | bytes | BinaryIO, name: str) -> tuple[BinaryIO, bool]:
    """Return a seekable binary file, and whether it was opened here."""
    if isinstance(source, bytes):
        file: Any = io.BytesIO(source)
    else:
        file = _opened(str(source), name) if isinstance(source, str | Path) else source
    if not file.seekable():
        file = _copied(file)
    is_own = file is not source
    if file.seek(0, os.SEEK_END) == 0:
        if is_own:
            file.close()
        raise UserError(f"{name}: is empty (0 bytes); copy or record it again")
    file.seek(0)
    return file, is_own


def _copied(file: BinaryIO) -> Any:
    with file:
        copy = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 (deleted when it is closed)
        shutil.copyfileobj(file, copy)
        return copy


def _opened(path: str, name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            return open(path, "rb")
    except FileNotFoundError as error:
        raise UserError(f"{name}: {_not_a_path(path) or 'no such file; check the path'}") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}; check its permissions and its name") from error
    except ValueError as error:
        raise UserError(f"{name!r}: is not the name of a file ({error}); correct it") from error
    kind = "a folder" if stat.S_ISDIR(mode) else "a device or a socket, not a file"
    raise UserError(f"{name}: is {kind}; name a file with audio")


def _not_a_path(path: str) -> str:
    """Say what a text is that is not a path. Empty if it could be one."""
    if path.rstrip().endswith("|") or path.startswith("pipe:"):
        return "is a command, which is never run; write its output to a file"
    return "is an address, which is not read; download the file first" if "://" in path else ""

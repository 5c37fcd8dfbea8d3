"""What the user names, as a list of files: paths, folders, patterns, standard input, and manifests."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from arkasr.corpora.layouts.walk import find_files
from arkasr.errors import UserError
from arkasr.transcription.audio import AudioStream, open_audio
from arkasr.utils.console import log

STDIN = "-"
MANIFESTS = (".jsonl", ".jsonl.gz")
# Suffixes that are read in folders. A file that is named itself may have any suffix.
SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".mp4", ".m4v", ".aac", ".webm", ".mkv"),
        *(".mka", ".mov", ".avi", ".wma", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".rf64", ".amr", ".3gp"),
        *(".ac3", ".sph"),
    }
)


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


def find_sources(paths: Sequence[str | Path], language: str = "English") -> list[Source]:
    """List the audio that the user names.

    Args:
        paths: Files, folders (searched with all their subfolders), patterns such as `calls/**/*.wav`, `-` for standard
            input, Lhotse manifests of cuts, and JSONL with a row per clip, as in the published repository.
        language: English name of the language of cuts that name none.

    Returns:
        The sources in the order of `paths`. One that cannot be read raises when it is opened.

    Raises:
        UserError: Nothing is named.
    """
    found = [source for path in paths for source in _expanded(str(path), language)]
    if not found:
        raise UserError("nothing to transcribe: no file is named; name files or folders")
    return found


def _expanded(path: str, language: str) -> Iterator[Source]:
    if path == STDIN:
        yield Source(STDIN, partial(open_audio, sys.stdin.buffer, STDIN), "stdin")
    elif os.path.isdir(path):
        yield from _in_folder(Path(path))
    elif path.endswith(MANIFESTS) and os.path.exists(path):
        from arkasr.transcription.manifest_sources import manifest_sources

        yield from manifest_sources(Path(path), language)
    elif not os.path.exists(path) and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        yield from (source for match in matches for source in _expanded(match, language))
        if not matches:
            yield failing(path, UserError(f"{path}: no file matches this pattern; correct it"))
    else:
        yield audio_file(path)


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


def _in_folder(folder: Path) -> Iterator[Source]:
    """Yield the audio files of a folder and its subfolders in the order of their paths."""
    try:
        files = find_files(folder, ("",), optional=("",))
    except UserError as error:
        yield failing(str(folder), error)
        return
    audio = [file for file in files if file.suffix.lower() in SUFFIXES]
    if others := len(files) - len(audio):
        log(f"{folder}: {others} files do not have a suffix of audio, such as .wav, and are left out")
    if not audio:
        yield failing(str(folder), UserError(f"{folder}: holds no audio files; name another folder"))
    for file in audio:
        yield audio_file(str(file), str(file.relative_to(folder).with_suffix("")))


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

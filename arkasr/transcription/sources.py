"""What the user names, as a list of files: paths, folders, patterns, standard input, and manifests."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from arkasr.corpora.layouts.walk import find_files
from arkasr.errors import UserError
from arkasr.transcription.audio import open_audio
from arkasr.transcription.manifest_sources import manifest_sources
from arkasr.transcription.source import Source, audio_file, failing
from arkasr.utils.console import count_text, log

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
        yield from manifest_sources(Path(path), language)
    elif not os.path.exists(path) and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        yield from (source for match in matches for source in _expanded(match, language))
        if not matches:
            yield failing(path, UserError(f"{path}: no file matches this pattern; correct it"))
    else:
        yield audio_file(path)


def _in_folder(folder: Path) -> Iterator[Source]:
    """Yield the audio files of a folder and its subfolders in the order of their paths."""
    try:
        files = find_files(folder, ("",), optional=("",))
    except UserError as error:
        yield failing(str(folder), error)
        return
    audio = [file for file in files if file.suffix.lower() in SUFFIXES]
    if others := len(files) - len(audio):
        log(f"{folder}: left out {count_text(others, 'file')} without a suffix of audio, such as .wav")
    if not audio:
        yield failing(str(folder), UserError(f"{folder}: holds no audio files; name another folder"))
    for file in audio:
        yield audio_file(str(file), str(file.relative_to(folder).with_suffix("")))

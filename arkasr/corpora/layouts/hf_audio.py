"""Audio of the rows of a Hugging Face data set as files: those of the data set, or written once under a hashed name."""

from __future__ import annotations

import io
import os
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from arkasr.corpora.layouts.entries import BAD_PATH, EMPTY, NO_AUDIO, UNREADABLE

NO_VALUE = "row names no audio"
BAD_VALUE = "audio of the row is neither bytes, nor a path, nor samples with a sampling rate"
_HASH_BYTES = 8
_NOT_IN_NAME = re.compile(r"[^\w.]+")


class Unstored(Exception):  # noqa: N818 (the name of a state, like StopIteration)
    """A row has no audio that can be used.

    Args:
        reason: Why, as in dropped.jsonl.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class AudioStore:
    """Gives every row's audio a file.

    Args:
        folder: Where files are written: `<first digits>/<digest>.<format>`. Equal audio becomes one file.
        root: Folder that relative paths of rows begin at.

    Attributes:
        num_written: Number of files written.
        num_kept: Number of files that were there already.
    """

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root
        self.num_written = self.num_kept = 0

    def path(self, value: Any) -> tuple[Path, str]:
        """Return the file with the audio of a row.

        Args:
            value: What `datasets` returns for the column without decoding: bytes with a path, a path, or a dictionary
                of `array` and `sampling_rate`.

        Returns:
            The path, and a digest: of the content of files that are written, of the path of others.

        Raises:
            Unstored: There is no audio, or libsndfile cannot read it.
        """
        value = {"path": value} if isinstance(value, str) else {"bytes": value} if isinstance(value, bytes) else value
        if not isinstance(value, dict):
            raise Unstored(NO_VALUE if value is None else BAD_VALUE)
        if value.get("bytes") is not None:
            return self._write(value["bytes"])
        if value.get("array") is not None:
            return self._write(_encoded(value["array"], value.get("sampling_rate")))
        if value.get("path"):
            return self._found(str(value["path"]))
        raise Unstored(NO_VALUE)

    def _found(self, path: str) -> tuple[Path, str]:
        if "://" in path:
            return self._write(_read(path))
        try:
            digest = _digest(os.path.relpath(self.root / path, self.root).encode())
        except UnicodeEncodeError as error:
            raise Unstored(BAD_PATH) from error
        if not (self.root / path).is_file():
            raise Unstored(NO_AUDIO)
        return self.root / path, digest

    def _write(self, data: bytes) -> tuple[Path, str]:
        if not data:
            raise Unstored(EMPTY)
        digest = _digest(data)
        path = self.folder / digest[:2] / f"{digest}.{_format(data)}"
        if path.is_file() and path.stat().st_size == len(data):
            self.num_kept += 1
            return path, digest
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
        self.num_written += 1
        return path, digest


def source_name(value: Any) -> str:
    """Return the name of a row's audio, as the first part of an id.

    Args:
        value: See `AudioStore.path`.

    Returns:
        The name of its file without suffix, in letters, digits, `_` and `.`, at most 40 characters.
    """
    path = value.get("path") if isinstance(value, dict) else value
    stem = Path(path).stem if isinstance(path, str) else ""
    return _NOT_IN_NAME.sub("_", stem)[:40].strip("._") or "audio"


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_HASH_BYTES).hexdigest()


def _format(data: bytes) -> str:
    import soundfile

    try:
        return soundfile.info(io.BytesIO(data)).format.lower()
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise Unstored(UNREADABLE) from error


def _encoded(samples: Any, rate: Any) -> bytes:
    """Encode samples as FLAC of 24 bits. samples: [num_samples], or [num_channels, num_samples] as in `datasets`."""
    import soundfile

    try:
        array = np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise Unstored(BAD_VALUE) from error
    if isinstance(rate, bool) or not isinstance(rate, int) or rate <= 0 or array.ndim not in (1, 2):
        raise Unstored(BAD_VALUE)
    if not array.size:
        raise Unstored(EMPTY)
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, array.T, rate, format="FLAC", subtype="PCM_24")
    except (soundfile.SoundFileError, ValueError) as error:
        raise Unstored(BAD_VALUE) from error
    return encoded.getvalue()


def _read(address: str) -> bytes:
    from datasets.utils.file_utils import xopen  # type: ignore[import-untyped]

    try:
        with xopen(address, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise Unstored(NO_AUDIO) from error

"""What a command has transcribed so far: a file of JSON lines beside the output, from which a second call resumes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.transcription.formats import from_record, record
from arkasr.transcription.results import Transcription
from arkasr.transcription.source import Source


class Journal:
    """The transcriptions of one output. Another process cannot open it meanwhile.

    Args:
        path: The file. It is created, with its folders.
        made_by: The model and the options, which must not change.

    Raises:
        UserError: Another process uses it, or it holds results of another model or of other options.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]):
        self._path, self._made_by = path, dict(made_by)
        self._results: dict[tuple[str, str], dict[str, Any]] = {}
        self._targets: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):
                return  # the file system has no locks
            raise UserError(
                f"{self._path}: another process is writing this output; wait until it ends, or name another --output"
            ) from error

    def _read(self) -> None:
        self._file.seek(0)
        complete = 0
        for line in self._file:
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                break  # a line that a kill has cut. What follows it does not exist
            complete += len(line)
            self._take(entry)
        self._file.truncate(complete)
        if not complete:
            self._write({"made_by": self._made_by})

    def _take(self, entry: dict[str, Any]) -> None:
        if "made_by" in entry:
            self._check(entry["made_by"])
        elif "target" in entry:
            self._targets.add(entry["target"])
        elif "result" in entry:
            self._results[entry["name"], entry["stamp"]] = entry["result"]

    def _check(self, before: Mapping[str, Any]) -> None:
        keys = [key for key in self._made_by if before.get(key) != self._made_by[key]]
        if keys:
            differences = ", ".join(f"{key} {before.get(key)!r} then, {self._made_by[key]!r} now" for key in keys)
            raise UserError(
                f"{self._path}: the output was begun with another model or other options ({differences}); repeat them, "
                "name another --output, or delete the output and this file"
            )

    def kept(self, source: Source) -> Transcription | None:
        """Look up what an earlier call has transcribed.

        Args:
            source: The audio.

        Returns:
            Its transcription, or None if there is none, or if the audio has changed since.
        """
        found = self._results.get((source.name, source.stamp)) if source.stamp else None
        try:
            return None if found is None else from_record(found)
        except (KeyError, TypeError, AttributeError):
            return None

    def add(self, source: Source, result: Transcription) -> None:
        """Keep a transcription.

        Args:
            source: The audio.
            result: Its transcription.
        """
        self._results[source.name, source.stamp] = fields = record(result)
        self._write({"name": source.name, "stamp": source.stamp, "result": fields})

    def claim(self, target: Path) -> None:
        """Note that this output writes a file.

        Args:
            target: The file.

        Raises:
            UserError: The file exists and is not from an earlier call.
        """
        name = str(target.relative_to(self._path.parent))
        if name in self._targets:
            return
        if target.exists():
            raise UserError(
                f"{target}: exists, and was not written by arkasr transcribe with this --output; delete it, or name "
                "another --output"
            )
        self._targets.add(name)
        self._write({"target": name})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, which ends the lock. A journal without an entry is deleted."""
        if not self._results and not self._targets:
            self._path.unlink(missing_ok=True)
        self._file.close()

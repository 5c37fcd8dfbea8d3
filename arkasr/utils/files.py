"""Files that other commands rely on: written durably, identified by digests, guarded by locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arkasr.errors import UserError

LOCK = ".arkasr.lock"
SAMPLES, SAMPLE_BYTES = 64, 4096  # read per file for `sampled_digest`


def flush(paths: Iterable[Path]) -> None:
    """Force files, and the entries of directories, to the disk.

    Args:
        paths: Existing files and directories.
    """
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def publish(part: Path, target: Path) -> None:
    """Give a complete file or folder its final name. After a power cut, the name exists only with all contents.

    Args:
        part: The file or folder under its temporary name, in the same folder as `target`.
        target: The final name. An existing file of this name is replaced, an existing folder must be empty.
    """
    flush([*part.rglob("*"), part] if part.is_dir() else [part])
    part.replace(target)
    flush([target.parent])


def write_text(path: Path, text: str) -> None:
    """Write a text file durably: an interrupted call leaves the previous file.

    Args:
        path: File to write. Missing parent folders are created.
        text: New content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    publish(part, path)


def read_json(path: Path, what_to_do: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        what_to_do: End of the error message, such as "delete it and run the recipe from --stage 1".

    Returns:
        The object.

    Raises:
        UserError: The file is missing, empty, or not a JSON object in UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {what_to_do}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {what_to_do}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, got {type(value).__name__}; {what_to_do}")
    return value


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file's content.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_digest(path: Path) -> str:
    """Return a digest of a model: names and sizes of its files, and samples of their contents.

    Training changes nearly all weights, so samples distinguish two models. Reading whole files would take long.

    Args:
        path: A file or a folder. Hidden files and Markdown files of a folder are left out.

    Returns:
        64 hexadecimal digits, or an empty string if there are no files (a Hub id, for example).
    """
    files = [path] if path.is_file() else sorted(p for p in path.glob("[!.]*") if p.is_file() and p.suffix != ".md")
    digest = hashlib.sha256()
    for file_path in files:
        size = file_path.stat().st_size
        digest.update(f"{file_path.name} {size}\n".encode())
        with file_path.open("rb") as file:
            for sample in range(SAMPLES):
                file.seek(size * sample // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest() if files else ""


@contextmanager
def locked(folder: Path, action: str) -> Iterator[None]:
    """Hold a folder's lock, so that two commands do not write into it at once. It ends with the process.

    Args:
        folder: The folder. It is created.
        action: What the command does there, such as "decoding", for the message of another command.

    Yields:
        None, while the lock is held.

    Raises:
        UserError: Another process holds the lock.
        OSError: The file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            # lockf, because a flock would be inherited by data loader processes, which may outlive this process
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            what_to_do = "wait until it ends, or use another folder"
            raise UserError(f"{folder}: {holder} is using this folder; {what_to_do}") from error
        file.truncate(0)
        file.write(f"{action}, process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)

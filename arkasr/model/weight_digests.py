"""SHA-256 digests of the files of a model, in SHA256SUMS beside them. `sha256sum --check SHA256SUMS` reads it too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from arkasr.errors import UserError
from arkasr.utils.files import sha256, write_text

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\s]+)")


def write_digests(folder: Path) -> None:
    """Write the digests of a folder's weights, configuration and tokenizer.

    Args:
        folder: The folder.
    """
    files = sorted(file for kind in ("*.safetensors", "*.onnx", "*.onnx.data", "*.json") for file in folder.glob(kind))
    lines = [f"{sha256(file)}  {file.name}\n" for file in files]
    write_text(folder / SUMS, "".join(lines))


def check_digests(files: Iterable[Path]) -> None:
    """Compare files with the digests in their folder. Files without a digest are accepted.

    Loading a model compares its weights only: you may edit its configuration.

    Each file is read at most once per process, unless it changes.

    Args:
        files: Files of one folder.

    Raises:
        UserError: A file differs from what was written, or the list of digests cannot be read.
    """
    for file in files:
        expected = _digests(file.parent).get(file.name)
        if expected is None:
            continue
        if not file.is_file():
            raise UserError(f"{file}: missing, but {SUMS} lists it; copy or export the model again")
        stat = file.stat()
        if _digest(file, stat.st_size, stat.st_mtime_ns) != expected:
            what = "the weights were" if file.suffix == ".safetensors" else "the file was"
            raise UserError(
                f"{file}: {what} changed or damaged after the model was written (the SHA-256 digest differs from "
                f"{SUMS}); copy or export the model again, or delete {SUMS} if you changed them yourself"
            )


def digested_files(folder: Path) -> list[Path]:
    """List the files of a folder that have a digest.

    Args:
        folder: The folder.

    Returns:
        Their paths. They need not exist.

    Raises:
        UserError: The list of digests cannot be read.
    """
    return [folder / name for name in _digests(folder)]


def _digests(folder: Path) -> dict[str, str]:
    """Read the digests by file name. A folder without the file has none."""
    file = folder / SUMS
    if not file.is_file():
        return {}
    found = {}
    for line in file.read_bytes().decode("utf-8", "replace").splitlines():
        if not (match := _LINE.fullmatch(line)):
            raise UserError(f"{file}: {line[:80]!r} is not a digest and a file name; copy or export the model again")
        found[match[2]] = match[1]
    if not found:
        raise UserError(f"{file}: is empty; copy or export the model again")
    return found


@lru_cache(maxsize=64)
def _digest(file: Path, size: int, changed: int) -> str:
    return sha256(file)

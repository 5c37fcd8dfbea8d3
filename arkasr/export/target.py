"""The folder that an export writes: made beside the target, then put in its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.utils.files import LOCK, locked, publish

RECORD = "training_run.json"  # in every export: its list of files identifies the folder as an export


def check_target(folder: Path) -> None:
    """Check that a folder may be replaced by an export.

    Args:
        folder: Target folder. It need not exist.

    Raises:
        UserError: The path is a file, or the folder contains something that an earlier export did not write.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder; use another --outdir")
    try:
        written = {LOCK, *json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        written = {LOCK}
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in written)
    if unknown:
        raise UserError(
            f"{folder}: contains {unknown[0]}, which was not written by `arkasr export`; move it away or use another "
            "--outdir"
        )


@contextmanager
def replacing(target: Path, action: str) -> Iterator[Path]:
    """Yield a temporary folder, which replaces the earlier export if no error is raised.

    Args:
        target: Folder of the export.
        action: What is done, for the message of another command.

    Yields:
        An empty folder beside the target.

    Raises:
        UserError: The target holds other files, or another process writes to it.
    """
    temporary = target.with_name(f"writing-{target.name}")
    with locked(temporary, action):
        _clear(temporary)
        try:
            yield temporary
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        check_target(target)
        _replace(target, temporary)


def write_record(folder: Path, facts: dict[str, Any]) -> None:
    """Write the record of an export, with the list of its files.

    Args:
        folder: The folder, complete but for the record.
        facts: Content of the record.
    """
    files = sorted({RECORD, *(path.name for path in folder.iterdir())} - {LOCK})
    text = json.dumps(facts | {"files": files}, indent=1, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def _clear(temporary: Path) -> None:
    """Remove what an interrupted export left."""
    for path in temporary.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _replace(target: Path, temporary: Path) -> None:
    old = target.with_name(f"replaced-{target.name}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    publish(temporary, target)
    (target / LOCK).unlink()
    shutil.rmtree(old, ignore_errors=True)

"""Turns errors that a user can mend into one sentence: bad input, a missing file, a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence


class UserError(ValueError):
    """Something the user can mend. The message names the file or key, the value, and what to do."""


# What writers say when the disk is full: the system and safetensors, torch.save (the next three), libsndfile.
_FULL = ("No space left", "iostream error", "unexpected pos", "PytorchStreamWriter failed writing")
_FULL_AUDIO = "System error."
_DEAD_LOADER = "DataLoader worker (pid"  # torch's words, raised wherever the run was when the process died


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it came from, is what a full disk or quota causes."""
    return any(
        getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or str(each) == _FULL_AUDIO
        or any(text in str(each) for text in _FULL)
        for each in _chain(error)
    )


def _free_bytes(folder: str) -> int:
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def _disk_full(error: BaseException, folders: Sequence[str]) -> str:
    file = next((each.filename for each in _chain(error) if getattr(each, "filename", None)), None)
    if file is None and folders:
        file = f"a file under {min(folders, key=_free_bytes)}"
    what_to_do = "free some space and run the same command again; finished work is kept"
    return f"no space left to write {file or 'a file'}: {what_to_do}"


def _dead_loader(error: BaseException) -> str | None:
    said = next((str(each) for each in _chain(error) if str(each).startswith(_DEAD_LOADER)), None)
    return said and (
        f"a process that reads audio died ({said.splitlines()[0].rstrip('. ')}), most often for want of memory: run "
        "the same command again, which carries on from the last checkpoint; lower data.num_workers if it dies again"
    )


def explain(error: BaseException, folders: Sequence[str] = ()) -> str | None:
    """Return a sentence for the user, or None where the error is the program's own.

    folders: where the program writes; named for a full disk whose error does not name the file.
    """
    if isinstance(error, UserError):
        return str(error)
    if is_disk_full(error):
        return _disk_full(error, folders)
    if said := _dead_loader(error):
        return said
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no {error.filename}: check the path, or run the stage that makes it"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}: check its permissions and what it is"
    return str(error) if isinstance(error, OSError) and str(error) else None

"""`UserError`, and the conversion of errors that the user can fix into one sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence


class UserError(ValueError):
    """An error that the user can fix. Its message names the file or key, the value, and what to do."""


class ClipTooLongError(UserError):
    """The clip is longer than the model accepts. The other clips of a corpus can still be transcribed."""


# Messages of writers on a full disk: the system and safetensors, torch.save (three messages), libsndfile.
_FULL = ("No space left", "iostream error", "unexpected pos", "PytorchStreamWriter failed writing")
_FULL_AUDIO = "System error."
_DEAD_LOADER = "DataLoader worker (pid"  # torch raises this anywhere in the training process


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the errors that caused it, the newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException) -> bool:
    """Return whether a full disk or an exhausted quota caused an error.

    Args:
        error: The error. Its causes are examined too.

    Returns:
        True if the error or one of its causes is what a full disk raises.
    """
    return any(
        getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or str(each) == _FULL_AUDIO
        or any(text in str(each) for text in _FULL)
        for each in _causes(error)
    )


def _free_bytes(folder: str) -> int:
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def _disk_full(error: BaseException, folders: Sequence[str]) -> str:
    file = next((name for each in _causes(error) if (name := getattr(each, "filename", None))), None)
    if file is None and folders:
        file = f"a file under {min(folders, key=_free_bytes)}"
    what_to_do = "free some space and run the same command again; finished work is kept"
    return f"no space left to write {file or 'a file'}: {what_to_do}"


def _dead_loader(error: BaseException) -> str | None:
    message = next((str(each) for each in _causes(error) if str(each).startswith(_DEAD_LOADER)), None)
    return message and (
        f"a data loader process died ({message.splitlines()[0].rstrip('. ')}), most often because memory ran out; run "
        "the same command again to resume; lower data.num_workers if it dies again"
    )


def explain(error: BaseException, folders: Sequence[str] = ()) -> str | None:
    """Return one sentence about an error that the user can fix.

    Args:
        error: The error that ended the command.
        folders: Folders that the command writes to. If the disk is full and the error names no file, the sentence
            names the folder with the least free space.

    Returns:
        The sentence, or None if the error is a bug in arkasr.
    """
    if isinstance(error, UserError):
        return str(error)
    if is_disk_full(error):
        return _disk_full(error, folders)
    if message := _dead_loader(error):
        return message
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file or folder; check the path, or run the stage that writes it"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}; check its permissions and its type"
    return str(error) if isinstance(error, OSError) and str(error) else None

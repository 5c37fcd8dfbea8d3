"""The files of a corpus below a folder, also behind symbolic links. Nothing is left out without a message."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from arkasr.errors import UserError
from arkasr.utils.console import log

_LONGEST_TARGET = 4096  # bytes of the path that a symbolic link holds


def find_files(root: Path, suffixes: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Path]:
    """List files by their suffix, at any depth, also in folders behind symbolic links.

    Every folder is read once. Links are followed last, so that a folder keeps its own name where it has one. A link
    to a folder that is already read, or that contains `root`, is logged and not followed. Hidden files and folders,
    such as those that macOS adds (`._name`), are left out, and their number is logged.

    Args:
        root: The folder.
        suffixes: Endings of the names of wanted files, such as ".trans.txt".
        optional: Those of `suffixes` whose links may lead to nothing. The caller reports these files.

    Returns:
        The paths, sorted. A path leads through the links below `root`.

    Raises:
        UserError: A folder cannot be read, or another link leads to nothing.
    """
    real_root = os.path.realpath(root)
    found: list[Path] = []
    num_hidden = 0
    folders, links, seen = [(str(root), real_root)], deque[tuple[str, str]](), set[str]()
    while folders or links:
        folder, real = folders.pop() if folders else links.popleft()
        if real in seen:
            log(f"{folder}: not followed, because this link leads to a folder that is read already")
            continue
        seen.add(real)
        for entry in list_folder(Path(folder)):
            if entry.name.startswith("."):
                num_hidden += entry.name.endswith(suffixes) or os.path.isdir(entry.path)
            elif not _is_folder(entry, optional):
                found += [Path(entry.path)] if entry.name.endswith(suffixes) else []
            elif not entry.is_symlink():
                folders.append((entry.path, os.path.join(real, entry.name)))
            elif Path(real_root).is_relative_to(target := os.path.realpath(entry.path)):
                log(f"{entry.path}: not followed, because this link leads to a folder that contains it")
            else:
                links.append((entry.path, target))
    if num_hidden:
        log(f"{root}: {num_hidden} hidden files and folders left out (their names begin with a dot)")
    return sorted(found)


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Read a folder.

    Args:
        folder: The folder.

    Returns:
        Its entries, sorted by name.

    Raises:
        UserError: It cannot be read, or a file in it is a link to a folder that was copied as text.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise _broken(str(folder)) from error
    except OSError as error:
        raise _unreadable(str(folder), error) from error
    for entry in found:
        _require_no_written_link(entry)
    return found


def subfolders(folder: Path) -> list[str]:
    """List the visible folders in a folder.

    Args:
        folder: The folder.

    Returns:
        Their names, sorted, with links to folders, and with links to nothing. `find_files` reports the latter.

    Raises:
        UserError: The folder cannot be read.
    """
    entries = [entry for entry in list_folder(folder) if not entry.name.startswith(".")]
    return [entry.name for entry in entries if os.path.isdir(entry.path) or _leads_nowhere(entry)]


def require_readable(folder: Path, depth: int) -> None:
    """Check that a folder and its subfolders can be read and have no link to nothing.

    Args:
        folder: The folder.
        depth: How many levels of subfolders to check.

    Raises:
        UserError: A folder cannot be read, or a link leads to nothing.
    """
    for entry in list_folder(folder):
        if _is_folder(entry, ()) and depth > 0:
            require_readable(Path(entry.path), depth - 1)


def _require_no_written_link(entry: os.DirEntry[str]) -> None:
    """Refuse a file that replaces a folder. git and file systems without symbolic links write their target as text.

    Only names without a dot are looked at, as folders have, because reading every file of a corpus takes long.
    """
    try:
        if "." in entry.name or not entry.is_file() or not 0 < entry.stat().st_size <= _LONGEST_TARGET:
            return
        target = os.fsdecode(Path(entry.path).read_bytes()).strip()
        leads = "\0" not in target and os.path.isdir(os.path.join(os.path.dirname(entry.path), target))
    except OSError:
        return  # unreadable entries are the concern of the caller
    if leads:
        raise UserError(
            f"{entry.path}: is a text file with the path of a folder ({target}), as left by a copy of a symbolic link; "
            "replace it by that link or by the folder itself"
        )


def _is_folder(entry: os.DirEntry[str], optional: tuple[str, ...]) -> bool:
    """Return whether an entry is a folder or leads to one. Links to nothing are errors, except `optional` names."""
    if _leads_nowhere(entry):
        if not entry.name.endswith(optional):
            raise _broken(entry.path)
        return False
    try:
        return entry.is_dir()
    except OSError as error:
        raise _unreadable(entry.path, error) from error


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to nothing or to itself. A target that may not be looked at is something."""
    if not entry.is_symlink():
        return False
    try:
        os.stat(entry.path)
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def _unreadable(folder: str, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"{folder}: the folder cannot be read ({reason}); make it readable, or remove it from the corpus")


def _broken(path: str) -> UserError:
    target = f" ({os.readlink(path)})" if os.path.islink(path) else ""
    return UserError(f"{path}: leads to nothing{target}; restore what it leads to, or remove it from the corpus")

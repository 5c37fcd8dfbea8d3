"""Take the paths of this machine out of what is shared: commands, configurations and records of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A path from the root or the home directory, to the end of the value that holds it; addresses (https://) are none.
_PATH = re.compile(r"(?:file:/+|(?<![\w.:/}>~-])/|(?<=:)/(?!/)|(?<![\w./])~[\w.-]*/)[^,;|\]})\"'<>]*")


def _shortened(match: re.Match) -> str:
    """Keep what says something elsewhere: a path inside egs/ from there on, else the last name."""
    path = match[0].rstrip()
    inside = re.search(r"/(egs/.+)", path)
    return (inside[1] if inside else f".../{Path(path).name}") + match[0][len(path) :]


def public_text(text: str, folders: Mapping[str, str]) -> str:
    """Return a value of a configuration without private paths.

    folders: a path that the value may start with -> what stands for it, as {expdir}. Other absolute paths become
    ".../" and their last name.
    """
    for path, name in sorted(folders.items(), key=lambda item: -len(item[0])):
        if text == path or text.startswith(f"{path}/"):
            text = name + text[len(path) :]
            break
    return _PATH.sub(_shortened, text)


def public_values(value: Any, folders: Mapping[str, str]) -> Any:
    """Do the same for all text in nested lists and mappings."""
    if isinstance(value, dict):
        return {public_text(str(name), {}): public_values(item, folders) for name, item in value.items()}
    if isinstance(value, list):
        return [public_values(item, folders) for item in value]
    return public_text(value, folders) if isinstance(value, str) else value


def public_command(command: str) -> str:
    """Return a command line without private paths, word for word otherwise."""
    try:
        return shlex.join(public_text(word, {}) for word in shlex.split(command))
    except ValueError:
        return public_text(command, {})


def folders_of(command: str, expdir: str | Path, datadir: str | Path) -> dict[str, str]:
    """Return what {expdir} and {datadir} may stand for: the folders given, and those that the run's command named."""
    found = {str(expdir): "{expdir}", str(datadir): "{datadir}"}
    found |= {str(Path(path).absolute()): name for path, name in found.items()}
    found |= {str(Path(path).resolve()): name for path, name in found.items()}
    for option, path in zip(words := _words(command), words[1:]):
        if option in ("--expdir", "--datadir"):
            found[path.rstrip("/")] = "{" + option[2:] + "}"
    return found


def _words(command: str) -> list[str]:
    """Split a command as a shell does; --name=value makes two words."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]

"""Remove local paths from what is shared: commands, configurations and run records."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A path from the root or the home directory, up to the end of its value. URLs (https://) do not match.
_PATH = re.compile(r"(?:file:/+|(?<![\w.:/}>~-])/|(?<=:)/(?!/)|(?<![\w./])~[\w.-]*/)[^,;|\]})\"'<>]*")


def public_text(text: str, folders: Mapping[str, str]) -> str:
    """Remove local paths from a text.

    Args:
        text: Value of a configuration, or word of a command.
        folders: Replacement by leading path, such as {"/data/exp": "{expdir}"}.

    Returns:
        The text. Paths inside egs/ are kept from there on. Other absolute paths become ".../" and their last name.
    """
    for path, name in sorted(folders.items(), key=lambda item: -len(item[0])):
        if text == path or text.startswith(f"{path}/"):
            text = name + text[len(path) :]
            break
    return _PATH.sub(_shortened, text)


def public_values(value: Any, folders: Mapping[str, str]) -> Any:
    """Remove local paths from all texts in nested lists and mappings.

    Args:
        value: Configuration as read from YAML.
        folders: See `public_text`.

    Returns:
        A copy of the value.
    """
    if isinstance(value, dict):
        return {public_text(str(name), {}): public_values(item, folders) for name, item in value.items()}
    if isinstance(value, list):
        return [public_values(item, folders) for item in value]
    return public_text(value, folders) if isinstance(value, str) else value


def public_command(command: str) -> str:
    """Remove local paths from a command line. All other words are kept.

    Args:
        command: Command line in shell syntax.

    Returns:
        The command line.
    """
    try:
        return shlex.join(public_text(word, {}) for word in shlex.split(command))
    except ValueError:
        return public_text(command, {})


def folders_of(command: str, expdir: str | Path, datadir: str | Path) -> dict[str, str]:
    """Return the paths that "{expdir}" and "{datadir}" replace.

    Args:
        command: Command line of the run. Its --expdir and --datadir count too, because folders may have moved.
        expdir: Experiment directory.
        datadir: Data directory.

    Returns:
        Replacement by path, for `public_text`. Paths are listed as written, absolute and resolved.
    """
    found = {str(expdir): "{expdir}", str(datadir): "{datadir}"}
    found |= {str(Path(path).absolute()): name for path, name in found.items()}
    found |= {str(Path(path).resolve()): name for path, name in found.items()}
    for option, path in zip(words := _words(command), words[1:]):
        if option in ("--expdir", "--datadir"):
            found[path.rstrip("/")] = "{" + option[2:] + "}"
    return found


def _shortened(match: re.Match) -> str:
    """Keep a path from egs/ on, otherwise its last name."""
    path = match[0].rstrip()
    inside = re.search(r"/(egs/.+)", path)
    return (inside[1] if inside else f".../{Path(path).name}") + match[0][len(path) :]


def _words(command: str) -> list[str]:
    """Split a command like a shell does. --name=value is split into two words."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]

"""Audio that Lhotse would read by running a shell command. A manifest is data, so no command of it ever runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from lhotse.cut import Cut

from arkasr.data.reasons import COMMAND, Unusable

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")  # Lhotse runs what follows `pipe:`, and takes `-` for standard input
_WRITE_FILES = "no command of a manifest is run; write the audio into files"


def refuse_commands(clip: Cut) -> None:
    """Refuse a clip whose audio comes from a shell command. Nothing is read or run.

    Lhotse runs a command for sources of type `command`, for addresses that begin with `pipe:`, and to convert `.sph`
    files, whose path becomes part of the command. Tracks of mixed cuts and the room impulse responses of
    transformations have sources too.

    Args:
        clip: The clip.

    Raises:
        Unusable: One of its sources is a command.
    """
    for kind, source in _sources(clip.to_dict()):
        if not isinstance(source, str):
            continue
        if kind == "command" or (kind == "url" and not _ADDRESS.match(source)):
            raise Unusable(COMMAND, f"{source[:200]!r}: {_WRITE_FILES}")
        if source.lower().endswith(".sph") and shlex.quote(source) != source:
            raise Unusable(COMMAND, f"{source[:200]!r}: a path to a .sph file with signs of the shell; rename the file")


def _sources(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield type and source of all audio sources in a nested value."""
    if isinstance(value, dict):
        if "source" in value:
            yield value.get("type"), value["source"]
        value = list(value.values())
    elif callable(to_dict := getattr(value, "to_dict", None)):
        value = [to_dict()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _sources(item)

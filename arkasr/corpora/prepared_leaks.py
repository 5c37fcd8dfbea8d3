"""Compares the dev and test sets of some data directories with the training cuts of others.

`arkasr.corpora.leaks` describes the comparison. Cuts of different corpora can have equal ids by chance. Those with
equal ids and lengths whose audio is in shards are therefore logged, and not refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arkasr.corpora.layouts.segments import number
from arkasr.corpora.leaks import Leak, find_leaks, refuse
from arkasr.corpora.set_rows import Row
from arkasr.utils.console import log


def refuse_prepared_leaks(
    where: str, training: str | Path, sets: Mapping[str, str | Path], by_length: bool, num_jobs: int
) -> None:
    """Compare manifests with the training cuts of another data directory.

    Args:
        where: The file or option that names the sets, for messages.
        training: Manifest or mix of the training cuts.
        sets: Manifests of dev and test sets by name.
        by_length: See `arkasr.corpora.leaks.find_leaks`.
        num_jobs: Number of threads that read audio.

    Raises:
        UserError: Audio of one of the sets is in the training cuts, or a manifest cannot be read.
    """
    scored = [(name, row) for name, manifest in sets.items() for row in rows(manifest)]
    leaks, uncertain = find_leaks(rows(training), scored, by_length, num_jobs)
    refuse(where, leaks, f"the training cuts {training}", "the training cuts")
    if uncertain:
        _warn(where, training, uncertain)


def _warn(where: str, training: str | Path, leaks: list[Leak]) -> None:
    names = ", ".join(dict.fromkeys(leak.name for leak in leaks))
    log(
        f"warning: {where}: {len(leaks)} cuts of {names} have the id and the length of cuts of {training}, the first "
        f"is {leaks[0].row.id}; their audio is in shards and was not compared"
    )


def rows(manifest: str | Path) -> Iterator[Row]:
    """Read the facts of cuts that the comparison needs. No audio is read.

    Args:
        manifest: A manifest or a mix.

    Yields:
        One row per cut, without its line. Ids are those of the member of a mix.

    Raises:
        UserError: A file is missing or damaged.
    """
    from arkasr.data.lines import entries
    from arkasr.data.manifests import shards

    for file in shards(str(manifest)):
        for _, item in entries(file):
            recording = item.get("recording")
            recording = recording if isinstance(recording, dict) else {}
            seconds, begin, length = (
                number(value) or 0.0 for value in (item.get("duration"), item.get("start"), recording.get("duration"))
            )
            path = _path(recording.get("sources"))
            yield Row(item["id"], "", seconds, None, "", True, path, begin, length, "")


def _path(sources: Any) -> str:
    """Return the audio file of a recording, empty if it is not one file."""
    only = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    found = only.get("source") if isinstance(only, dict) and only.get("type") == "file" else None
    return found if isinstance(found, str) else ""

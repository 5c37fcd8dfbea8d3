"""The cuts of one part as dictionaries, from cut manifests, Shar folders, or recordings with supervisions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.layouts.lhotse_files import LhotsePart
from arkasr.errors import UserError

if TYPE_CHECKING:
    from arkasr.data.checks import Place

_MANIFEST = "write the manifest again with Lhotse"


def read_items(part: LhotsePart) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the cuts of a part. No audio is read.

    Args:
        part: The files, after `require_part`.

    Yields:
        File and line, and one cut as a dictionary. Recordings with supervisions yield one cut per supervision, with
        the id of the supervision, and one per recording without supervision.

    Raises:
        UserError: A file is missing, damaged, or holds something else.
    """
    return _cuts(part.cuts[0]) if part.cuts else _joined(part)


def _cuts(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    from arkasr.data import shar
    from arkasr.data.checks import Place
    from arkasr.data.lines import entries
    from arkasr.data.manifests import checked_files

    for file in checked_files(str(path)):
        for number, item in entries(file):
            shar.locate(item, file, number)
            yield Place(file, number), item


def _joined(part: LhotsePart) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Pair supervisions with recordings. Files in the same order are read side by side."""
    recordings = _Recordings(part.recordings[0])
    used: set[str] = set()
    for file in part.supervisions:
        for place, supervision in _objects(file, "recording_id", "supervision"):
            name = supervision["recording_id"]
            found = recordings.find(name)
            used.add(name)
            yield place, _cut(supervision["id"], found, [supervision])
    for place, recording in recordings.rest(used):
        yield place, _cut(recording["id"], recording, [])


def _cut(name: str, recording: dict[str, Any] | None, supervisions: list[Any]) -> dict[str, Any]:
    """Make a cut of a whole recording with one supervision. Without a recording, it has no audio."""
    fields = {"id": name, "start": 0, "channel": 0, "type": "MonoCut", "supervisions": supervisions}
    if recording is None:
        end = [one.get("start", 0) + one.get("duration", 0) for one in supervisions if _is_timed(one)]
        return fields | {"duration": max([1.0, *end])}
    channels = sorted({channel for source in recording["sources"] for channel in source["channels"]})
    own = supervisions[0].get("channel", 0) if supervisions else channels
    own = own[0] if isinstance(own, list) and len(own) == 1 else own
    several = isinstance(own, list)
    return fields | {
        "duration": recording["duration"],
        "channel": own,
        "type": "MultiCut" if several else "MonoCut",
        "recording": copy.deepcopy(recording),  # Lhotse empties what it deserializes
    }


def _is_timed(supervision: dict[str, Any]) -> bool:
    return all(type(supervision.get(key, 0)) in (int, float) for key in ("start", "duration"))


class _Recordings:
    """The recordings of a file, read as far as needed."""

    def __init__(self, file: Path):
        self.rows = _objects(file, "sources", "recording")
        self.known: dict[str, tuple[Place, dict[str, Any]]] = {}

    def find(self, name: str) -> dict[str, Any] | None:
        while name not in self.known:
            if (row := next(self.rows, None)) is None:
                return None
            self._add(*row)
        return self.known[name][1]

    def _add(self, place: Place, recording: dict[str, Any]) -> None:
        name = recording["id"]
        if name in self.known:
            raise UserError(f"{place}: recording {name!r} has the id of an earlier one; give each its own id")
        self.known[name] = (place, recording)

    def rest(self, used: set[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
        for row in self.rows:
            self._add(*row)
        yield from (row for name, row in self.known.items() if name not in used)


def _objects(file: Path, key: str, kind: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the rows of a file of recordings or supervisions."""
    from arkasr.data.checks import Place
    from arkasr.data.lines import numbered_values

    empty = True
    for number, item in numbered_values(file):
        empty, place = False, Place(file, number)
        problem = _problem(item, key)
        if problem:
            raise UserError(f"{place} is not a {kind}: {problem}; {_MANIFEST}")
        yield place, item
    if empty:
        raise UserError(f"{file}: holds no {kind}; {_MANIFEST}")


def _problem(item: Any, key: str) -> str:
    if not isinstance(item, dict):
        return f"{type(item).__name__} instead of an object"
    if not isinstance(item.get("id"), str) or not item["id"]:
        return f"its id must be text, got {item.get('id')!r}"
    if key == "recording_id":
        return "" if isinstance(item.get(key), str) else f"its {key} must be text, got {item.get(key)!r}"
    sources, seconds = item.get(key), item.get("duration")
    if not isinstance(sources, list) or not sources or not all(_is_source(source) for source in sources):
        return f"its {key} must be a list of audio sources"
    positive = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
    return "" if positive else f"its duration must be a number of seconds above 0, got {seconds!r}"


def _is_source(source: Any) -> bool:
    channels = source.get("channels") if isinstance(source, dict) else None
    return isinstance(channels, list) and bool(channels) and all(isinstance(one, int) for one in channels)

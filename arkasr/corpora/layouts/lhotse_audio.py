"""The audio of Lhotse's cuts: where their paths lead."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.layouts.entries import NO_CHANNEL
from arkasr.errors import UserError

if TYPE_CHECKING:
    from arkasr.data.checks import Place


class Sources:
    """Makes the paths of audio files absolute.

    Args:
        manifest: The file or folder with the cuts. A relative path begins in its folder. If there is no such file, it
            begins in a folder above, as Lhotse's own recipes write paths from the folder that they run in.
        root: The folder of the corpus.
    """

    def __init__(self, manifest: Path, root: Path):
        folder = manifest if manifest.is_dir() else manifest.parent
        self._folders = [folder, *folder.parents]
        self._root = root

    def resolve(self, item: dict[str, Any], place: Place) -> None:
        """Change the paths in a cut.

        Args:
            item: The cut as a dictionary, changed in place.
            place: Where the cut is, for messages.

        Raises:
            UserError: The audio is in a tar file that is missing.
        """
        for recording in recordings_of(item):
            for source in _list(recording, "sources"):
                if not isinstance(source, dict) or not isinstance(source.get("source"), str):
                    continue
                if source.get("type") == "file" and not source["source"].startswith("/"):
                    source["source"] = str(self._absolute(source["source"]))
                elif source.get("type") == "shar":
                    _require_tar(item, place)

    def _absolute(self, path: str) -> Path:
        candidates = (folder / path for folder in self._folders)
        return next((found for found in candidates if found.is_file()), self._folders[0] / path)


def recordings_of(item: Any) -> Iterator[dict[str, Any]]:
    """Yield the recordings of a cut, several of a mixed cut.

    Args:
        item: The cut as a dictionary, which need not be well-formed.

    Yields:
        The recordings as dictionaries.
    """
    if isinstance(item, dict):
        if isinstance(item.get("recording"), dict):
            yield item["recording"]
        for track in _list(item, "tracks"):
            yield from recordings_of(track.get("cut") if isinstance(track, dict) else None)


def channel_fault(item: dict[str, Any]) -> str:
    """Check that the recording of a cut has its channels, of a mixed cut those of its tracks.

    Args:
        item: The cut as a dictionary.

    Returns:
        Why it cannot be used, or "".
    """
    if "tracks" in item:
        return next((fault for track in item["tracks"] if (fault := channel_fault(track["cut"]))), "")
    recording, own = item.get("recording"), item.get("channel", 0)
    if not recording:
        return ""
    present = [channel for source in recording["sources"] for channel in source["channels"]]
    return "" if all(one in present for one in (own if isinstance(own, list) else [own])) else NO_CHANNEL


def _list(item: dict[str, Any], key: str) -> list[Any]:
    value = item.get(key)
    return value if isinstance(value, list) else []


def _require_tar(item: dict[str, Any], place: Place) -> None:
    from arkasr.data.shar import PLACE

    custom = item.get("custom")
    known = custom.get(PLACE) if isinstance(custom, dict) else None
    tar = Path(known[0]) if isinstance(known, list) and known and isinstance(known[0], str) else None
    if tar is None or not _exists(tar):
        where = f"its audio {tar.name} is not there" if tar else "its audio is in a tar file that is not named"
        raise UserError(f"{place}: {where}; copy the whole Shar folder, or write it again")


@cache
def _exists(tar: Path) -> bool:
    return tar.is_file()


def through_link(item: dict[str, Any], root: Path, link: Path) -> None:
    """Let the paths of a cut lead through the link to the corpus, so that a moved corpus needs only a new link.

    Args:
        item: A cut as a dictionary, with absolute paths, changed in place. Paths outside of `root` stay as they are.
        root: Folder of the corpus.
        link: Folder that replaces it.
    """
    from arkasr.data.shar import PLACE

    prefix = f"{root}/"

    def moved(path: str) -> str:
        return f"{link}/{path.removeprefix(prefix)}" if path.startswith(prefix) else path

    for recording in recordings_of(item):
        for source in recording["sources"]:
            if source["type"] in ("file", "shar"):
                source["source"] = moved(source["source"])
    place = (item.get("custom") or {}).get(PLACE)
    if place:
        item["custom"][PLACE] = [moved(place[0]), *place[1:]]

"""The audio of Lhotse's cuts: where relative paths lead, and whether the files are there and as described."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.layouts.audio import Header, read_header
from arkasr.corpora.layouts.entries import Entry
from arkasr.errors import UserError

if TYPE_CHECKING:
    from lhotse import Recording
    from lhotse.cut import Cut

    from arkasr.data.checks import Place

_THREADS, _WINDOW, _KNOWN = 8, 4096, 65_536  # entries checked at once; headers that are remembered


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
        for recording in _recordings(item):
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


def _recordings(item: Any) -> Iterator[dict[str, Any]]:
    if isinstance(item, dict):
        if isinstance(item.get("recording"), dict):
            yield item["recording"]
        for track in _list(item, "tracks"):
            yield from _recordings(track.get("cut") if isinstance(track, dict) else None)


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


def through_link(cut: Cut, root: Path, link: Path) -> Cut:
    """Let the paths of a cut lead through the link to the corpus, so that a moved corpus needs only a new link.

    Args:
        cut: A cut with absolute paths.
        root: Folder of the corpus.
        link: Folder that stands for it.

    Returns:
        The cut. Paths outside of the folder stay as they are.
    """
    from arkasr.data.reasons import custom_value
    from arkasr.data.shar import PLACE

    def moved(path: str) -> str:
        return str(link / Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path

    for recording in recordings_of(cut):
        for source in recording.sources:
            if source.type == "file" or (source.type == "shar" and isinstance(source.source, str)):
                source.source = moved(source.source)
    if place := custom_value(cut, PLACE):
        cut.custom[PLACE] = [moved(place[0]), *place[1:]]
    return cut


def recordings_of(cut: Cut) -> list[Recording]:
    """Return the recordings of a cut, several of a mixed cut.

    Args:
        cut: Any cut.
    """
    parts = [track.cut for track in cut.tracks] if hasattr(cut, "tracks") else [cut]
    return [part.recording for part in parts if getattr(part, "recording", None)]


class AudioCheck:
    """Compares the files of cuts with their headers. The headers of the last files are remembered."""

    def __init__(self) -> None:
        self._headers: OrderedDict[Path, Header] = OrderedDict()

    def checked(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Give entries whose audio is missing, damaged or unlike its description their reason.

        Args:
            entries: Entries with cuts. Audio that is not in a file of its own is not looked at.

        Yields:
            The same entries.
        """
        rest = iter(entries)
        with ThreadPoolExecutor(_THREADS) as pool:
            while window := list(islice(rest, _WINDOW)):
                paths = [path for entry in window if (path := _file(entry)) and path not in self._headers]
                new = list(dict.fromkeys(paths))
                self._headers.update(zip(new, pool.map(read_header, new), strict=True))
                for entry in window:
                    if path := _file(entry):
                        self._headers.move_to_end(path)
                        entry.reason = _fault(entry.cut.recording, self._headers[path])  # type: ignore[union-attr]
                    yield entry
                while len(self._headers) > _KNOWN:
                    self._headers.popitem(last=False)


def _file(entry: Entry) -> Path | None:
    """Return the file to look at. None for mixed cuts, tar files, addresses, and entries that are dropped anyway."""
    recording = getattr(entry.cut, "recording", None)
    if entry.reason or recording is None or len(recording.sources) != 1 or recording.sources[0].type != "file":
        return None
    return entry.audio


def _fault(recording: Recording, header: Header) -> str:
    from arkasr.data.reasons import UNLIKE

    if header.reason or recording.transforms:  # lengths after transformations are not those of the file
        return header.reason
    same = (recording.num_samples, recording.sampling_rate) == (header.frames, header.rate)
    return "" if same and set(recording.sources[0].channels) <= set(range(header.channels)) else UNLIKE

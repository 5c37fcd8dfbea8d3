"""The clips of manifest files: checked, selected by length and by `data.hours`, and counted."""

from __future__ import annotations

import hashlib
import math
import pickle
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from arkasr.config.schema import DataConfig
from arkasr.data import shar
from arkasr.data.blocks import Block
from arkasr.data.checks import ODD, Checked, Place, Rules, check, not_a_cut
from arkasr.data.epochs import Keep
from arkasr.data.lazy_cut import LazyCut, text_bytes
from arkasr.data.lines import entries
from arkasr.data.mixing import turn
from arkasr.data.reasons import counts, refusal
from arkasr.utils.console import log

FIRST_REPORT = (
    100_000  # cuts after which large manifests report what is left out. The next report is after twice as many
)

_logged: set[str] = set()  # lines that need not be logged again, because a command opens the same manifest repeatedly


@dataclass(frozen=True)
class Selection:
    """Which clips are used.

    Attributes:
        low: Minimum duration in seconds.
        high: Maximum duration in seconds.
        hours: Hours that `share` stands for, for messages. 0: no limit.
        share: Share of the clips, from 0 to 1, that is kept by a hash of their ids.
    """

    low: float = 0.0
    high: float = math.inf
    hours: float = 0.0
    share: float = 1.0

    @classmethod
    def of(cls, config: DataConfig) -> Selection:
        """Read the limits of length from a configuration.

        Args:
            config: The section `data`.

        Returns:
            A selection of all clips within them.
        """
        return cls(config.min_clip_seconds, config.max_clip_seconds)

    @property
    def limits(self) -> str:
        """The limits of length and their keys, for messages."""
        return f"between {self.low:g} and {self.high:g} s (data.min_clip_seconds, data.max_clip_seconds)"


class Tally:
    """Counts of what happened to the clips of a manifest.

    Args:
        path: The manifest, for messages.
        selection: For messages.

    Attributes:
        clips: Number of clips.
        left_out: Clips left out by length (`length`) and by `data.hours` (`hours`).
        refused: Clips that cannot be used, by kind of reason.
        notes: Clips that were changed, by what was done.
    """

    def __init__(self, path: str, selection: Selection):
        self.path, self.selection = path, selection
        self.clips, self.left_out = 0, Counter[str]()
        self.refused, self.notes = Counter[str](), Counter[str]()
        self.example = ""

    def refuse(self, name: str, place: Place, kind: str) -> None:
        """Count a clip that cannot be used.

        Args:
            name: Id of the clip.
            place: File and line of the cut.
            kind: Kind of the reason.
        """
        self.refused[kind] += 1
        self.example = self.example or f"{name}, {place}: {kind}"

    @property
    def kept(self) -> int:
        """Number of clips that are not left out, also those that cannot be used."""
        return self.clips - self.left_out.total()

    def reasons(self) -> str:
        """Return the counts of clips that cannot be used, with the first of them."""
        return f"{counts(self.refused)}; the first is {self.example}"

    def lines(self) -> Iterator[str]:
        """Yield what is worth a log line."""
        of = f"of {self.clips} cuts"
        if number := self.left_out["length"]:
            yield f"{number} {of} left out, because they do not last {self.selection.limits}"
        if number := self.left_out["hours"]:
            yield f"{number} {of} left out by data.hours={self.selection.hours:g}"
        if number := self.refused.total():
            yield f"{number} {of} cannot be used and count as failed: {self.reasons()}"
        for note, number in self.notes.items():
            yield f"{number} {of} {note}"

    def report(self, so_far: bool = False) -> None:
        """Log the counts, each line once in this process.

        Args:
            so_far: Whether more cuts follow.
        """
        for line in self.lines():
            text = f"{self.path}: {'so far, ' if so_far else ''}{line}"
            if text not in _logged:
                _logged.add(text)
                log(text)


class ClipReader:
    """Reads the clips of manifest files, again and again. Each line is counted once.

    Args:
        path: The manifest, for messages.
        parts: Its files, or blocks of them.
        rules: See `arkasr.data.checks.check`.
        selection: The clips to use.

    Attributes:
        tally: Counts of the lines read so far.
    """

    def __init__(self, path: str, parts: Sequence[tuple[Path, Block]], rules: Rules, selection: Selection):
        self.path, self.parts, self.rules, self.selection = path, parts, rules, selection
        self.tally = Tally(path, selection)
        self._num_counted = array("q", [0]) * len(parts)  # number of the first line of each part not counted yet
        self._unfinished = set(range(len(parts)))
        self._next_report = FIRST_REPORT

    def read(self, index: int = 0, line: int = 0) -> Iterator[tuple[int, Cut]]:
        """Yield the selected clips of one part, also those that cannot be used (see `arkasr.data.reasons.refusal`).

        Args:
            index: Number of the part, from 0.
            line: First line to read, from 0, counted in the file.

        Yields:
            Line number and clip. Several clips of one line have the same number.

        Raises:
            UserError: The file cannot be read, or one of its lines is not a cut.
        """
        for number, found in self._checked(index, line):
            for clip in found:
                yield number, _cut(clip, Place(self.parts[index][0], number))

    def read_lazily(self, index: int = 0, line: int = 0, keep: Keep | None = None) -> Iterator[tuple[int, LazyCut]]:
        """Yield the same clips without deserializing most of them.

        Args:
            index: See `read`.
            line: See `read`.
            keep: Decides by the `turn` of its id whether a clip is read. None: all are.

        Yields:
            Line number and clip. Each clip holds about 600 bytes.

        Raises:
            UserError: See `read`. Odd values of an entry show when its cut is made.
        """
        for number, found in self._checked(index, line):
            for clip in found if keep is None else [clip for clip in found if keep(turn(_id(clip)))]:
                make = partial(_unpacked, pickle.dumps(clip), self.parts[index][0], number)
                yield number, LazyCut(_duration(clip), text_bytes(_texts(clip)), make)

    def seconds(self) -> float:
        """Return the total duration of all selected clips, in seconds."""
        return sum(
            _duration(c) for index in range(len(self.parts)) for _, found in self._checked(index, 0) for c in found
        )

    def _checked(self, index: int, line: int) -> Iterator[tuple[int, list[Cut | dict[str, Any]]]]:
        file, block = self.parts[index]
        for number, item in entries(file, line, block):
            shar.locate(item, file, number)
            place = Place(file, number)
            found = check(item, self.rules, place)
            left_out = [self._why_left_out(clip) for clip in found.clips]
            if number >= self._num_counted[index]:
                self._num_counted[index] = number + 1
                self._count(found, left_out, place)
            yield number, [clip for clip, why in zip(found.clips, left_out, strict=True) if not why]
        if index in self._unfinished:
            self._unfinished.remove(index)
            if not self._unfinished:
                self.tally.report()

    def _why_left_out(self, clip: Cut | dict[str, Any]) -> str:
        if not self.selection.low <= _duration(clip) <= self.selection.high:
            return "length"
        return "" if self.selection.share >= 1 or in_share(_id(clip), self.selection.share) else "hours"

    def _count(self, found: Checked, left_out: list[str], place: Place) -> None:
        tally = self.tally
        tally.clips += len(found.clips)
        tally.notes.update(found.notes)
        for clip, why in zip(found.clips, left_out, strict=True):
            if why:
                tally.left_out[why] += 1
            elif isinstance(clip, Cut) and (failure := refusal(clip)):
                tally.refuse(failure.id, place, failure.kind)
        if tally.clips >= self._next_report:
            self._next_report *= 2
            tally.report(so_far=True)


def _cut(clip: Cut | dict[str, Any], place: Place) -> Cut:
    try:
        return deserialize_item(clip) if isinstance(clip, dict) else clip
    except ODD as error:
        raise not_a_cut(place, error) from error


def _unpacked(data: bytes, file: Path, number: int) -> Cut:
    return _cut(pickle.loads(data), Place(file, number))


def _texts(clip: Cut | dict[str, Any]) -> list[str | None]:
    if isinstance(clip, dict):
        return [one.get("text") for one in clip["supervisions"]]
    return [one.text for one in clip.supervisions]


def _duration(clip: Cut | dict[str, Any]) -> float:
    return clip["duration"] if isinstance(clip, dict) else clip.duration


def _id(clip: Cut | dict[str, Any]) -> str:
    return clip["id"] if isinstance(clip, dict) else clip.id


def in_share(name: str, share: float) -> bool:
    """Decide whether a clip belongs to a share of all clips.

    Args:
        name: Id of the clip.
        share: The share, from 0 to 1. A larger share contains every smaller one.

    Returns:
        True if it does. This depends on the arguments only.
    """
    return share >= 1 or int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < share * 2**64

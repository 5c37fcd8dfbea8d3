"""The utterances of one set of the data directory, sorted on disk, so that memory does not grow with the corpus."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from arkasr.corpora.layouts.entries import NO_TRANSCRIPT, REPEATED, Entry
from arkasr.data.blocks import order_hash, write_lines
from arkasr.utils.disk_sort import DiskSort


class Row(NamedTuple):
    """One usable utterance.

    Attributes:
        id: Its id.
        part: Part of the corpus.
        seconds: Length of the cut.
        speaker: Name of the speaker, or None.
        language: English name of the language.
        has_text: Whether a transcript is known.
        path: Audio file of the cut. Empty if its audio is part of another file.
        begin: Start in the audio file, in seconds.
        recording_seconds: Length of the audio file.
        line: The cut as a line of JSON.
    """

    id: str
    part: str
    seconds: float
    speaker: str | None
    language: str
    has_text: bool
    path: str
    begin: float
    recording_seconds: float
    line: str


class Scanned(NamedTuple):
    """One utterance of the corpus in the order of the scan.

    Attributes:
        number: Number in the scan.
        entry: The entry, without its cut.
        row: The row. None if the entry has a reason.
        listed: Whether the corpus itself lists it without fault. Only such utterances repeat an id.
    """

    number: int
    entry: Entry
    row: Row | None
    listed: bool


@dataclass
class PartCounts:
    """Counts of one part of a set, before utterances are dropped by length.

    Attributes:
        cuts: Number of usable utterances.
        listed: Number of utterances without repeated ones and audio without transcript.
        entries: Number of all utterances.
        speakers: Names of the speakers.
        first_bad: The first utterance of the corpus that cannot be used. None if there is none.
    """

    cuts: int = 0
    listed: int = 0
    entries: int = 0
    speakers: set[str] = field(default_factory=set)
    first_bad: Entry | None = None


@dataclass
class Totals:
    """Counts of one set.

    Attributes:
        cuts: Number of utterances.
        seconds: Their length.
        untranscribed: Number of utterances without transcript.
        by_part: Number of utterances without transcript, by part.
        speakers: Names of the speakers.
        languages: Their languages.
        dropped: Number of dropped utterances by reason, in the order of the corpus.
        parts: Counts by part.
        ids: SHA-256 digest over the ids in order. Equal ones show that two sets are the same.
    """

    cuts: int = 0
    seconds: float = 0.0
    untranscribed: int = 0
    by_part: Counter[str] = field(default_factory=Counter)
    speakers: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)
    dropped: dict[str, int] = field(default_factory=dict)
    parts: dict[str, PartCounts] = field(default_factory=dict)
    ids: Any = field(default_factory=hashlib.sha256)

    def add(self, row: Row) -> None:
        """Count an utterance.

        Args:
            row: The utterance.
        """
        self.cuts += 1
        self.ids.update(f"{row.id}\n".encode("utf-8", "surrogatepass"))
        self.seconds += row.seconds
        self.languages.add(row.language)
        if row.speaker is not None:
            self.speakers.add(row.speaker)
        if not row.has_text:
            self.untranscribed += 1
            self.by_part[row.part] += 1


class SetRows:
    """The utterances of one set.

    1. Utterances are sorted by id, or by a hash of the id, and then in the order of the scan.
    2. Of utterances with the same id, the first one that the corpus lists without fault counts. Others are dropped.
    3. Usable utterances of another length than `low` to `high` seconds are dropped.

    Args:
        folder: Where temporary files are.
        parts: The parts of the set.
        by_hash: Whether the order is that of a hash of the ids, so that neighbours come from the whole set.
        low: Minimum length in seconds.
        high: Maximum length in seconds.

    Attributes:
        failed: Nothing, see `arkasr.corpora.data_dir.ManifestSet`.
        tar_bytes: Nothing, because the audio is in files.
    """

    def __init__(self, folder: Path, parts: list[str], by_hash: bool = False, low: float = 0.0, high: float = 1e9):
        self.folder, self.parts, self.by_hash, self.low, self.high = folder, parts, by_hash, low, high
        self._sorted: DiskSort[Scanned] = DiskSort(folder)
        self._dropped: DiskSort[Entry] = DiskSort(folder)
        self.failed: Sequence[dict[str, Any]] = ()
        self.tar_bytes: Sequence[int] = ()

    def add(self, scanned: Scanned) -> None:
        """Add one utterance of one of the parts.

        Args:
            scanned: The utterance. Numbers must rise.
        """
        name = scanned.entry.id
        self._sorted.add(order_hash(name) if self.by_hash else name, scanned)

    def __iter__(self) -> Iterator[Row]:
        """Yield the usable utterances in order. Can be called again."""
        return (each.row for each in self._resolved() if each.row is not None and not each.entry.reason)

    @cached_property
    def totals(self) -> Totals:
        """The counts, which need one pass over all utterances."""
        totals = Totals(parts={part: PartCounts() for part in self.parts})
        first_bad: dict[str, int] = {}
        for number, entry, row, _ in self._resolved():
            counts = totals.parts[entry.part]
            counts.entries += 1
            counts.listed += entry.reason not in (NO_TRANSCRIPT, REPEATED)
            if row is not None:
                counts.cuts += 1
                counts.speakers |= {row.speaker} - {None}  # type: ignore[arg-type]
                if not entry.reason:
                    totals.add(row)
            elif number < first_bad.get(entry.part, number + 1):
                first_bad[entry.part], counts.first_bad = number, entry
            if entry.reason:
                late = row is not None  # dropped by length, after all others of the part
                self._dropped.add((self.parts.index(entry.part), late, number), entry)
        for entry in self._dropped:
            totals.dropped[entry.reason] = totals.dropped.get(entry.reason, 0) + 1
        return totals

    def lines(self) -> Iterator[str]:
        """Yield the cuts as lines of JSON, in order."""
        return (row.line for row in self)

    def write(self, path: Path) -> None:
        """Write the manifest.

        Args:
            path: The file.
        """
        write_lines(path, self.lines())

    def dropped(self) -> Iterator[Entry]:
        """Yield the dropped utterances with their reasons, in the order of the corpus."""
        assert self.totals
        return iter(self._dropped)

    def _resolved(self) -> Iterator[Scanned]:
        """Yield all utterances with their final reasons. Those that are dropped by length keep their row."""
        for _, group in groupby(self._sorted, key=lambda scanned: scanned.entry.id):
            taken = False
            for each in group:
                entry, row = each.entry, each.row
                if each.listed and taken:
                    entry, row = replace(entry, reason=REPEATED), None
                elif row is not None and not self.low <= row.seconds <= self.high:
                    limit, short = (self.low, "shorter") if row.seconds < self.low else (self.high, "longer")
                    entry = replace(entry, reason=f"{short} than {limit:g} s")
                taken = taken or each.listed
                yield Scanned(each.number, entry, row, each.listed)

    def close(self) -> None:
        """Delete the temporary files."""
        self._sorted.close()
        self._dropped.close()


class SubsetRows:
    """Some of the utterances of a set.

    Args:
        whole: The set.
        choice: Decides whether an utterance belongs to the subset.

    Attributes:
        totals: The counts. They must be filled before they are read, see `count_subsets`.
        failed: See `SetRows`.
        tar_bytes: See `SetRows`.
    """

    def __init__(self, whole: SetRows, choice: Callable[[Row], bool]):
        self.whole, self.choice = whole, choice
        self.totals = Totals()
        self.failed: Sequence[dict[str, Any]] = ()
        self.tar_bytes: Sequence[int] = ()

    def ids(self) -> Iterator[str]:
        """Yield the ids in the order of the set."""
        return (row.id for row in self.whole if self.choice(row))

    def write(self, path: Path) -> None:
        """Write the manifest, in the order of the set.

        Args:
            path: The file.
        """
        write_lines(path, (row.line for row in self.whole if self.choice(row)))

    def dropped(self) -> Iterator[Entry]:
        """Yield nothing, because the set lists what was dropped."""
        return iter(())


def count_subsets(whole: SetRows, subsets: Iterable[SubsetRows]) -> None:
    """Count subsets of one set in one pass.

    Args:
        whole: The set.
        subsets: Its subsets.
    """
    subsets = list(subsets)
    for row in whole:
        for each in subsets:
            if each.choice(row):
                each.totals.add(row)

"""Refuses a corpus whose dev or test audio is also in the training set.

1. Recordings are compared if they have equal lengths in samples, and at least one is in the training set and one in a
   dev or test set. No other recordings can be equal.
2. In the layouts of published corpora, and with more than 200 h of such recordings in the training set, only cuts with
   equal ids are compared, because reading all of the audio is too slow. For your own audio, this is logged.
3. The samples of each recording are read as 16 bits, and their SHA-256 digests are compared. Copies under other names
   and in other lossless formats are therefore found.
4. Two cuts of equal recordings are the same audio if their times overlap.
5. Cuts with equal ids and lengths whose audio is in shards, and not in audio files, count as the same audio.

`arkasr.corpora.prepared_leaks` compares sets of different data directories.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from arkasr.corpora.corpus import PUBLISHED, Corpus
from arkasr.corpora.set_rows import Row, SetRows
from arkasr.errors import UserError
from arkasr.utils.console import log, track

MOST_HOURS = 200.0  # of recordings that are read. This takes some minutes
_BLOCK = 1 << 20  # samples that are read at once


class Leak(NamedTuple):
    """A cut of a dev or test set, and the training cut with the same audio.

    Attributes:
        name: Name of the dev or test set.
        row: Its cut.
        train: The training cut.
    """

    name: str
    row: Row
    train: Row


def refuse_leaks(corpus: Corpus, sets: Mapping[str, SetRows], num_jobs: int) -> None:
    """Compare the dev and test sets with the training set, see the module docstring.

    Args:
        corpus: The corpus.yaml. Its layout decides which audio is compared.
        sets: The sets by name. Those that are not `train` are held in memory, without their cuts.
        num_jobs: Number of threads that read audio.

    Raises:
        UserError: Audio of a dev or test set is also in the training set.
    """
    scored = [(name, row._replace(line="")) for name, each in sets.items() if name != "train" for row in each]
    leaks, uncertain = find_leaks(sets["train"], scored, corpus.layout not in PUBLISHED, num_jobs)
    refuse(str(corpus.path), leaks + uncertain, "the training set", "the training parts")


def find_leaks(
    training: Iterable[Row], scored: Sequence[tuple[str, Row]], by_length: bool, num_jobs: int
) -> tuple[list[Leak], list[Leak]]:
    """Compare cuts with training cuts.

    Args:
        training: The training cuts. They are not read if there is nothing to compare.
        scored: Names of dev and test sets, with their cuts.
        by_length: Compare all recordings of equal lengths. If False, compare only cuts with equal ids.
        num_jobs: Number of threads that read audio.

    Returns:
        The cuts with the same audio, and those with equal ids and lengths whose audio is in shards and not compared.
    """
    if not scored:
        return [], []
    train = _Candidates(scored, by_length)
    for row in training:
        train.add(row)
    equal_ids = [Leak(name, row, train.by_id[row.id]) for name, row in scored if row.id in train.by_id]
    rows = train.rows
    if rows is None:
        rows, scored = [leak.train for leak in equal_ids], [(leak.name, leak.row) for leak in equal_ids]
        if by_length:
            log(
                f"warning: more than {MOST_HOURS:g} h of recordings of the training set are as long as a recording of "
                "another set; only the audio of cuts with equal ids is compared"
            )
    lengths = {_length(row) for row in rows}
    paths = {row.path for row in [*rows, *(row for _, row in scored if _length(row) in lengths)]} - {""}
    leaks = _equal_audio(rows, scored, _digests(sorted(paths), num_jobs))
    return leaks, [leak for leak in equal_ids if _same_in_shards(leak)]


def _length(row: Row) -> float:
    return round(row.recording_seconds, 4)


class _Candidates:
    """The training cuts that may have audio of dev and test sets.

    Attributes:
        by_id: Those with the id of a cut of these sets.
        rows: Those whose recording has the length of one of these sets. None: too many, or not wanted.
    """

    def __init__(self, scored: Sequence[tuple[str, Row]], by_length: bool):
        self._ids = {row.id for _, row in scored}
        self._lengths = {_length(row) for _, row in scored if row.path}
        self._paths: set[str] = set()
        self._hours = 0.0
        self.by_id: dict[str, Row] = {}
        self.rows: list[Row] | None = [] if by_length else None

    def add(self, row: Row) -> None:
        row = row._replace(line="")
        if row.id in self._ids:
            self.by_id[row.id] = row
        if self.rows is None or not row.path or _length(row) not in self._lengths:
            return
        self.rows.append(row)
        if row.path not in self._paths:
            self._paths.add(row.path)
            self._hours += row.recording_seconds / 3600
        if self._hours > MOST_HOURS:
            self.rows, self._paths = None, set()


def _same_in_shards(leak: Leak) -> bool:
    return not (leak.row.path and leak.train.path) and leak.row.seconds == leak.train.seconds


def refuse(where: str, leaks: Sequence[Leak], place: str, source: str) -> None:
    """Raise UserError if there are leaks.

    Args:
        where: The file or option that names the sets.
        leaks: What was found.
        place: What the training cuts are, for the message.
        source: From what they can be removed.

    Raises:
        UserError: There is a leak.
    """
    if leaks:
        first, names = leaks[0], ", ".join(dict.fromkeys(leak.name for leak in leaks))
        found, train = (f"{row.id} ({row.path or 'in a shard'})" for row in (first.row, first.train))
        raise UserError(
            f"{where}: {len(leaks)} cuts of {names} also stand in {place}, the first is {found}, with the audio of "
            f"{train}; remove them from {source} or from these sets"
        )


def _digests(paths: Sequence[str], num_jobs: int) -> dict[str, str]:
    """Return the digests by path, without files that cannot be read, which their reader counts as failed."""
    if not paths:
        return {}
    with ThreadPoolExecutor(max(1, num_jobs)) as pool:
        found = list(track(pool.map(_digest, paths), "Comparing train with dev and test", len(paths), "files"))
    return {path: one for path, one in zip(paths, found, strict=True) if one}


def _digest(path: str) -> str:
    import soundfile

    try:
        return digest(path)
    except (OSError, soundfile.SoundFileError):
        return ""


def digest(path: str) -> str:
    """Return a digest of the samples of an audio file, which does not depend on the format of the file.

    Args:
        path: The file.

    Returns:
        SHA-256 digest of sampling rate, number of channels, and samples as 16-bit integers.
    """
    import soundfile

    total = hashlib.sha256()
    with soundfile.SoundFile(path) as audio:
        total.update(f"{audio.samplerate} {audio.channels}".encode())
        for block in audio.blocks(_BLOCK, dtype="int16"):
            total.update(block.tobytes())
    return total.hexdigest()


def _equal_audio(train: Sequence[Row], scored: Sequence[tuple[str, Row]], digests: Mapping[str, str]) -> list[Leak]:
    """Return the cuts of dev and test sets whose audio overlaps with a training cut."""
    by_digest = defaultdict(list)
    for row in train:
        if found := digests.get(row.path):
            by_digest[found].append(row)
    leaks = []
    for name, row in scored:
        others = by_digest.get(digests.get(row.path, ""), [])
        same = next((other for other in others if min(_end(row), _end(other)) > max(row.begin, other.begin)), None)
        leaks += [Leak(name, row, same)] if same is not None else []
    return leaks


def _end(row: Row) -> float:
    return row.begin + row.seconds

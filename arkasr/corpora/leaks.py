"""Refuses a corpus whose dev or test audio also stands in the training set.

1. Recordings are compared if they have equal lengths in samples, and at least one is in the training set and one in a
   dev or test set. No other recordings can be equal.
2. In the layouts of published corpora, and with more than 200 h of such recordings, only cuts with equal ids are
   compared, because reading all of the audio is too slow. For your own audio, this is logged.
3. The samples of each recording are read as 16 bits, and their SHA-256 digests are compared. Copies under other names
   and in other lossless formats are therefore found.
4. Two cuts of equal recordings are the same audio if their times overlap.
5. Cuts with equal ids and lengths whose audio is in shards, and not in files of its own, count as the same audio.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from arkasr.corpora.corpus import PUBLISHED, Corpus
from arkasr.corpora.data_dir import PreparedSet
from arkasr.errors import UserError
from arkasr.utils.console import log, track

if TYPE_CHECKING:
    from lhotse.cut import Cut

MOST_HOURS = 200.0  # of recordings that are read. This takes some minutes
_TRAINING = ("train", "base", "td", "opd")
_BLOCK = 1 << 20  # samples that are read at once


class _Leak(NamedTuple):
    """A cut of a dev or test set, and the training cut with the same audio."""

    name: str
    cut: Cut
    train: Cut


def refuse_leaks(corpus: Corpus, sets: Mapping[str, PreparedSet], num_jobs: int) -> None:
    """Compare the dev and test sets with the training set, see the module docstring.

    Args:
        corpus: The corpus.yaml. Its layout decides which audio is compared.
        sets: All sets by name.
        num_jobs: Number of threads that read audio.

    Raises:
        UserError: Audio of a dev or test set also stands in the training set.
    """
    train = sets["train"].cuts
    by_id = {cut.id: cut for cut in train}
    scored = [(name, cut) for name, each in sets.items() if name not in _TRAINING for cut in each.cuts]
    equal_ids = [_Leak(name, cut, by_id[cut.id]) for name, cut in scored if cut.id in by_id]
    paths, hours = _candidates(train, [cut for _, cut in scored])
    if corpus.layout in PUBLISHED or hours > MOST_HOURS:
        train, scored = [leak.train for leak in equal_ids], [(leak.name, leak.cut) for leak in equal_ids]
        paths, _ = _candidates(train, [cut for _, cut in scored])
        if corpus.layout not in PUBLISHED:
            log(
                f"warning: {hours:.0f} h of recordings are as long as a recording of another set, which is more than "
                f"{MOST_HOURS:g} h; only the audio of cuts with equal ids is compared"
            )
    leaks = _equal_audio(train, scored, _digests(paths, num_jobs))
    _refuse(corpus, leaks + [leak for leak in equal_ids if _same_in_shards(leak)])


def _same_in_shards(leak: _Leak) -> bool:
    return not (_path(leak.cut) and _path(leak.train)) and leak.cut.duration == leak.train.duration


def _refuse(corpus: Corpus, leaks: list[_Leak]) -> None:
    if leaks:
        first, names = leaks[0], ", ".join(dict.fromkeys(leak.name for leak in leaks))
        found, train = (f"{cut.id} ({_path(cut) or 'in a shard'})" for cut in (first.cut, first.train))
        raise UserError(
            f"{corpus.path}: {len(leaks)} cuts of {names} also stand in the training set, the first is {found}, with "
            f"the audio of {train}; remove them from the training parts or from these sets"
        )


def _path(cut: Cut) -> str:
    """Return the audio file of a cut. Empty if its audio is not a file of its own."""
    recording = getattr(cut, "recording", None)
    source = recording.sources[0] if recording is not None and len(recording.sources) == 1 else None
    return str(source.source) if source is not None and source.type == "file" else ""


def _candidates(train: Sequence[Cut], scored: Sequence[Cut]) -> tuple[list[str], float]:
    """Return the audio files that have the length of a file on the other side, and their hours."""
    in_train, in_scored = _paths_by_seconds(train), _paths_by_seconds(scored)
    equal = {seconds: in_train[seconds] | in_scored[seconds] for seconds in in_train.keys() & in_scored.keys()}
    hours = sum(seconds * len(paths) for seconds, paths in equal.items()) / 3600
    return sorted({path for paths in equal.values() for path in paths}), hours


def _paths_by_seconds(cuts: Sequence[Cut]) -> dict[float, set[str]]:
    """Return the audio files by the length of the recording."""
    found = defaultdict(set)
    for cut in cuts:
        if path := _path(cut):
            found[round(cut.recording.duration, 4)].add(path)
    return found


def _digests(paths: Sequence[str], num_jobs: int) -> dict[str, str]:
    with ThreadPoolExecutor(max(1, num_jobs)) as pool:
        found = list(track(pool.map(digest, paths), "Comparing train with dev and test", len(paths), "files"))
    return dict(zip(paths, found))


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


def _equal_audio(train: Sequence[Cut], scored: Sequence[tuple[str, Cut]], digests: Mapping[str, str]) -> list[_Leak]:
    """Return the cuts of dev and test sets whose audio overlaps with a training cut."""
    by_digest = defaultdict(list)
    for cut in train:
        if found := digests.get(_path(cut)):
            by_digest[found].append(cut)
    leaks = []
    for name, cut in scored:
        others = by_digest.get(digests.get(_path(cut), ""), [])
        same = next((other for other in others if min(cut.end, other.end) > max(cut.start, other.start)), None)
        leaks += [_Leak(name, cut, same)] if same is not None else []
    return leaks

"""What each training cut is used for: Base, teacher data (TD), OPD, and a teacher's own training."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from arkasr.corpora.scale import Scale, Use, is_share
from arkasr.corpora.set_rows import Row, SetRows
from arkasr.errors import UserError

Choice = Callable[[Row], bool]
USES = ("base", "td", "opd")
WITH_TEXT = ("base", "teacher")  # uses that leave out cuts without transcript
_DIGEST, _CHUNK = 32, 2**20  # bytes of a hash; hashes that are read at once


def choose_uses(train: SetRows, scale: Scale, folder: Path) -> dict[str, Choice]:
    """Choose the cuts of `base`, `td`, `opd` and `teacher` by the key `use` of corpus.yaml.

    Args:
        train: The training cuts.
        scale: Holds `use` and `split_seed`.
        folder: Where temporary files are.

    Returns:
        For each use, a function that decides whether a cut belongs to it. Cuts of `base` and `teacher` have a
        transcript. `teacher` is missing if `use.teacher` is `none`.

    Raises:
        UserError: There are too few transcribed cuts for two shares.
    """
    shares = _shares(train, scale.use, scale.split_seed, folder)
    chosen: dict[str, Choice] = {}
    for key in uses_of(scale.use):
        chosen[key] = shares.get(key) or _choice(key, getattr(scale.use, key), chosen)
    return chosen


def uses_of(use: Use) -> tuple[str, ...]:
    """Return the sets that the section `use` makes of the training cuts.

    Args:
        use: The section.

    Returns:
        `base`, `td`, `opd`, and `teacher` if it has cuts.
    """
    return USES if use.teacher == "none" else (*USES, "teacher")


def _choice(key: str, value: Any, chosen: dict[str, Choice]) -> Choice:
    if isinstance(value, list):
        return lambda row: row.part in value and (row.has_text or key not in WITH_TEXT)
    words: dict[str, Choice] = {
        "all": lambda row: True,
        "none": lambda row: False,
        "labelled": lambda row: row.has_text,
        "unlabelled": lambda row: not row.has_text,
        "base+td": lambda row: chosen["base"](row) or chosen["td"](row),
    }
    return words[value] if value in words else chosen[value]


def _shares(train: SetRows, use: Use, seed: int, folder: Path) -> dict[str, Choice]:
    """Draw the shares of the transcribed cuts.

    1. Sort the cuts by a seeded hash of their ids.
    2. Take `use.base` of them from the start for `base`, and `use.td` from the end for `td`. Each gets at least
       one cut. One share can therefore grow without changing the other. `opd` is taken from the start too.
    """
    shares = {key: value for key in USES if is_share(value := getattr(use, key))}
    if not shares:
        return {}
    total = train.totals.cuts - train.totals.untranscribed
    both = "base" in shares and "td" in shares
    if both and total == 1:
        raise UserError("the corpus has 1 training utterance; base and td need at least 2: use a larger corpus")
    if not total:
        return dict.fromkeys(shares, lambda row: False)
    counts = {key: max(1, round(share * total)) for key, share in shares.items()}
    if both:
        counts["base"] = min(counts["base"], total - 1)
        counts["td"] = min(counts["td"], total - counts["base"])
    with tempfile.TemporaryFile(dir=folder) as file:
        for row in train:
            if row.has_text:
                file.write(_rank(seed, row.id))
        last = {key: nth(file, total - count if key == "td" else count - 1) for key, count in counts.items()}
    return {key: _share(key, seed, limit) for key, limit in last.items()}


def _share(key: str, seed: int, limit: bytes) -> Choice:
    if key == "td":
        return lambda row: row.has_text and _rank(seed, row.id) >= limit
    return lambda row: row.has_text and _rank(seed, row.id) <= limit


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()


def nth(file: IO[bytes], number: int) -> bytes:
    """Return one of many hashes by its rank, without sorting all of them.

    1. Count the hashes by their first two bytes.
    2. Sort the hashes with the first two bytes of the wanted one.

    Args:
        file: Hashes of 32 bytes each.
        number: The rank from 0, by ascending order.

    Returns:
        The hash.
    """
    counts = np.zeros(2**16, np.int64)
    for chunk in _chunks(file):
        counts += np.bincount(_prefix(chunk), minlength=2**16)
    before = np.cumsum(counts) - counts
    prefix = int(np.searchsorted(before, number, "right")) - 1
    found = [bytes(each) for chunk in _chunks(file) for each in chunk[_prefix(chunk) == prefix]]
    return sorted(found)[number - int(before[prefix])]


def _chunks(file: IO[bytes]) -> Iterator[np.ndarray]:
    file.seek(0)
    while data := file.read(_CHUNK * _DIGEST):
        yield np.frombuffer(data, np.uint8).reshape(-1, _DIGEST)


def _prefix(chunk: np.ndarray) -> np.ndarray:
    return chunk[:, 0].astype(np.int64) << 8 | chunk[:, 1]

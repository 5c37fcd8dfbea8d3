"""Which utterances of a test set are shown: those that changed most from Base, and those with most errors left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from arkasr.reporting.page.decoded import DecodedSet
from arkasr.reporting.page.looks import Look

MOST_CHANGED, MOST_WRONG = 5, 3  # utterances per group


class Group(NamedTuple):
    """Utterances of one kind: a title, and their indices, the most notable ones first."""

    title: str
    chosen: list[int]


def groups(decoded: DecodedSet, base: str | None, compared: Sequence[str], looks: Mapping[str, Look]) -> list[Group]:
    """Choose utterances.

    Args:
        decoded: The transcripts of one test set.
        base: Run to compare with, None if there is none.
        compared: The other runs.
        looks: Look by run.

    Returns:
        Per compared run, the most improved and the most worsened utterances, and those with most errors left. Without
        a run to compare with, only the last ones.
    """
    found = []
    for run in compared:
        errors, title = decoded.tallies[run].errors, looks[run].title
        if base is not None:
            change = errors - decoded.tallies[base].errors
            usable = decoded.decoded_by([base, run])
            for word, sign in (("improved", 1), ("worsened", -1)):
                changed = usable & (sign * change < 0)
                heading = f"Most {word} by {title} ({changed.sum()} of {len(errors)} utterances {word})"
                found.append(Group(heading, _first(changed, MOST_CHANGED, sign * change, sign * errors)))
        wrong = decoded.decoded_by([run]) & (errors > 0)
        found.append(Group(f"Most errors left with {title}", _first(wrong, MOST_WRONG, -errors)))
    return found


def _first(allowed: np.ndarray, most: int, *keys: np.ndarray) -> list[int]:
    """Return the indices with the smallest keys. allowed: boolean array [N]. keys: integer arrays [N]."""
    return sorted(np.flatnonzero(allowed).tolist(), key=lambda index: [int(key[index]) for key in keys])[:most]

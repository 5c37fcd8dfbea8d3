"""The training cuts that are long enough, and their disjoint shares for Base and for teacher data (TD)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.scale import Scale
from arkasr.errors import UserError

if TYPE_CHECKING:
    from lhotse.cut import Cut


def drop_by_length(cuts: list[Cut], scale: Scale, part: str) -> tuple[list[Cut], list[Entry]]:
    """Drop training cuts outside of `scale.min_seconds` to `scale.max_seconds`.

    Args:
        cuts: Cuts of one part.
        scale: Holds the two limits in seconds, both inclusive.
        part: Name of the part, for the entries.

    Returns:
        The kept cuts, and one entry with its reason for every dropped cut.
    """
    kept, dropped = [], []
    for cut in cuts:
        if scale.min_seconds <= cut.duration <= scale.max_seconds:
            kept.append(cut)
            continue
        short = cut.duration < scale.min_seconds
        reason = f"shorter than {scale.min_seconds:g} s" if short else f"longer than {scale.max_seconds:g} s"
        dropped.append(Entry(part, cut.id, Path(cut.recording.sources[0].source), reason=reason))
    return kept, dropped


def split_base_td(cuts: list[Cut], scale: Scale) -> tuple[list[Cut], list[Cut]]:
    """Draw the disjoint shares `base` and `td` of the training cuts.

    1. Sort the cuts by a seeded hash of their ids.
    2. Take `use.base` of them from the start for `base`, and `use.td` from the end for `td`. Each gets at least
       one cut. One share can therefore grow without changing the other.

    Args:
        cuts: All training cuts.
        scale: Holds the shares `use.base` and `use.td`, and `split_seed`.

    Returns:
        The cuts of `base` and of `td`, each sorted by id.

    Raises:
        UserError: If there are fewer than two cuts.
    """
    if len(cuts) < 2:
        raise UserError(
            f"the corpus has {len(cuts)} training utterance; base and td need at least 2: use a larger corpus"
        )

    def order(cut: Cut) -> bytes:
        return hashlib.sha256(f"{scale.split_seed}/{cut.id}".encode()).digest()

    ranked = sorted(cuts, key=order)
    num_base = min(max(1, round(scale.use.base * len(cuts))), len(cuts) - 1)
    num_td = min(max(1, round(scale.use.td * len(cuts))), len(cuts) - num_base)
    by_id = lambda cut: cut.id  # noqa: E731
    return sorted(ranked[:num_base], key=by_id), sorted(ranked[len(cuts) - num_td :], key=by_id)

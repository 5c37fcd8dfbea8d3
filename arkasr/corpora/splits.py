"""The training cuts that are long enough, and what each of them is used for: Base, teacher data (TD) and OPD."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.scale import Scale, Use, is_share
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


def has_text(cut: Cut) -> bool:
    """Return whether a cut of stage 1 has a transcript.

    Args:
        cut: A cut with one supervision.

    Returns:
        False if no transcript is known.
    """
    return cut.supervisions[0].text is not None


def split_by_use(cuts: list[Cut], part_of: Mapping[str, str], scale: Scale) -> dict[str, list[Cut]]:
    """Choose the cuts of `base`, `td` and `opd` by the key `use` of corpus.yaml.

    Args:
        cuts: All training cuts, sorted by id.
        part_of: Part of the corpus by id of the cut.
        scale: Holds `use` and `split_seed`.

    Returns:
        The cuts by set, each sorted by id. `base` has only cuts with a transcript.

    Raises:
        UserError: There are too few transcribed cuts for two shares.
    """
    labelled = [cut for cut in cuts if has_text(cut)]
    named = {
        "all": cuts,
        "labelled": cuts if len(labelled) == len(cuts) else labelled,
        "unlabelled": [cut for cut in cuts if not has_text(cut)],
        "none": [],
    }
    named |= _shares(labelled, scale.use, scale.split_seed)

    def choose(key: str, value: Any) -> list[Cut]:
        if is_share(value):
            return named[f"share {key}"]
        if isinstance(value, list):
            return [cut for cut in cuts if part_of[cut.id] in value]
        return named[value]

    base = choose("base", scale.use.base)
    named["base"] = [cut for cut in base if has_text(cut)] if isinstance(scale.use.base, list) else base
    named["td"] = choose("td", scale.use.td)
    in_either = {cut.id for name in ("base", "td") for cut in named[name]} if scale.use.opd == "base+td" else set()
    named["base+td"] = [cut for cut in cuts if cut.id in in_either]
    return {"base": named["base"], "td": named["td"], "opd": choose("opd", scale.use.opd)}


def _shares(labelled: list[Cut], use: Use, seed: int) -> dict[str, list[Cut]]:
    """Draw the shares of the transcribed cuts.

    1. Sort the cuts by a seeded hash of their ids.
    2. Take `use.base` of them from the start for `base`, and `use.td` from the end for `td`. Each gets at least
       one cut. One share can therefore grow without changing the other. `opd` is taken from the start too.
    """
    shares = {key: value for key in ("base", "td", "opd") if is_share(value := getattr(use, key))}
    if not shares or not labelled:
        return {f"share {key}": [] for key in shares}
    both = "base" in shares and "td" in shares
    if both and len(labelled) < 2:
        raise UserError(
            f"the corpus has {len(labelled)} training utterance; base and td need at least 2: use a larger corpus"
        )
    ranked = sorted(labelled, key=lambda cut: hashlib.sha256(f"{seed}/{cut.id}".encode()).digest())
    counts = {key: max(1, round(share * len(ranked))) for key, share in shares.items()}
    if both:
        counts["base"] = min(counts["base"], len(ranked) - 1)
        counts["td"] = min(counts["td"], len(ranked) - counts["base"])
    drawn = {key: ranked[len(ranked) - count :] if key == "td" else ranked[:count] for key, count in counts.items()}
    return {f"share {key}": sorted(found, key=lambda cut: cut.id) for key, found in drawn.items()}

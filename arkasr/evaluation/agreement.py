"""Agreement of transcripts in a lower precision with those in float32, on a sample of clips."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from arkasr.evaluation.results_io import TestSet


def sample(clips: Iterable[str], size: int) -> set[str]:
    """Draw clips. The draw depends on the ids only, so it is the same for all runs.

    Args:
        clips: Ids of the clips.
        size: Number of clips to draw.

    Returns:
        The ids drawn, all if there are no more than `size`.
    """
    return set(sorted(clips, key=lambda clip: hashlib.sha256(clip.encode("utf-8", "replace")).digest())[:size])


def agreement(rows: Mapping[str, Mapping[str, Any]], exact: Mapping[str, str], tested: TestSet) -> dict:
    """Compare transcripts with those in float32.

    Args:
        rows: Hypothesis rows by id (see `arkasr.evaluation.hypotheses.row`).
        exact: Transcripts in float32 by id, of some of these clips.
        tested: The test set, which gives the scoring profile.

    Returns:
        Mapping with the keys `clips` (number of clips compared), `equal` (number of equal transcripts) and `error`:
        the error rate against the transcripts in float32 after normalisation, or None if they have no word.
    """
    profile, texts = tested.profile, {clip: rows[clip]["hypothesis"] for clip in exact}
    references, hypotheses = (profile.normalize_all(list(each.values()), tested.rules) for each in (exact, texts))
    tally = profile.count(references, hypotheses, tested.rules)
    errors, length = int(tally.errors.sum()), int(tally.lengths.sum())
    equal = sum(texts[clip] == exact[clip] for clip in exact)
    return {"clips": len(exact), "equal": equal, "error": errors / length if length else None}


def in_words(found: Mapping[str, Any], metric: str) -> str:
    """Describe an agreement in one clause.

    Args:
        found: Return value of `agreement`.
        metric: Metric of the test set.

    Returns:
        Such as "63 of 64 transcripts are equal to those in float32, WER between them 0.12 %".
    """
    rate = "" if found["error"] is None else f", {metric.upper()} between them {100 * found['error']:.2f} %"
    return f"{found['equal']} of {found['clips']} transcripts are equal to those in float32{rate}"

"""Which clips of the TD subset are trained on: those whose teacher transcript is whole and close to the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from arkasr.evaluation.results_io import read_corpus_facts
from arkasr.languages import known_language
from arkasr.scoring.profiles import find_profile

# Reasons, as they follow the number of clips in a message.
FAILED, EMPTY, LOOPING = "failed", "with an empty transcript", "with a looping transcript"
CUT, ABOVE = "with a transcript cut at the token cap", "above teacher_data.max_error"


def select(
    cuts: Sequence[Cut], rows: Mapping[str, Mapping[str, Any]], max_error: float, datadir: Path
) -> tuple[list[Cut], dict[str, int]]:
    """Select the clips to train on.

    Clips are left out for the first of these reasons: there is no transcript (the clip failed), the transcript is
    empty, ends in a loop, or is cut, or its error rate exceeds `max_error`. Transcripts of teachers that do not report
    loops and cuts stay in.

    Args:
        cuts: Clips with their reference as text.
        rows: Hypothesis rows by clip id (see `arkasr.evaluation.hypotheses.row`).
        max_error: Maximum error rate, as a fraction.
        datadir: Data directory. Its `corpus.json` gives the scoring profile.

    Returns:
        The selected clips, in the same order, and the number of clips by reason.
    """
    reasons = {cut.id: _reason(rows.get(cut.id)) for cut in cuts}
    whole = [cut for cut in cuts if not reasons[cut.id]]
    kept = select_by_error(whole, {cut.id: rows[cut.id]["hypothesis"] for cut in whole}, max_error, datadir)
    found = list(reasons.values())
    counts = {reason: found.count(reason) for reason in (FAILED, EMPTY, LOOPING, CUT)}
    return kept, counts | {ABOVE: len(whole) - len(kept)}


def _reason(row: Mapping[str, Any] | None) -> str:
    """Return why a transcript cannot be used, or an empty text."""
    if row is None:
        return FAILED
    if not row["hypothesis"].strip():
        return EMPTY
    if row.get("looping"):
        return LOOPING
    return CUT if row.get("stopped") is False else ""


def select_by_error(cuts: list[Cut], texts: Mapping[str, str], max_error: float, datadir: Path) -> list[Cut]:
    """Select the cuts whose transcript has an error rate of at most `max_error` against the reference.

    Errors are counted as `arkasr score` counts them, in a mix by the scoring profile of each member. A rate above
    1 counts as 1, so `max_error=1` keeps all cuts. Cuts without a reference are kept.

    Args:
        cuts: Cuts with their reference as text.
        texts: The teacher's transcripts by cut id.
        max_error: Maximum error rate, as a fraction.
        datadir: Data directory. Its `corpus.json` gives the scoring profile.

    Returns:
        The selected cuts, in the same order.
    """
    if max_error >= 1.0 or not cuts:
        return cuts
    corpus = read_corpus_facts(datadir)
    scoring = {cut.id: _scoring(cut, corpus) for cut in cuts}
    kept: set[str] = set()
    for name, language in dict.fromkeys(scoring.values()):
        own, profile = [cut for cut in cuts if scoring[cut.id] == (name, language)], find_profile(name)
        references = profile.normalize_all([cut.supervisions[0].text or "" for cut in own], language)
        tally = profile.count(references, profile.normalize_all([texts[cut.id] for cut in own], language), language)
        rates = zip(own, tally.errors, tally.lengths)
        kept |= {cut.id for cut, errors, length in rates if not length or errors <= max_error * length}
    return [cut for cut in cuts if cut.id in kept]


def _scoring(cut: Cut, corpus: Mapping[str, Any]) -> tuple[str, str]:
    """Return profile and language of a clip: of its member of a mix or of the corpus, else of its own language."""
    own = (corpus.get("members") or {}).get(cut.id.partition("/")[0], corpus)
    language = known_language(cut.supervisions[0].language or "")
    if own.get("language") or language is None:
        return own["profiles"][0], own.get("scored_as") or own.get("language") or ""
    fitting = [name for name in own["profiles"] if find_profile(name).fits([language.name])]
    return [*fitting, "unicode"][0], language.name


def with_teacher_text(cut: Cut, text: str) -> Cut:
    """Make a teacher's transcript the text of the clip. The reference becomes the custom field `reference`.

    Args:
        cut: The clip. Its supervision is changed.
        text: The transcript.

    Returns:
        The clip.
    """
    supervision = cut.supervisions[0]
    supervision.custom = {**(supervision.custom or {}), "reference": supervision.text}
    supervision.text = text
    return cut

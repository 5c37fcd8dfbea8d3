"""Recognise a collapsed model: one whose transcripts hardly depend on the audio.

An error rate does not show a collapse. A model that answers every utterance with one common sentence has a rate below
100 %, and a second collapsed model can differ from it significantly. The transcripts are therefore compared with each
other, and with how often the references repeat: in a corpus of spoken digits they repeat in a good model too. They are
also compared with the references of other utterances, because not all collapsed models repeat one text exactly.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from arkasr.scoring.tally import count

MIN_CLIPS = 20  # with fewer, a repeated transcript says little
MIN_EXCESS = 10  # transcripts that repeat more often than any reference
MOST_COMPARED = 500  # transcripts that are compared with the references of other utterances
NUM_ERRORS = 2.0  # standard errors that count as evidence
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Collapse:
    """How much the transcripts of one run on one test set repeat.

    Attributes:
        most_frequent: The most frequent transcript. It may be empty.
        count: Number of utterances with this transcript.
        clips: Number of transcripts.
        distinct: Number of distinct transcripts.
        unrelated: Whether the finding is that transcripts are no closer to their own references than to those of other
            utterances.
    """

    most_frequent: str
    count: int
    clips: int
    distinct: int
    unrelated: bool = False

    def __str__(self) -> str:
        """Return the finding as one clause, for logs and tables."""
        if self.unrelated:
            return "transcripts are no closer to their own references than to those of other clips"
        text = printable(self.most_frequent)
        what = f"are {text}" if self.most_frequent else "are empty"
        return f"{self.count} of {self.clips} transcripts {what} (distinct transcripts: {self.distinct})"


def printable(text: str) -> str:
    """Quote and shorten a transcript for a log line or a table.

    Args:
        text: Transcript of any length. It may hold control characters.

    Returns:
        The text in double quotes, without control characters.
    """
    shown = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    return json.dumps("".join(char if char.isprintable() else " " for char in shown), ensure_ascii=False)


def repetition(hypotheses: Sequence[str]) -> Collapse:
    """Count how much transcripts repeat.

    Args:
        hypotheses: N normalised transcripts, N at least 1.

    Returns:
        The counts. Of several equally frequent transcripts, the first one in order is named.
    """
    counts = Counter(hypotheses)
    text, count = counts.most_common(1)[0]
    return Collapse(text, count, len(hypotheses), len(counts))


def collapsed(hypotheses: Sequence[str], references: Sequence[str]) -> Collapse | None:
    """Decide whether transcripts hardly depend on the audio.

    Let N be the number of utterances, c the count of the most frequent transcript, and e that of the most frequent
    reference. With at least 20 utterances, and at least 10 more than e, the transcripts are collapsed if one of these
    conditions holds:

    1. c is at least N / 2 and e + 10, and also at least 3 e, or at least e + 0.8 (N - e).
    2. There are at most a quarter as many distinct transcripts as distinct references, or just one transcript.
    3. The transcripts are no closer, in edits of characters, to their own references than to those of other utterances:
       the mean difference is not above two standard errors.

    The second limit of condition 1 is for corpora with few different references, such as "yes" and "no".

    Args:
        hypotheses: N normalised transcripts.
        references: Their N normalised references, in the same order.

    Returns:
        The counts if the transcripts are collapsed, otherwise None.
    """
    if len(hypotheses) < MIN_CLIPS:
        return None
    found, expected = repetition(hypotheses), repetition(references)
    others = found.clips - expected.count
    if others < MIN_EXCESS:
        return None
    far_above = found.count >= min(3 * expected.count, expected.count + 0.8 * others)
    repeats = found.count >= max(found.clips / 2, expected.count + MIN_EXCESS) and far_above
    few = found.distinct <= max(1, expected.distinct // 4)
    if repeats or few:
        return found
    return replace(found, unrelated=True) if _is_unrelated(hypotheses, references) else None


def _is_unrelated(hypotheses: Sequence[str], references: Sequence[str]) -> bool:
    """Compare each transcript with its reference and with two others, far away in the order and different."""
    total = len(references)
    compared = range(0, total, -(-total // MOST_COMPARED))
    pairs = [(i, (i + shift) % total) for shift in (total // 3, total // 2) for i in compared]
    pairs = [(i, j) for i, j in pairs if references[i] != references[j]]
    if len(pairs) < 2 * MIN_CLIPS:
        return False
    own = count([references[i] for i, _ in pairs], [hypotheses[i] for i, _ in pairs], "cer").errors
    other = count([references[j] for _, j in pairs], [hypotheses[i] for i, _ in pairs], "cer").errors
    closer = other - own
    standard_error = closer.std(ddof=1) / math.sqrt(len(pairs) / 2)  # two pairs share a transcript
    return bool(closer.mean() <= NUM_ERRORS * standard_error)

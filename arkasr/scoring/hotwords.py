"""Hotwords in transcripts: how many of the reference are found, and how many clips gain one that was not spoken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arkasr.errors import UserError
from arkasr.scoring import bootstrap
from arkasr.scoring.alignment import tokens
from arkasr.scoring.tally import interval_by_speaker, percent, percents
from arkasr.scoring.transcripts import read_lines

EXAMPLES = 10  # hotwords that are listed


def read_hotwords(values: Sequence[str]) -> tuple[str, ...]:
    """Return the hotwords of an option.

    Args:
        values: Hotwords, and names of files behind `@`, with one hotword per line. Empty lines are skipped.

    Returns:
        The different hotwords in their order, without spaces at their ends.

    Raises:
        UserError: A file cannot be read, or holds no hotword, or a file is named without `@`.
    """
    found: dict[str, None] = {}
    for value in values:
        if not value.startswith("@") and os.path.isfile(value):
            raise UserError(
                f"--hotwords {value}: is a file, but a word is expected; write @{value} to read words from it, or name "
                "audio before --hotwords"
            )
        words = [word for line in _lines(value) if (word := " ".join(line.split()))]
        if not words:
            raise UserError(f"--hotwords {value}: holds no hotword; write one word or phrase per line")
        found |= dict.fromkeys(words)
    return tuple(found)


def _lines(value: str) -> list[str]:
    return read_lines(value[1:]) if value.startswith("@") else [value]


@dataclass(frozen=True)
class HotwordCounts:
    """Occurrences of H hotwords in N utterances.

    Attributes:
        hotwords: The different hotwords, normalised.
        spoken: int64 array [N], occurrences in the reference.
        found: int64 array [N], those that the hypothesis holds too.
        added: int64 array [N], further occurrences in the hypothesis.
        missed: Occurrences that the hypotheses lack, by hotword.
        leaked: Occurrences that the references lack, by hotword.
    """

    hotwords: tuple[str, ...]
    spoken: np.ndarray
    found: np.ndarray
    added: np.ndarray
    missed: Counter[str]
    leaked: Counter[str]


def count_hotwords(
    hotwords: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], metric: str
) -> HotwordCounts:
    """Count hotwords. An occurrence is a run of whole tokens of the error rate.

    Args:
        hotwords: Normalised hotwords. Those that are equal count once.
        references: N normalised references.
        hypotheses: N normalised hypotheses.
        metric: `wer`, `cer` or `mer` (see `alignment.tokens`).

    Returns:
        The counts. Positions are not compared: two occurrences in the reference and three in the hypothesis are two
        that are found and one that is added.
    """
    runs = {tuple(tokens(hotword, metric)): hotword for hotword in hotwords}
    occurrences = _counter(runs, metric)
    pairs = [
        (occurrences(reference), occurrences(text)) for reference, text in zip(references, hypotheses, strict=True)
    ]
    return HotwordCounts(
        tuple(runs.values()),
        _totals([spoken for spoken, _ in pairs]),
        _totals([spoken & present for spoken, present in pairs]),
        _totals([present - spoken for spoken, present in pairs]),
        sum((spoken - present for spoken, present in pairs), Counter()),
        sum((present - spoken for spoken, present in pairs), Counter()),
    )


def _counter(runs: dict[tuple[str, ...], str], metric: str) -> Callable[[str], Counter[str]]:
    sizes = sorted({len(run) for run in runs})

    def occurrences(text: str) -> Counter[str]:
        words = tokens(text, metric)
        places = ((start, size) for size in sizes for start in range(len(words) - size + 1))
        return Counter(runs[run] for start, size in places if (run := tuple(words[start : start + size])) in runs)

    return occurrences


def _totals(counters: Sequence[Counter[str]]) -> np.ndarray:
    return np.array([counter.total() for counter in counters], dtype=np.int64)


def hotword_summary(counts: HotwordCounts, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """Compute recall and leak of hotwords with 95 % intervals.

    Args:
        counts: The counts per utterance.
        speakers: Speaker per utterance. Empty if unknown.

    Returns:
        `hotwords`, `spoken`, `found` and `added` (numbers), `recall_percent` (share of the spoken hotwords that are
        found), `leak_percent` (share of the utterances with an added one, whose number is `utterances_with_leak`), the
        intervals of both by utterance and by speaker, and `most_missed` and `most_leaked` (numbers by hotword). The
        recall and its intervals are None if no reference holds a hotword.
    """
    leaks, ones = (counts.added > 0).astype(np.int64), np.ones(len(counts.added), dtype=np.int64)
    return {
        "hotwords": len(counts.hotwords),
        "spoken": int(counts.spoken.sum()),
        "found": int(counts.found.sum()),
        "added": int(counts.added.sum()),
        "utterances_with_leak": int(leaks.sum()),
        **_share("recall", counts.found, counts.spoken, speakers),
        **_share("leak", leaks, ones, speakers),
        "most_missed": dict(counts.missed.most_common(EXAMPLES)),
        "most_leaked": dict(counts.leaked.most_common(EXAMPLES)),
    }


def _share(name: str, part: np.ndarray, whole: np.ndarray, speakers: Sequence[str]) -> dict[str, Any]:
    return {
        f"{name}_percent": percent(part.sum() / whole.sum()) if whole.sum() else None,
        f"{name}_interval_percent": percents(bootstrap.interval(part, whole)),
        f"{name}_interval_by_speaker_percent": interval_by_speaker(bootstrap.interval, (part, whole), speakers),
    }

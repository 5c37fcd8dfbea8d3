"""The rules of profiles that other packages implement. The packages are optional, and imported when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from arkasr.scoring.normalize import characters
from arkasr.scoring.tally import Tally


@cache
def _whisper() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def leaderboard(text: str) -> str:
    """Normalise an English text by Whisper's normaliser with its map of British spellings.

    Args:
        text: The text.

    Returns:
        The normalised text.
    """
    return " ".join(_whisper()(text).split())


def count_compounds(references: Sequence[str], hypotheses: Sequence[str]) -> Tally:
    """Count word errors by kaldialign, with `merge_compounds`: "white paper" and "whitepaper" are equal.

    Args:
        references: N normalised references.
        hypotheses: N normalised hypotheses.

    Returns:
        Counts per utterance. The words of merged compounds are hits.
    """
    from kaldialign import edit_distance

    rows = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        found = edit_distance(reference.split(), hypothesis.split(), merge_compounds=True)
        hits = found["ref_len"] - found["sub"] - found["del"]
        rows.append((hits, found["sub"], found["del"], found["ins"]))
    return Tally(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


@cache
def _chinese() -> Callable[[str], str]:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn", full_to_half=True).normalize


def zh_tn(text: str) -> str:
    """Write the numbers of a Chinese text in characters, and apply the rules of the profile `unicode`.

    Args:
        text: The text.

    Returns:
        The normalised text. Fillers, erhua and traditional characters stay.
    """
    return characters(_chinese()(text)) if text.strip() else ""

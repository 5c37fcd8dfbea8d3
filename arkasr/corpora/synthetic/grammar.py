"""The grammars of the synthetic corpora.

Those of the miniatures, English and Mandarin, have words that are few, frequent and distinct enough for a small model.
`study_grammar` has the larger one of the study.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from arkasr.corpora.synthetic import study_grammar
from arkasr.corpora.synthetic.study_grammar import Slots


def _slots(**words: str) -> Slots:
    """Parse slots. Bars separate alternatives, spaces the words of one alternative."""
    return {name: tuple(tuple(choice.split()) for choice in text.split("|")) for name, text in words.items()}


_ENGLISH = _slots(
    NUM="THREE|FIVE|SEVEN|EIGHT|TWENTY|TWELVE",
    COLOUR="RED|YELLOW|PURPLE|GREEN|BLACK|WHITE",
    WHO="MONKEYS|TIGERS|RABBITS|DOGS|CAMELS|SPIDERS",
    DO="RUN|SLEEP|JUMP|SING|WAIT|DANCE",
    WHERE="UNDER|BEHIND|NEAR",
    PLACE="RIVER|HOUSE|GARDEN|MOUNTAIN|BRIDGE|MARKET",
    WHEN="TODAY|ALWAYS",
    THE="THE",
    AND="AND",
)
_ENGLISH_PATTERNS = (
    "NUM WHO DO",
    "NUM COLOUR WHO DO",
    "THE COLOUR WHO DO WHEN",
    "NUM WHO DO WHERE THE PLACE",
    "COLOUR WHO AND COLOUR WHO DO",
    "NUM COLOUR WHO DO WHERE THE PLACE",
    "THE COLOUR WHO DO WHERE THE PLACE",
    "NUM WHO AND NUM COLOUR WHO DO",
)

_MANDARIN = _slots(
    WHEN="今天|明天|早上|晚上",
    WHO="我们|你们|妈妈|老师|小猫",
    SOME="三 个 老师|三 个 小猫|五 个 老师|五 个 小猫|九 个 老师|九 个 小猫",
    HOW="都|不|想",
    AT="在 学校|在 公园|在 北京|在 家里",
    DO="喝 水|吃 面|看 书|唱 歌|买 花",
)
_MANDARIN_PATTERNS = (
    "WHO DO",
    "SOME DO",
    "WHO HOW DO",
    "WHEN WHO DO",
    "WHO AT DO",
    "SOME AT DO",
    "WHEN SOME DO",
    # The long patterns are repeated, because they give most of the distinct sentences.
    *("WHEN WHO HOW DO",) * 2,
    *("WHEN WHO AT DO",) * 3,
    *("WHEN WHO HOW AT DO",) * 4,
)

# By kind of the synthetic corpus and language: the slots, the patterns, and the skew s. Word i of a slot is drawn with
# a probability of about i^(1/s - 1), so with s above 1 the first words are more frequent.
_GRAMMARS: dict[tuple[str, str], tuple[Slots, tuple[str, ...], float]] = {
    ("mini", "English"): (_ENGLISH, _ENGLISH_PATTERNS, 1),
    ("mini", "Chinese"): (_MANDARIN, _MANDARIN_PATTERNS, 1),
    ("study", "English"): (study_grammar.DOMAIN_SLOTS, study_grammar.DOMAIN_PATTERNS, 1),
    ("wide study", "English"): (study_grammar.SLOTS, study_grammar.PATTERNS, 6),
}
# Hash buckets (0 to 99) of each group of sentences.
SHARES = {"dev": range(12), "test": range(12, 28), "train": range(28, 100)}


def group_of(words: tuple[str, ...]) -> str:
    """Return the group that a sentence belongs to. A fixed hash decides, so the groups are disjoint.

    Args:
        words: The sentence.

    Returns:
        `train`, `dev` or `test`.
    """
    bucket = zlib.crc32(" ".join(words).encode()) % 100
    return next(group for group, buckets in SHARES.items() if bucket in buckets)


def vocabulary(language: str, kind: str = "mini") -> set[str]:
    """List the words of a grammar.

    Args:
        language: `English` or `Chinese`.
        kind: Kind of the synthetic corpus: `mini` or `study`.

    Returns:
        All words that its sentences can contain.
    """
    slots = _GRAMMARS[kind, language][0]
    return {word for choices in slots.values() for choice in choices for word in choice}


def sentences(language: str, group: str, rng: np.random.Generator, kind: str = "mini") -> Iterator[tuple[str, ...]]:
    """Yield random sentences of one group without end. Patterns are drawn uniformly.

    Args:
        language: `English` or `Chinese`.
        group: `train`, `dev` or `test`.
        rng: The generator.
        kind: Kind of the synthetic corpus: `mini` or `study`.

    Yields:
        The words of one sentence.
    """
    slots, patterns, skew = _GRAMMARS[kind, language]
    while True:
        words: list[str] = []
        for slot in patterns[rng.integers(len(patterns))].split():
            words += slots[slot][_draw(rng, len(slots[slot]), skew)]
        if group_of(tuple(words)) == group:
            yield tuple(words)


def _draw(rng: np.random.Generator, count: int, skew: float) -> int:
    """Draw one of `count` words."""
    return int(rng.integers(count)) if skew == 1 else int(count * rng.random() ** skew)

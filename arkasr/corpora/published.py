"""Which corpus a folder holds: the published one, its synthetic miniature, or another in the same layout.

Results of other data must not carry a published corpus's name or appear beside the paper's numbers. The number of
utterances and speakers distinguishes the published parts from others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.scale import Scale, set_name
from arkasr.corpora.set_rows import PartCounts
from arkasr.utils.console import log

# Number of transcribed utterances of the published parts, by the name of the corpus.
UTTERANCES = {
    "librispeech": {
        "train-clean-5": 1519, "train-clean-100": 28539, "train-clean-360": 104014, "train-other-500": 148688,
        "dev-clean-2": 1089, "dev-clean": 2703, "dev-other": 2864, "test-clean": 2620, "test-other": 2939,
    },
    "aishell": {"train": 120098, "dev": 14326, "test": 7176},
    "wenetspeech": {"TEST_NET": 24774, "TEST_MEETING": 8370},
}  # fmt: skip
# Number of utterances and speakers of the test sets behind the columns of the paper's Table 1. WenetSpeech names no
# speakers.
TEST_SETS = {
    "Libri clean": (2620, 40),
    "Libri other": (2939, 33),
    "AISHELL-1": (7176, 20),
    "Wenet net": (24774, 0),
    "Wenet meeting": (8370, 0),
}
_SPELLINGS = {"aishell1": "aishell"}  # after "-" and "_" are removed


@dataclass(frozen=True)
class Label:
    """How results on a corpus are labelled.

    Attributes:
        name: Name of the corpus.
        paper: Column of the paper's Table 1 by test set. None for a test set that is not the paper's.
    """

    name: str
    paper: dict[str, str | None]


def label(
    corpus: Corpus, facts: Scale, folder: Path, synthetic: bool, read: dict[str, PartCounts], test: Iterable[str]
) -> Label:
    """Decide the name and the paper's columns, and log what is not the published corpus.

    Args:
        corpus: The corpus.yaml.
        facts: Its scale.
        folder: The folder that the user named.
        synthetic: Whether stage 0 synthesised the corpus, and the scale is not `paper`. Its results appear beside
            the paper's, and say that they are a miniature.
        read: Counts of all parts in use.
        test: The test parts in use.

    Returns:
        The name of corpus.yaml, unless it is a published corpus's and the data are others. Then the name comes from
        the folder.
    """
    published = _published(corpus.name)
    if synthetic and published:
        return Label(corpus.name, {set_name(part): facts.test[part] for part in test})
    name = corpus.name
    if published and (fault := _difference(UTTERANCES[published], read)):
        name = own_name(folder)
        log(f"{folder}: not the published {corpus.name} corpus ({fault}); its results are labelled {name}")
    return Label(name, {set_name(part): _column(part, facts.test[part], read[part]) for part in test})


def _published(name: str) -> str:
    """Return the key of UTTERANCES for a name in any spelling, or ""."""
    name = re.sub("[-_ ]", "", name.lower())
    name = _SPELLINGS.get(name, name)
    return name if name in UTTERANCES else ""


def _difference(published: dict[str, int], read: dict[str, PartCounts]) -> str:
    """Return the first part that differs from the published one, with both counts. Empty if none differs."""
    known = [part for part in read if part in published]
    if not known:
        return "no part has a published name"
    for part in known:
        if read[part].listed != published[part]:
            return f"{part} has {read[part].listed} utterances, the published part has {published[part]}"
    return ""


def _column(part: str, column: str | None, read: PartCounts) -> str | None:
    """Return the paper's column of a test part if its utterances are the paper's. Of the card's, none are known."""
    if column not in TEST_SETS:
        return column
    utterances, speakers = TEST_SETS[column]
    found = len(read.speakers) if speakers else 0
    if (read.cuts, found) == (utterances, speakers):
        return column
    counts = [(read.cuts, found), (utterances, speakers)]
    have, must = (f"{clips} utterances" + (f" of {people} speakers" if speakers else "") for clips, people in counts)
    log(f"{part}: {have}, but {column} has {must}: it gets no column of the paper")
    return None


def own_name(folder: Path) -> str:
    """Make a corpus's name from its folder.

    Args:
        folder: The folder that the user named.

    Returns:
        Its name, with the parent's name in front if it alone is a published corpus's.
    """
    path = Path(os.path.abspath(folder))
    name = _word(path.name) or "corpus"
    if not _published(name):
        return name
    return f"{_word(path.parent.name) or 'own'}-{name}"


def _word(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:80]

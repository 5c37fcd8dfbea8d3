"""Tokens of an error rate, and the alignment of hypotheses with references by minimum edit distance."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Kind = Literal["equal", "substitute", "delete", "insert"]


class Edit(NamedTuple):
    """One step of an alignment.

    Attributes:
        kind: What happened to the reference token.
        reference: Token of the reference, empty for an insertion.
        hypothesis: Token of the hypothesis, empty for a deletion.
    """

    kind: Kind
    reference: str
    hypothesis: str


def tokens(text: str, metric: str) -> list[str]:
    """Split a normalised text into the units that an error rate counts.

    White space separates tokens and is never one itself, as in sclite, WeNet and Kaldi.

    | metric | tokens | example |
    |---|---|---|
    | `wer` | words between white space | `打开app now` → `打开app`, `now` |
    | `cer` | characters without white space | `打开app` → `打`, `开`, `a`, `p`, `p` |
    | `mer` | mixed: letters of scripts without case, such as Chinese, and other words | `打开app` → `打`, `开`, `app` |

    Args:
        text: Normalised text.
        metric: `wer`, `cer` or `mer`.

    Returns:
        The tokens, none of them empty.
    """
    if metric == "wer":
        return text.split()
    if metric == "cer":
        return list("".join(text.split()))
    return [token for word in text.split() for token in _mixed(word)]


def _mixed(word: str) -> list[str]:
    """Split a word before and after each letter of category Lo. Marks stay with the letter that they follow."""
    found: list[str] = []
    alone = False  # whether the last token is a letter that stands alone
    for char in word:
        category = unicodedata.category(char)
        if category == "Lo" or (alone and category[0] != "M") or not found:
            found.append(char)
        else:
            found[-1] += char
        alone = category == "Lo" or (alone and category[0] == "M")
    return found


def align_all(references: Sequence[str], hypotheses: Sequence[str], metric: str) -> list[Any]:
    """Align N hypotheses with N references by jiwer.

    Args:
        references: N normalised references. They may be empty.
        hypotheses: N normalised hypotheses.
        metric: `wer`, `cer` or `mer` (see `tokens`).

    Returns:
        Per pair, the chunks of jiwer's alignment, in order. The positions of a chunk count tokens.
    """
    import jiwer

    expected, found = ([" ".join(tokens(text, metric)) for text in texts] for texts in (references, hypotheses))
    return jiwer.process_words(expected, found).alignments if references else []


def align(reference: str, hypothesis: str, metric: str) -> list[Edit]:
    """Align a hypothesis with its reference, token by token, with the fewest possible edits.

    The counts of `arkasr.scoring.tally` are those of the same alignment.

    Args:
        reference: Normalised reference.
        hypothesis: Normalised hypothesis.
        metric: `wer`, `cer` or `mer` (see `tokens`).

    Returns:
        The edits in order. Their reference tokens are those of the reference, and the same holds for the hypothesis.
    """
    expected, found = tokens(reference, metric), tokens(hypothesis, metric)
    edits = []
    for chunk in align_all([reference], [hypothesis], metric)[0]:
        before = expected[chunk.ref_start_idx : chunk.ref_end_idx]
        after = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
        extent = max(len(before), len(after))  # one side of an insertion or a deletion is empty
        pairs = zip(before or [""] * extent, after or [""] * extent, strict=True)
        edits += [Edit(chunk.type, left, right) for left, right in pairs]
    return edits

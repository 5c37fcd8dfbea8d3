"""Pair the transcripts of a system with the references, by id, by line or by time. Nothing is dropped silently."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from arkasr.errors import UserError
from arkasr.scoring.transcripts import Segment, Transcripts

EXAMPLES = 3


class Pairing(NamedTuple):
    """The hypotheses of one system for the references.

    Attributes:
        texts: Hypothesis by id of the reference, in the order of the references. Missing ones are empty.
        missing: Ids of the references without a hypothesis.
        ignored_words: Number of words at times that are not scored (stm).
    """

    texts: dict[str, str]
    missing: list[str]
    ignored_words: int = 0


def pair(references: Transcripts, hypotheses: Transcripts) -> Pairing:
    """Pair hypotheses with references.

    Args:
        references: The references.
        hypotheses: The hypotheses.

    Returns:
        The hypotheses of all references.

    Raises:
        UserError: Hypotheses belong to no reference, or the files cannot be paired.
    """
    if hypotheses.words and references.segments:
        return _by_time(references, hypotheses)
    expected, found = references.utterances, hypotheses.utterances
    if references.numbered != hypotheses.numbered:
        numbered, named = (references, hypotheses) if references.numbered else (hypotheses, references)
        raise UserError(
            f"{numbered.path}: has no ids, but {named.path} has ids, so they cannot be paired; give both files ids, or "
            "none of them (one text per line, in the same order)"
        )
    if references.numbered and len(expected) != len(found):
        raise UserError(
            f"{hypotheses.path}: holds {len(found)} texts, but {references.path} holds {len(expected)}; without ids, "
            "line N belongs to line N; write an empty line for an empty text, or use a format with ids"
        )
    _check_known(references, hypotheses, [identity for identity in found if identity not in expected])
    missing = [identity for identity in expected if identity not in found]
    return Pairing({identity: found[identity].text if identity in found else "" for identity in expected}, missing)


def _check_known(references: Transcripts, hypotheses: Transcripts, unknown: list[str]) -> None:
    if not unknown:
        return
    total = len(hypotheses.utterances)
    shown, known = (", ".join(list(ids)[:EXAMPLES]) for ids in (unknown, references.utterances))
    number = "none of its" if len(unknown) == total else f"{len(unknown)} of {total}"
    verb = "are not" if len(unknown) < total else "are"
    raise UserError(
        f"{hypotheses.path}: {number} utterances {verb} in {references.path}, such as {shown} (known: {known}); name "
        "the matching files, or remove these utterances"
    )


def _by_time(references: Transcripts, hypotheses: Transcripts) -> Pairing:
    """Give each word to the first segment that ends after its middle, or to the last one, as sclite does."""
    segments: dict[tuple[str, str], list[Segment]] = {}
    for segment in references.segments:  # sorted by end
        segments.setdefault(segment.recording, []).append(segment)
    recordings = {word.recording for word in hypotheses.words}
    if unknown := sorted(recordings - segments.keys()):
        shown, known = (
            ", ".join(" ".join(each) for each in list(found)[:EXAMPLES]) for found in (unknown, sorted(segments))
        )
        raise UserError(
            f"{hypotheses.path}: recording and channel {shown} are not in {references.path} (known: {known}); name the "
            "matching files, or remove these words"
        )
    words: dict[str, list[str]] = {identity: [] for identity in ("", *references.utterances)}
    ends = {recording: [segment.end for segment in found] for recording, found in segments.items()}
    for word in hypotheses.words:  # sorted by time
        place = min(bisect_left(ends[word.recording], word.middle), len(ends[word.recording]) - 1)
        words[segments[word.recording][place].id].append(word.text)
    ignored = len(words.pop(""))
    missing = [each.id for each in references.segments if each.id and each.recording not in recordings]
    return Pairing({identity: " ".join(found) for identity, found in words.items()}, missing, ignored)

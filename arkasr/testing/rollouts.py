"""Student transcripts to test a token mapper with, and the aligned pairs of each clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from arkasr.interfaces import Alignment
from arkasr.model.tokenization import token_bytes
from arkasr.testing.require import requirer

require = requirer("check_token_mapper")
TEXTS = (
    "the sea",
    "the quick brown fox",
    "it's 9 o'clock",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d",
    "\u4eca\u5929 hello e\u0301",
    "ok \U0001f600",
)
Rollouts = list[tuple[list[int], str]]  # token ids, and their description for messages
Pairs = list[tuple[int, int]]  # student row and teacher row, counted from the start of the clip


@dataclass
class Vocabulary:
    """A tokenizer with the bytes of its tokens.

    Attributes:
        tokenizer: A fast Hugging Face tokenizer.
        stop_ids: Ids that end a transcript.
        token_bytes: Bytes of each id, None for special tokens.
    """

    tokenizer: Any
    stop_ids: list[int]
    token_bytes: list[bytes | None]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of a sequence of ids, without special tokens.

        Args:
            ids: Ids of this vocabulary.

        Returns:
            Their joined bytes.
        """
        return b"".join(self.token_bytes[i] or b"" for i in ids)

    def without_stop(self, ids: Sequence[int]) -> list[int]:
        """Return ids without the stop token at their end, if there is one.

        Args:
            ids: Ids of this vocabulary.

        Returns:
            A new list.
        """
        return list(ids[:-1] if ids and ids[-1] in self.stop_ids else ids)


def vocabulary(owner: Any) -> Vocabulary:
    """Return the vocabulary of a student or teacher.

    Args:
        owner: Any object with a fast `tokenizer` and `stop_ids`.

    Returns:
        Its vocabulary.
    """
    return Vocabulary(owner.tokenizer, list(owner.stop_ids), token_bytes(owner.tokenizer))


def make_rollouts(student: Vocabulary, texts: Sequence[str]) -> Rollouts:
    """Return transcripts of all kinds: stopped, cut at the token cap, cut inside a character, only a stop token.

    Args:
        student: The student's vocabulary.
        texts: Texts to encode.

    Returns:
        Non-empty token ids, each with a description.
    """
    stop = student.stop_ids[0]
    lead_bytes = (i for i, b in enumerate(student.token_bytes) if b and len(b) == 1 and b[0] >= 0xC2)
    half = next(lead_bytes, None)  # the first byte of a UTF-8 character
    rollouts = [([i], "a rollout that is only a stop") for i in student.stop_ids]
    for text in texts:
        ids = student.tokenizer.encode(text, add_special_tokens=False)
        rollouts += [([*ids, stop], f"{text!r}, stopped"), (ids, f"{text!r}, cut")]
        if half is not None:
            rollouts += [([*ids, half], f"{text!r}, cut inside a character")]
    if half is not None:
        rollouts += [([half], "half a character"), ([half, stop], "half a character, stopped")]
    return [(ids, what) for ids, what in rollouts if ids]


def shared_boundaries(ids: list[int], student: Vocabulary, teacher: Vocabulary) -> set[int]:
    """Return the positions before which whole characters end, if both tokenizers split the text alike.

    Args:
        ids: Token ids of the student.
        student: The student's vocabulary.
        teacher: The teacher's vocabulary.

    Returns:
        Indices into `ids`. Empty if the teacher splits the text differently, if the ids end inside a character, or
        if there is no text.
    """
    pieces = [student.token_bytes[i] for i in student.without_stop(ids)]
    text = b"".join(piece or b"" for piece in pieces).decode(errors="ignore")
    teacher_pieces = [teacher.token_bytes[i] for i in teacher.tokenizer.encode(text, add_special_tokens=False)]
    if not text or None in pieces or pieces != teacher_pieces:
        return set()
    boundaries = set(accumulate((len(c.encode()) for c in text), initial=0))
    return {s for s in range(len(ids)) if len(student.decode_bytes(ids[:s])) in boundaries}


def pairs_by_clip(alignment: Alignment, student_ids: list[list[int]]) -> list[tuple[list[int], Pairs]]:
    """Split the aligned pairs by clip.

    Args:
        alignment: The alignment of the batch.
        student_ids: The student's transcripts, B lists.

    Returns:
        For each clip the teacher's ids and the aligned pairs of rows, counted from the start of the clip.

    Raises:
        AssertionError: Rows are out of range, or two clips are paired.
    """
    starts_s = list(accumulate(map(len, student_ids), initial=0))
    starts_t = list(accumulate(map(len, alignment.teacher_ids), initial=0))
    found: list[Pairs] = [[] for _ in student_ids]
    for s, t in zip(alignment.student_rows.tolist(), alignment.teacher_rows.tolist()):
        in_range = 0 <= s < starts_s[-1] and 0 <= t < starts_t[-1]
        limits = f"there are only {starts_s[-1]} student rows and {starts_t[-1]} teacher rows"
        require(in_range, f"align pairs student row {s} with teacher row {t}, but {limits}")
        clip = next(c for c, end in enumerate(starts_s[1:]) if s < end)
        same_clip = starts_t[clip] <= t < starts_t[clip + 1]
        pair = f"align pairs student row {s} of clip {clip} with teacher row {t} of another clip"
        require(same_clip, f"{pair}; both rows must belong to the same clip")
        found[clip].append((s - starts_s[clip], t - starts_t[clip]))
    return list(zip(alignment.teacher_ids, found))

"""What a student may have said, as token ids, and the pairs of an alignment clip by clip."""

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


@dataclass
class Side:
    """One of the two vocabularies: its ids' bytes (None for special tokens), and its stop ids."""

    tokenizer: Any
    stops: list[int]
    bytes: list[bytes | None]

    def read(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that ids stand for."""
        return b"".join(self.bytes[i] or b"" for i in ids)

    def spoken(self, ids: Sequence[int]) -> list[int]:
        """Return ids without the stop that ends them, if one does."""
        return list(ids[:-1] if ids and ids[-1] in self.stops else ids)


def side(owner: Any) -> Side:
    """Read a side off anything with a fast `tokenizer` and `stop_ids`."""
    return Side(owner.tokenizer, list(owner.stop_ids), token_bytes(owner.tokenizer))


def make_rollouts(ours: Side, texts: Sequence[str]) -> list[tuple[list[int], str]]:
    """Return student ids and what they are: stopped, cut, cut inside a character, only a stop."""
    stop = ours.stops[0]
    half = next((i for i, b in enumerate(ours.bytes) if b and len(b) == 1 and b[0] >= 0xC2), None)
    found = [([i], "a rollout that is only a stop") for i in ours.stops]
    for text in texts:
        ids = ours.tokenizer.encode(text, add_special_tokens=False)
        found += [([*ids, stop], f"{text!r}, stopped"), (ids, f"{text!r}, cut")]
        if half is not None:
            found += [([*ids, half], f"{text!r}, cut inside a character")]
    if half is not None:
        found += [([half], "half a character"), ([half, stop], "half a character, stopped")]
    return [(ids, what) for ids, what in found if ids]


def alike(ids: list[int], ours: Side, theirs: Side) -> set[int]:
    """Return at which of the student's tokens whole characters were read, if the teacher cuts the text as these ids do.

    Nothing if it cuts otherwise, if the ids end inside a character, or if there is no text.
    """
    pieces = [ours.bytes[i] for i in ours.spoken(ids)]
    text = b"".join(piece or b"" for piece in pieces).decode(errors="ignore")
    theirs_of_it = [theirs.bytes[i] for i in theirs.tokenizer.encode(text, add_special_tokens=False)]
    if not text or None in pieces or pieces != theirs_of_it:
        return set()
    borders = set(accumulate((len(c.encode()) for c in text), initial=0))
    return {s for s in range(len(ids)) if len(ours.read(ids[:s])) in borders}


def paired(made: Alignment, student_ids: list[list[int]]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Return each clip's teacher ids and paired rows, counted from the clip's own start."""
    starts_s = list(accumulate(map(len, student_ids), initial=0))
    starts_t = list(accumulate(map(len, made.teacher_ids), initial=0))
    found: list[list[tuple[int, int]]] = [[] for _ in student_ids]
    for s, t in zip(made.student_rows.tolist(), made.teacher_rows.tolist()):
        inside = 0 <= s < starts_s[-1] and 0 <= t < starts_t[-1]
        require(inside, f"rows {s} and {t} are paired; there are {starts_s[-1]} and {starts_t[-1]}")
        clip = next(c for c, end in enumerate(starts_s[1:]) if s < end)
        same = starts_t[clip] <= t < starts_t[clip + 1]
        require(same, f"student row {s} of clip {clip} is paired with a teacher row of another clip")
        found[clip].append((s - starts_s[clip], t - starts_t[clip]))
    return list(zip(made.teacher_ids, found))

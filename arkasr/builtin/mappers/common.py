"""What token mappers share: id tables, and a text as the teacher's tokenizer reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoMapperOptions:
    """This mapper has no options."""


def aligned_rows(view: arkasr.DistributionView, alignment: arkasr.Alignment) -> arkasr.DistributionView:
    """Take the teacher's own distributions at the aligned positions."""
    return view.at(alignment.teacher_rows)


class Tables:
    """Maps ids by two tables, [V] of the student and [V] of the teacher, with a copy on each device that asks."""

    def __init__(self, forward: Tensor, backward: Tensor):
        self._forward, self._backward = forward, backward
        self._copies: dict[tuple[str, Any], Tensor] = {}

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """Map student ids of any shape to the teacher's; -1 where it has no such token."""
        return self._look_up("_forward", student_ids)

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """Map teacher ids of any shape to the student's; -1 where it has no such token."""
        return self._look_up("_backward", teacher_ids)

    def _look_up(self, name: str, ids: Tensor) -> Tensor:
        key = name, ids.device
        if key not in self._copies:
            self._copies[key] = getattr(self, name).to(ids.device)
        table = self._copies[key]
        known = (ids >= 0) & (ids < len(table))
        return table[ids.clamp(0, len(table) - 1)].masked_fill(~known, -1)


class Reading(NamedTuple):
    """A text as a teacher reads it: token ids and the bytes of each, b"" where it has none.

    spoken: how many tokens stand before the first without bytes, a special token spelt in plain text: what the teacher
    says after that one, it says of another text. spaced: the tokenizer itself put a space before the text; `pieces` are
    without it.
    """

    ids: list[int]
    pieces: list[bytes]
    spoken: int
    spaced: bool


class Reader:
    """Reads texts by a tokenizer, and knows whether this one writes a space before every text that has none there.

    SentencePiece calls it `add_dummy_prefix`, tokenizers `prepend_scheme` and `add_prefix_space`.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.bytes, self.prefixes = tokenizer, arkasr.token_bytes(tokenizer), False
        self.prefixes = b"".join(self.read("a").pieces).startswith(b" ")

    def read(self, text: str) -> Reading:
        """Tokenise a text."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        pieces = [self.bytes[i] or b"" for i in ids]
        spoken, spaced = count_spoken(pieces), self.prefixes and not text.startswith(" ")
        if spaced and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        return Reading(ids, pieces, spoken, spaced)


def count_spoken(pieces: Sequence[bytes]) -> int:
    """Count the tokens before the first that has no bytes."""
    return next((n for n, piece in enumerate(pieces) if not piece), len(pieces))


def stop_pairs(student: Any, teacher: Any) -> list[tuple[int, int]]:
    """Pair the stop ids of both: the first of each, and of the others those that are the same string."""
    ours, theirs = (
        {side.tokenizer.convert_ids_to_tokens(i): i for i in side.stop_ids if i != side.stop_ids[0]}
        for side in (student, teacher)
    )
    first = student.stop_ids[0], teacher.stop_ids[0]
    return [first, *((i, theirs[name]) for name, i in ours.items() if name in theirs)]


def valid_text(data: bytes) -> tuple[bool, str]:
    """Return the longest prefix that is UTF-8, and whether that is everything: a rollout may end inside a character."""
    try:
        return True, data.decode()
    except UnicodeDecodeError as error:
        return False, data[: error.start].decode()


def common_prefix(a: bytes, b: bytes) -> int:
    """Count the bytes with which both begin."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

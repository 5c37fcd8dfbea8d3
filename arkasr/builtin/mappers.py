"""Token mappers: equal ids where both vocabularies agree, shared strings where they do not; see byte_offsets.py too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoOptions:
    """This mapper has no options."""


def _pick(view: arkasr.DistributionView, alignment: arkasr.Alignment) -> arkasr.DistributionView:
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


class SharedStrings(Tables):
    """Maps tokens that stand for the same bytes (paper, section 3.4) and the stop ids onto each other, one to one.

    Of several tokens with the same bytes the last counts: SentencePiece lists its byte tokens before its pieces.
    The first stop ids are each other's whatever they are called; of the others those that are the same string, and the
    rest map to nothing. The teacher reads the student's text in its own tokens; positions count where both have
    consumed the same bytes and no token without bytes. A space that the teacher's tokenizer itself puts before a text
    is no part of it; the first position then does not count, as the teacher's tokens there begin with that space.
    """

    def __init__(self, options: NoOptions, student: Any, teacher: Any):
        """student, teacher: anything with `tokenizer` and `stop_ids`."""
        import torch

        self.reader = Reader(teacher.tokenizer)
        self.student_bytes, self.teacher_bytes = arkasr.token_bytes(student.tokenizer), self.reader.bytes
        self.student_stop, self.teacher_stop = list(student.stop_ids), teacher.stop_ids[0]
        teacher_of = {b: i for i, b in enumerate(self.teacher_bytes) if b}
        student_of = {b: i for i, b in enumerate(self.student_bytes) if b}
        pairs = [(student_of[b], teacher_of[b]) for b in student_of.keys() & teacher_of.keys()]
        super().__init__(*(torch.full((len(table),), -1) for table in (self.student_bytes, self.teacher_bytes)))
        for s, t in [*pairs, *stop_pairs(student, teacher)]:
            self._forward[s], self._backward[t] = t, s

    translate = staticmethod(_pick)

    def align(self, student_ids: Sequence[Sequence[int]]) -> arkasr.Alignment:
        """Tokenise each transcript anew for the teacher and pair the positions with equal bytes consumed."""
        import torch

        teacher_ids, student_rows, teacher_rows, mismatched, row_s, row_t = [], [], [], 0, 0, 0
        for ids in student_ids:
            new, pairs, same = self._align_one(ids)
            teacher_ids.append(new)
            student_rows += [row_s + s for s, _ in pairs]
            teacher_rows += [row_t + t for _, t in pairs]
            mismatched, row_s, row_t = mismatched + (not same), row_s + len(ids), row_t + len(new)
        return arkasr.Alignment(
            teacher_ids,
            torch.tensor(student_rows, dtype=torch.long),
            torch.tensor(teacher_rows, dtype=torch.long),
            row_s,
            mismatched,
        )

    def _align_one(self, ids: Sequence[int]) -> tuple[list[int], list[tuple[int, int]], bool]:
        stopped = bool(ids) and ids[-1] in self.student_stop
        pieces = [self.student_bytes[i] or b"" for i in (ids[:-1] if stopped else ids)]
        whole, text = valid_text(b"".join(pieces))
        new, theirs, spoken, spaced = self.reader.read(text)
        offsets: dict[int, int] = {}  # the first position of each
        for t, offset in enumerate(accumulate(map(len, theirs[:spoken]), initial=0)):
            offsets.setdefault(offset, t)
        agreed = common_prefix(text.encode(), b"".join(theirs))
        same = agreed == len(text.encode()) == sum(map(len, theirs))
        ended = stopped and whole and same
        scored = max(len(new) + ended, 1)
        ours = list(accumulate(map(len, pieces[: count_spoken(pieces)]), initial=0))[: len(ids)]
        pairs = [
            (s, offsets[o]) for s, o in enumerate(ours) if spaced <= o <= agreed and offsets.get(o, scored) < scored
        ]
        return [*new, self.teacher_stop] if ended or not new else new, pairs, same and whole


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


class Identity(Tables):
    """Equal ids: for a student and a teacher whose vocabularies agree, which is checked here, never assumed.

    Ids that stand for the same bytes map to themselves, and the stop ids to each other: the first to the first, of the
    others those that are the same string, the rest to nothing. Nothing is decoded.
    """

    def __init__(self, options: NoOptions, student: Any, teacher: Any):
        """student, teacher: anything with `tokenizer` and `stop_ids`. Raises UserError where an id differs."""
        import torch

        ours, theirs = arkasr.token_bytes(student.tokenizer), arkasr.token_bytes(teacher.tokenizer)
        shared = {i for i, (a, b) in enumerate(zip(ours, theirs)) if a is not None and a == b}
        wrong = [i for i, b in enumerate(ours) if b is not None and i not in shared]
        if wrong:
            raise arkasr.UserError(
                f"mapper 'identity': {len(wrong)} student ids are other tokens for the teacher (first: {wrong[0]}, "
                f"{ours[wrong[0]]!r}); use mapper.name=shared_strings"
            )
        super().__init__(torch.full((len(ours),), -1), torch.full((len(theirs),), -1))
        index = torch.tensor(sorted(shared))
        self._forward[index], self._backward[index] = index, index
        self.student_stop, self.teacher_stop = list(student.stop_ids), teacher.stop_ids[0]
        for s, t in stop_pairs(student, teacher):
            self._forward[s], self._backward[t] = t, s

    translate = staticmethod(_pick)

    def align(self, student_ids: Sequence[Sequence[int]]) -> arkasr.Alignment:
        """Give the teacher the student's own ids: all positions pair."""
        import torch

        lengths = [len(ids) for ids in student_ids]
        rows = torch.arange(sum(lengths))
        flat = [self.student_stop[0] if i in self.student_stop else i for ids in student_ids for i in ids]
        mapped = self.to_teacher(torch.tensor(flat, dtype=torch.long)).tolist()
        ends = list(accumulate(lengths, initial=0))
        return arkasr.Alignment([mapped[a:b] for a, b in pairwise(ends)], rows, rows, len(rows))


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mappers by name."""
    register("shared_strings", SharedStrings, NoOptions)
    register("identity", Identity, NoOptions)

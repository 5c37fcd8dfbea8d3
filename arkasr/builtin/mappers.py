"""Token mappers: equal ids where both vocabularies agree, shared strings where they do not; see byte_offsets.py too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoOptions:
    """This mapper has no options."""


def _pick(view: arkasr.DistributionView, alignment: arkasr.Alignment) -> arkasr.DistributionView:
    """Take the teacher's own distributions at the aligned positions."""
    return view.at(alignment.teacher_rows)


class SharedStrings:
    """Maps tokens that stand for the same bytes (paper, section 3.4) and the stop ids onto each other, one to one.

    Of several tokens with the same bytes the last counts: SentencePiece lists its byte tokens before its pieces.
    The teacher reads the student's text in its own tokens; positions count where both have consumed the same bytes.
    """

    def __init__(self, options: NoOptions, student: Any, teacher: Any):
        """student, teacher: anything with `tokenizer` and `stop_ids`."""
        import torch

        self.teacher_tokenizer = teacher.tokenizer
        self.student_bytes = arkasr.token_bytes(student.tokenizer)
        self.teacher_bytes = arkasr.token_bytes(teacher.tokenizer)
        self.student_stop, self.teacher_stop = list(student.stop_ids), teacher.stop_ids[0]
        teacher_of = {b: i for i, b in enumerate(self.teacher_bytes) if b}
        student_of = {b: i for i, b in enumerate(self.student_bytes) if b}
        pairs = [(student_of[b], teacher_of[b]) for b in student_of.keys() & teacher_of.keys()]
        pairs.append((self.student_stop[0], self.teacher_stop))
        self._forward = torch.full((len(self.student_bytes),), -1)
        self._backward = torch.full((len(self.teacher_bytes),), -1)
        for s, t in pairs:
            self._forward[s], self._backward[t] = t, s

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """Map student ids to teacher ids, -1 where the teacher has no token of these bytes."""
        return look_up(self._forward, student_ids)

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """Map teacher ids to student ids, -1 where the student has no token of these bytes."""
        return look_up(self._backward, teacher_ids)

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
        new = self.teacher_tokenizer.encode(text, add_special_tokens=False)
        theirs = [self.teacher_bytes[i] or b"" for i in new]
        offsets: dict[int, int] = {}  # the first position of each: what follows may have read a special token
        for t, offset in enumerate(accumulate(map(len, theirs), initial=0)):
            offsets.setdefault(offset, t)
        agreed = common_prefix(text.encode(), b"".join(theirs))
        same = agreed == len(text.encode()) == sum(map(len, theirs))
        ended = stopped and whole and same
        scored = len(new) + ended
        ours = list(accumulate(map(len, pieces), initial=0))[: len(ids)]
        pairs = [
            (s, offsets[o]) for s, o in enumerate(ours) if o <= agreed and o in offsets and offsets[o] < max(scored, 1)
        ]
        return [*new, self.teacher_stop] if ended or not new else new, pairs, same and whole


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """Map ids of any shape by a table [V]; -1 for ids outside it."""
    table = table.to(ids.device)
    known = (ids >= 0) & (ids < len(table))
    return table[ids.clamp(0, len(table) - 1)].masked_fill(~known, -1)


def valid_text(data: bytes) -> tuple[bool, str]:
    """Return the longest prefix that is UTF-8, and whether that is everything: a rollout may end inside a character."""
    try:
        return True, data.decode()
    except UnicodeDecodeError as error:
        return False, data[: error.start].decode()


def common_prefix(a: bytes, b: bytes) -> int:
    """Count the bytes with which both begin."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


class Identity:
    """Equal ids: for a student and a teacher whose vocabularies agree, which is checked here, never assumed.

    Ids that stand for the same bytes map to themselves and the stop ids to each other; nothing is decoded.
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
        self._forward, self._backward = torch.full((len(ours),), -1), torch.full((len(theirs),), -1)
        index = torch.tensor(sorted(shared))
        self._forward[index], self._backward[index] = index, index
        self.student_stop, self.teacher_stop = list(student.stop_ids), teacher.stop_ids[0]
        self._forward[self.student_stop[0]] = self.teacher_stop
        self._backward[self.teacher_stop] = self.student_stop[0]

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """Map student ids to teacher ids, -1 where there is none."""
        return look_up(self._forward, student_ids)

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """Map teacher ids to student ids, -1 where there is none."""
        return look_up(self._backward, teacher_ids)

    translate = staticmethod(_pick)

    def align(self, student_ids: Sequence[Sequence[int]]) -> arkasr.Alignment:
        """Give the teacher the student's own ids: all positions pair."""
        import torch

        lengths = [len(ids) for ids in student_ids]
        rows = torch.arange(sum(lengths))
        flat = [self.student_stop[0] if i in self.student_stop else i for ids in student_ids for i in ids]
        mapped = self.to_teacher(torch.tensor(flat, dtype=torch.long)).tolist()
        ends = list(accumulate(lengths, initial=0))
        return arkasr.Alignment([mapped[a:b] for a, b in zip(ends, ends[1:])], rows, rows, len(rows))


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mappers by name."""
    register("shared_strings", SharedStrings, NoOptions)
    register("identity", Identity, NoOptions)

"""The token mapper `shared_strings`: tokens that stand for the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr.builtin.mappers.common import (
    NoMapperOptions,
    Reader,
    Tables,
    aligned_rows,
    common_prefix,
    count_spoken,
    stop_pairs,
    valid_text,
)

if TYPE_CHECKING:
    pass


class SharedStrings(Tables):
    """Maps tokens that stand for the same bytes (paper, section 3.4) and the stop ids onto each other, one to one.

    Of several tokens with the same bytes the last counts: SentencePiece lists its byte tokens before its pieces.
    The first stop ids are each other's whatever they are called; of the others those that are the same string, and the
    rest map to nothing. The teacher reads the student's text in its own tokens; positions count where both have
    consumed the same bytes and no token without bytes. A space that the teacher's tokenizer itself puts before a text
    is no part of it; the first position then does not count, as the teacher's tokens there begin with that space.
    """

    def __init__(self, options: NoMapperOptions, student: Any, teacher: Any):
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

    translate = staticmethod(aligned_rows)

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


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mapper by name."""
    register("shared_strings", SharedStrings, NoMapperOptions)

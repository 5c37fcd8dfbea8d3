"""The token mapper `shared_strings`: tokens with the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import arkasr
from arkasr.builtin.mappers.common import (
    IdTables,
    NoMapperOptions,
    Reader,
    aligned_rows,
    common_prefix,
    count_before_special,
    stop_pairs,
    valid_text,
)


class SharedStrings(IdTables):
    """Maps tokens with the same bytes onto each other, one to one (paper, section 3.4).

    - If several tokens have the same bytes, the last one is mapped. SentencePiece lists its byte tokens before its
      pieces, so the piece is preferred.
    - The first stop ids map to each other. Further stop ids map to the stop id with the same string, if there is one.
    - The teacher reads the student's text in its own tokens. Positions are compared if both have read the same bytes
      and no special token.
    - A space that the teacher's tokenizer adds before a text is not part of the text. The first position is then not
      compared, because the teacher's tokens there begin with that space.
    """

    def __init__(self, options: NoMapperOptions, student: Any, teacher: Any):
        """Build the id tables.

        Args:
            options: The empty options.
            student: Anything with `tokenizer` and `stop_ids`.
            teacher: Anything with `tokenizer` and `stop_ids`.
        """
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
        """Tokenise each transcript for the teacher and pair the positions at which both have read the same bytes.

        See `arkasr.TokenMapper.align`.
        """
        import torch

        teacher_ids, student_rows, teacher_rows, mismatched, row_s, row_t = [], [], [], 0, 0, 0
        for ids in student_ids:
            read_ids, pairs, same = self._align_one(ids)
            teacher_ids.append(read_ids)
            student_rows += [row_s + s for s, _ in pairs]
            teacher_rows += [row_t + t for _, t in pairs]
            mismatched, row_s, row_t = mismatched + (not same), row_s + len(ids), row_t + len(read_ids)
        return arkasr.Alignment(
            teacher_ids,
            torch.tensor(student_rows, dtype=torch.long),
            torch.tensor(teacher_rows, dtype=torch.long),
            row_s,
            mismatched,
        )

    def _align_one(self, ids: Sequence[int]) -> tuple[list[int], list[tuple[int, int]], bool]:
        """Return teacher ids, pairs (student position, teacher row), and whether the teacher reads the same text."""
        stopped = bool(ids) and ids[-1] in self.student_stop
        pieces = [self.student_bytes[i] or b"" for i in (ids[:-1] if stopped else ids)]
        whole, text = valid_text(b"".join(pieces))
        teacher_ids, teacher_pieces, num_usable, added_space = self.reader.read(text)
        row_at: dict[int, int] = {}  # the first teacher row at each byte offset
        for row, offset in enumerate(accumulate(map(len, teacher_pieces[:num_usable]), initial=0)):
            row_at.setdefault(offset, row)
        agreed = common_prefix(text.encode(), b"".join(teacher_pieces))
        same = agreed == len(text.encode()) == sum(map(len, teacher_pieces))
        ended = stopped and whole and same
        scored = max(len(teacher_ids) + ended, 1)
        starts = list(accumulate(map(len, pieces[: count_before_special(pieces)]), initial=0))[: len(ids)]
        pairs = [
            (s, row_at[o])
            for s, o in enumerate(starts)
            if added_space <= o <= agreed and row_at.get(o, scored) < scored
        ]
        return [*teacher_ids, self.teacher_stop] if ended or not teacher_ids else teacher_ids, pairs, same and whole


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mapper by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("shared_strings", SharedStrings, NoMapperOptions)

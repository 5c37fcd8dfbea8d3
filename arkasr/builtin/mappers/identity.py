"""The token mapper `identity`: equal ids in equal vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr.builtin.mappers.common import NoMapperOptions, Tables, aligned_rows, stop_pairs

if TYPE_CHECKING:
    pass


class Identity(Tables):
    """Equal ids: for a student and a teacher whose vocabularies agree, which is checked here, never assumed.

    Ids that stand for the same bytes map to themselves, and the stop ids to each other: the first to the first, of the
    others those that are the same string, the rest to nothing. Nothing is decoded.
    """

    def __init__(self, options: NoMapperOptions, student: Any, teacher: Any):
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

    translate = staticmethod(aligned_rows)

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
    """Register the mapper by name."""
    register("identity", Identity, NoMapperOptions)

"""The token mapper `identity`: equal ids in equal vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import arkasr
from arkasr.builtin.mappers.common import IdTables, NoMapperOptions, aligned_rows, stop_pairs


class Identity(IdTables):
    """Maps every id to itself, for a student and a teacher with equal vocabularies. The equality is checked.

    Ids map to themselves if their bytes are equal. The first stop ids map to each other. Further stop ids map
    to the stop id with the same string, if there is one. All other ids map to nothing. No text is decoded.
    """

    def __init__(self, options: NoMapperOptions, student: Any, teacher: Any):
        """Compare the vocabularies.

        Args:
            options: The empty options.
            student: Anything with `tokenizer` and `stop_ids`.
            teacher: Anything with `tokenizer` and `stop_ids`.

        Raises:
            UserError: If some student id has other bytes in the teacher's vocabulary.
        """
        import torch

        student_bytes, teacher_bytes = arkasr.token_bytes(student.tokenizer), arkasr.token_bytes(teacher.tokenizer)
        shared = {i for i, (a, b) in enumerate(zip(student_bytes, teacher_bytes)) if a is not None and a == b}
        wrong = [i for i, b in enumerate(student_bytes) if b is not None and i not in shared]
        if wrong:
            raise arkasr.UserError(
                f"mapper `identity` needs equal vocabularies, but {len(wrong)} student ids are other tokens in the "
                f"teacher's (the first is id {wrong[0]}, {student_bytes[wrong[0]]!r}); use `mapper.name=shared_strings`"
            )
        super().__init__(torch.full((len(student_bytes),), -1), torch.full((len(teacher_bytes),), -1))
        index = torch.tensor(sorted(shared))
        self._forward[index], self._backward[index] = index, index
        self.student_stop = list(student.stop_ids)
        for s, t in stop_pairs(student, teacher):
            self._forward[s], self._backward[t] = t, s
        self._teacher_ids = self._forward.tolist()

    translate = staticmethod(aligned_rows)

    def align(self, student_ids: Sequence[Sequence[int]]) -> arkasr.Alignment:
        """Pair all positions: the teacher gets the student's own ids. See `arkasr.TokenMapper.align`."""
        import torch

        lengths = [len(ids) for ids in student_ids]
        rows = torch.arange(sum(lengths))
        teacher_ids = [
            [self._teacher_ids[self.student_stop[0] if i in self.student_stop else i] for i in ids]
            for ids in student_ids
        ]
        return arkasr.Alignment(teacher_ids, rows, rows, len(rows))


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mapper by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("identity", Identity, NoMapperOptions)

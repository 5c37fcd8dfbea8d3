"""The token mapper `byte_offsets`: compares student and teacher over bytes instead of tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr.builtin.mappers.byte_alignment import (
    AlignedPosition,
    ByteAlignment,
    Chain,
    ContinuationTable,
    Route,
    Transcript,
)
from arkasr.builtin.mappers.common import (
    IdTables,
    Reader,
    common_prefix,
    count_before_special,
    stop_pairs,
    valid_text,
)

if TYPE_CHECKING:
    from torch import Tensor

STEPS_BACK = 8  # earlier teacher rows whose tokens may reach past the position


@dataclass
class ByteOffsetsOptions:
    """Options of `byte_offsets`.

    Attributes:
        top_k: Tokens requested per position from a teacher whose view does not hold whole distributions. At least 1.
        min_mapped_mass: Minimum teacher probability mass that maps to student tokens, from 0 to 1. Positions below it
            are excluded. 0 excludes none for their mass.
    """

    top_k: int = 32
    min_mapped_mass: float = field(default=0.5, metadata={"formerly": "least_told"})

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise arkasr.UserError(f"config key `mapper.options.top_k` must be at least 1, got {self.top_k}")
        if not 0 <= self.min_mapped_mass <= 1:
            raise arkasr.UserError(
                f"config key `mapper.options.min_mapped_mass` must be between 0 and 1, got {self.min_mapped_mass}"
            )


class ByteOffsets(IdTables):
    """Compares student and teacher over bytes, at every student position.

    Student and teacher may split a text differently, for example into letters and into words. The teacher reads the
    student's text in its own tokens. Each of its distributions is then rewritten as one over student tokens.

    Algorithm:

    1. Tokenise the student's text with the teacher's tokenizer. The teacher scores these tokens and a stop token.
    2. Pair each student position with the last teacher token boundary at or before it. The bytes between the two are
       *pending*: the student has written them, the teacher has not yet read them.
    3. Keep the teacher tokens of the paired row that start with the pending bytes, and renormalise.
    4. Add tokens of up to 8 earlier rows that reach past the position, if the student would spell them as it wrote
       them. Divide the probability of each by that of the teacher tokens between the two rows. Renormalise.
    5. Move the mass of each teacher token to one student token: spell the teacher token in student tokens and take the
       one that comes next. If the student wrote its first bytes with other tokens, spell only the remaining bytes. A
       stop token goes to the student's stop token with the same string, or to its first stop token.
    6. If the student's token at the position covers several teacher tokens, add the product of their probabilities to
       it. Take that mass from the student token that begins the first of them.
    7. Exclude the position if the teacher gives less than 1e-6 to the pending bytes, or if less than `min_mapped_mass`
       of the mass goes to student tokens. All student tokens without mass get 1e-12, which means "known impossible".

    A space that the teacher's tokenizer adds before a text is not part of the text. The teacher's first token is read
    without it.

    Worked example. The student writes letters: S, E, V, E, N, stop. The teacher reads one word, SEVEN, and its stop.
    Row 0 of the teacher is SEVEN 0.5, SEVENTY 0.2, SIX 0.2, stop 0.1. Row 1 is stop 0.9, SIX 0.1.

    | student has written | teacher row | pending | teacher's distribution over student tokens |
    |---|---|---|---|
    | nothing | 0 | nothing | S 0.9, stop 0.1 |
    | S | 0 | S | E 7/9 (SEVEN, SEVENTY), I 2/9 (SIX) |
    | S E V E | 0 | SEVE | N 1 |
    | S E V E N | 1 | nothing | T 2/7 (TY of SEVENTY in row 0, step 4), stop 9/14, S 1/14 |

    In the last line SEVENTY has weight 0.2 / 0.5 = 0.4 beside row 1 with weight 1, so T gets 0.4 / 1.4 = 2/7.

    Exact:

    - equal tokenizers
    - student letters against teacher words, if the teacher spells the text in one way only and no mass is dropped

    Approximate:

    - A teacher token ends at the position, but the teacher read a longer one. What follows it is unknown, so its mass
      is dropped. Example: the student writes SEVENTY and the teacher reads SEVENTY. After S E V E N, the mass of the
      teacher token SEVEN is dropped.
    - The student spelled the bytes since an earlier row otherwise than its tokenizer does. The tokens of that row which
      reach past the position are then left out in step 4, and their mass counts as dropped. Example: a student with the
      token SEVEN writes S E V E N. After it, the mass of SEVENTY is dropped.
    - Positions are reached only through the tokens that the teacher read. Other teacher tokens for the same bytes are
      ignored.
    - A student token covers several teacher tokens, but was not written. Its mass is counted for the student token that
      begins the first of them.
    """

    def __init__(self, options: ByteOffsetsOptions, student: Any, teacher: Any):
        """Build the tables.

        Args:
            options: Options of the mapper.
            student: Anything with `tokenizer` and `stop_ids`.
            teacher: Anything with `tokenizer` and `stop_ids`.
        """
        import torch

        from arkasr.builtin.mappers.byte_tables import Continuations, Speller

        self.options, self.reader, speller = options, Reader(teacher.tokenizer), Speller(student.tokenizer)
        self.student_stop, self.teacher_stop = list(student.stop_ids), list(teacher.stop_ids)
        self.stop_pairs = dict.fromkeys(self.teacher_stop, self.student_stop[0])
        self.stop_pairs |= {t: s for s, t in stop_pairs(student, teacher)}
        self.student_bytes, self.tables = speller.bytes, Continuations(speller, self.reader.bytes)
        self._first_tokens = self._first_tokens_of(self.tables)
        self.mapped = torch.tensor([bool(b) for b in self.student_bytes])
        self.mapped[self.student_stop] = True
        # Translated views are over student tokens without special tokens except stops, so both tables are this one.
        super().__init__(*[torch.arange(len(self.mapped)).masked_fill(~self.mapped, -1)] * 2)

    def _first_tokens_of(self, tables: Any) -> Tensor:
        """Return the student token [V] that begins each teacher token."""
        first_tokens = tables.first_tokens(len(self.reader.bytes))
        first_tokens[[*self.stop_pairs]] = first_tokens.new_tensor([*self.stop_pairs.values()])
        return first_tokens

    @cached_property
    def _without_space(self) -> tuple[Any, ContinuationTable, ContinuationTable]:
        """The tables of the first row if the teacher's tokenizer added a space: teacher tokens without that space.

        Returned are all continuations, the whole row, and the whole row without the token that is the space alone.
        """
        import torch

        from arkasr.builtin.mappers.byte_tables import Continuations

        stripped = [text and text.removeprefix(b" ") for text in self.reader.bytes]
        tables = Continuations(self.tables.student, stripped)
        first_tokens = self._first_tokens_of(tables)
        others = torch.tensor([i for i, text in enumerate(stripped) if text != b""])
        whole_row = ContinuationTable(torch.arange(len(first_tokens)), first_tokens, others[:0])
        return tables, whole_row, ContinuationTable(others, first_tokens[others], others[:0])

    def translate(self, view: arkasr.DistributionView, alignment: ByteAlignment) -> arkasr.DistributionView:
        """Return the teacher's distributions over student tokens. See `arkasr.TokenMapper.translate`.

        Args:
            view: Teacher's view of all teacher positions.
            alignment: A result of `align`.

        Returns:
            A view of P positions. Its attribute `dropped`, float32 [P], is the mass that maps to no student token.
        """
        from arkasr.builtin.mappers.byte_views import ByteMass, all_logprobs, moved, spelled_view

        logprobs = all_logprobs(view, sum(map(len, alignment.teacher_ids)), self.options.top_k)
        mass = ByteMass(logprobs, alignment, self._first_tokens, len(self.student_bytes))
        return spelled_view(*mass.compute(), moved(self.mapped, logprobs.device), self.options.min_mapped_mass)

    def align(self, student_ids: Sequence[Sequence[int]]) -> ByteAlignment:
        """Tokenise each transcript for the teacher, with a stop token, and pair the student's positions.

        See `arkasr.TokenMapper.align`.
        """
        import torch

        teacher_ids, positions, mismatched = [], [], 0
        student_rows, teacher_rows, row_s, row_t = [], [], 0, 0
        for ids in student_ids:
            transcript, same = self._read(ids)
            for s, row, position in self._positions(transcript):
                student_rows.append(row_s + s)
                teacher_rows.append(row_t + row)
                positions.append(position)
            teacher_ids.append([*transcript.teacher_ids, self.teacher_stop[0]])
            mismatched += not same
            row_s, row_t = row_s + len(ids), row_t + len(transcript.teacher_ids) + 1
        return ByteAlignment(
            teacher_ids,
            torch.tensor(student_rows, dtype=torch.long),
            torch.tensor(teacher_rows, dtype=torch.long),
            row_s,
            mismatched,
            positions,
        )

    def _read(self, ids: Sequence[int]) -> tuple[Transcript, bool]:
        """Return one transcript, and whether the teacher reads the same text."""
        stopped = bool(ids) and ids[-1] in self.student_stop
        pieces = [self.student_bytes[i] or b"" for i in (ids[:-1] if stopped else ids)]
        data = b"".join(pieces)
        teacher_ids, teacher_pieces, num_usable, added_space = self.reader.read(valid_text(data)[1])
        agreed = common_prefix(data, b"".join(teacher_pieces))
        same = agreed == len(data) == sum(map(len, teacher_pieces))
        boundaries = [o for o in accumulate(map(len, teacher_pieces[:num_usable]), initial=0) if o <= agreed]
        starts = list(accumulate(map(len, pieces[: count_before_special(pieces)]), initial=0))[: len(ids)]
        return Transcript(ids, data, starts, teacher_ids, boundaries, agreed, added_space), same

    def _positions(self, transcript: Transcript) -> Iterator[tuple[int, int, AlignedPosition]]:
        """Yield (student position, teacher row, record) where both agree or some teacher token continues the bytes."""
        for s, offset in enumerate(transcript.starts):
            row = bisect_right(transcript.boundaries, offset) - 1
            pending = transcript.data[transcript.boundaries[row] : offset]
            if offset <= transcript.agreed or self._tables(transcript, row).has_longer(pending):
                own = self._own_table(transcript, s, row, pending)
                routes = [Route(0, own)] if own else []
                routes += self._earlier_routes(transcript, s, offset, row, bool(pending))
                yield s, row, AlignedPosition(pending, routes, self._chain(transcript, s, offset, row, own))

    def _tables(self, transcript: Transcript, row: int) -> Any:
        return self._without_space[0] if transcript.added_space and row == 0 else self.tables

    def _own_table(self, transcript: Transcript, s: int, row: int, pending: bytes) -> ContinuationTable | None:
        """Return the tokens of the paired row, or None if the whole row counts unchanged."""
        if pending:
            return self._tables(transcript, row).table(pending, transcript.written_since(row, s), False, True)
        return self._without_space[1] if transcript.added_space and row == 0 else None

    def _earlier_routes(self, transcript: Transcript, s: int, offset: int, row: int, ends: bool) -> Iterator[Route]:
        """Yield the routes that start at earlier rows."""
        for earlier in range(row - 1, max(row - 1 - STEPS_BACK, -1), -1):
            start = transcript.data[transcript.boundaries[earlier] : offset]
            written = transcript.written_since(earlier, s)
            tables = self._tables(transcript, earlier)
            if written is not None and len(tables.starting_with(start)):
                # start is empty only if one token is just the added space
                table = tables.table(start, written, True, ends) if start else self._without_space[2]
                if len(table.teacher) or len(table.ignored):
                    yield Route(row - earlier, table)

    def _chain(
        self, transcript: Transcript, s: int, offset: int, row: int, own: ContinuationTable | None
    ) -> Chain | None:
        """Return the chain of the visited token, or None if one teacher token covers it."""
        visited = transcript.ids[s]
        end = offset + len(self.student_bytes[visited] or b"")
        last = bisect_left(transcript.boundaries, end) - 1
        if last <= row:
            return None
        token = transcript.teacher_ids[row]
        first = self._first_tokens[token] if own is None else own.student[own.teacher == token][0]
        ending = self.tables.starting_with(transcript.data[transcript.boundaries[last] : end])
        return Chain(visited, int(first), last - row, ending)


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mapper by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("byte_offsets", ByteOffsets, ByteOffsetsOptions)

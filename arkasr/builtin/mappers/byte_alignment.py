"""The records of `byte_offsets`: where student and teacher are in one text, and which teacher tokens lead on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ContinuationTable:
    """Teacher tokens that agree with what the student wrote since a teacher row.

    Attributes:
        teacher: Tensor [N], int64, teacher tokens.
        student: Tensor [N], int64, the student token that comes next in each, or -1 if it is not known.
        ignored: Tensor [M], int64, teacher tokens that agree too, but are left out because the student spelled the
            bytes otherwise than its tokenizer does.
    """

    teacher: Tensor
    student: Tensor
    ignored: Tensor


class Route(NamedTuple):
    """Teacher tokens that start at one teacher row and reach a student position or go past it.

    Attributes:
        rows_back: Number of rows between the row where the tokens start and the position's own row.
        table: The tokens.
    """

    rows_back: int
    table: ContinuationTable


@dataclass
class Chain:
    """A visited student token that covers several teacher tokens.

    Attributes:
        visited: The student token.
        first: The student token that begins the first of the teacher tokens.
        steps: Number of teacher tokens before the last one.
        ending: Tensor [N], int64, teacher tokens that may be the last one.
    """

    visited: int
    first: int
    steps: int
    ending: Tensor


@dataclass
class AlignedPosition:
    """One student position that is paired with a teacher row.

    Attributes:
        pending: Bytes that the student has written since the boundary of the teacher row.
        routes: Teacher tokens that cross or reach the position.
        chain: The visited token if it covers several teacher tokens, else None.
    """

    pending: bytes
    routes: list[Route]
    chain: Chain | None

    @property
    def uses_whole_row(self) -> bool:
        """Whether all tokens of the position's own row count. No route then starts at this row."""
        return all(route.rows_back > 0 for route in self.routes)


@dataclass
class ByteAlignment(arkasr.Alignment):
    """An alignment in which the student may be ahead of the teacher by some pending bytes.

    Attributes:
        positions: The P aligned positions, in the order of `student_rows`.
    """

    positions: list[AlignedPosition] = field(default_factory=list)

    @property
    def pending(self) -> list[bytes]:
        """The pending bytes of each aligned position."""
        return [position.pending for position in self.positions]


@dataclass
class Transcript:
    """One transcript as student and teacher read it.

    Attributes:
        ids: The student's token ids.
        data: The bytes of the transcript.
        starts: Byte offset of each student position.
        teacher_ids: The teacher's token ids.
        boundaries: Byte offset of each teacher row.
        agreed: Number of leading bytes that both read.
        added_space: Whether the teacher's tokenizer added a space before the text. No offset counts it.
    """

    ids: Sequence[int]
    data: bytes
    starts: list[int]
    teacher_ids: list[int]
    boundaries: list[int]
    agreed: int
    added_space: bool

    def __post_init__(self) -> None:
        self._position_at: dict[int, int] = {offset: s for s, offset in reversed(list(enumerate(self.starts)))}

    def written_since(self, row: int, s: int) -> tuple[int, ...] | None:
        """Return the student tokens between a teacher row and a student position.

        Args:
            row: Teacher row.
            s: Student position.

        Returns:
            The tokens, or None if the boundary of the row is inside a student token.
        """
        start = self._position_at.get(self.boundaries[row])
        return None if start is None else tuple(self.ids[start:s])

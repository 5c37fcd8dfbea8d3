"""The token mapper that compares what teacher and student say next in bytes, not in tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr.builtin.mappers.common import Reader, Tables, common_prefix, count_spoken, stop_pairs, valid_text

if TYPE_CHECKING:
    from torch import Tensor

STEPS_BACK = 8  # teacher tokens before a position within which another one may have begun that reaches past it


@dataclass
class ByteOffsetsOptions:
    """top_k: tokens asked of a teacher that does not hold whole distributions; least_told: share of the teacher's mass
    that student tokens must tell for a position to count.
    """

    top_k: int = 32
    least_told: float = 0.5


@dataclass
class Chain:
    """A visited student token that `steps` teacher tokens and one of `ending` [N] spell; `first` begins the first."""

    visited: int
    first: int
    steps: int
    ending: Tensor


@dataclass
class Place:
    """A student position: bytes read since its teacher row, and `ways`, (rows back, table) of tokens that cross it.

    Where no table is of the row itself (`bare`), that counts as it stands.
    """

    partial: bytes
    ways: list[tuple[int, Any]]
    chain: Chain | None

    @property
    def bare(self) -> bool:
        """Tell whether the position's own row counts as it stands."""
        return all(back > 0 for back, _ in self.ways)


@dataclass
class ByteAlignment(arkasr.Alignment):
    """An alignment whose pairs have read the same text but for `partials`: bytes that the student alone has read."""

    places: list[Place] = field(default_factory=list)

    @property
    def partials(self) -> list[bytes]:
        """The bytes of each pair that only the student has read."""
        return [place.partial for place in self.places]


@dataclass
class _Reading:
    """One transcript: student ids and their byte offsets; the teacher's ids and the offsets of its rows.

    spaced: the teacher's first row expects a text after a space of its tokenizer's own, which no offset counts.
    """

    ids: Sequence[int]
    data: bytes
    starts: list[int]
    new: list[int]
    borders: list[int]
    agreed: int
    spaced: bool

    def __post_init__(self):
        self.at = {offset: s for s, offset in reversed(list(enumerate(self.starts)))}

    def read(self, row: int, s: int) -> tuple[int, ...] | None:
        """Return the student tokens between a teacher row and position s; None where the row is inside a token."""
        start = self.at.get(self.borders[row])
        return None if start is None else tuple(self.ids[start:s])


class ByteOffsets(Tables):
    """Compares distributions over bytes: the teacher's, told in the student's tokens, at every position.

    The teacher reads the student's text in its own tokens. A student position is paired with the last border of these
    at or before it. Of the teacher's tokens there, those count that begin with the bytes read since and go on; the
    mass of each goes to the student token that comes next in the student's own spelling of it, a stop's to the
    student's stop of the same string, else to its first. Weighed with them are tokens that begin up to 8 teacher tokens
    earlier and reach past the position, where the student would spell them as it did: after SEVEN, the teacher's
    SEVENTY says TY. A visited student token that takes several teacher tokens gets their chained probability, out of
    the mass of the token that begins the first. A space that the teacher's tokenizer itself puts before a text is not
    part of it: the teacher's first tokens are told without it.

    Exact: equal tokenizers; single letters against words, as far as the teacher spells a text in one way and nothing
    is dropped. Approximate: how a teacher token goes on that ends at the position, inside the token that the teacher
    read, is not known, and its mass is dropped; ways to the position through other teacher tokens are left out; a
    student token that takes several teacher tokens and was not visited counts as the token that begins the first. A
    position does not count where the teacher expects the partial bytes with less than 1e-6, or where student tokens
    tell less than `least_told` of its mass. Tokens ruled out get a probability of 1e-12: known to be impossible.
    """

    def __init__(self, options: ByteOffsetsOptions, student: Any, teacher: Any):
        """student, teacher: anything with `tokenizer` and `stop_ids`. Raises UserError for an option out of range."""
        import torch

        from arkasr.builtin.mappers.byte_tables import Continuations, Speller

        if options.top_k < 1 or not 0 <= options.least_told <= 1:
            given = f"top_k={options.top_k}, least_told={options.least_told}"
            raise arkasr.UserError(f"mapper.options: top_k must be above 0 and least_told within 0 and 1, not {given}")
        self.options, self.reader, speller = options, Reader(teacher.tokenizer), Speller(student.tokenizer)
        self.student_stop, self.teacher_stop = list(student.stop_ids), list(teacher.stop_ids)
        self.stop_pairs = dict.fromkeys(self.teacher_stop, self.student_stop[0])
        self.stop_pairs |= {t: s for s, t in stop_pairs(student, teacher)}
        self.student_bytes, self.tables = speller.bytes, Continuations(speller, self.reader.bytes)
        self._firsts = self._begun(self.tables)
        self.spoken = torch.tensor([bool(b) for b in self.student_bytes])
        self.spoken[self.student_stop] = True
        # translated views speak the student's tokens, special ones but the stops apart: both tables are this one
        super().__init__(*[torch.arange(len(self.spoken)).masked_fill(~self.spoken, -1)] * 2)

    def _begun(self, tables: Any) -> Tensor:
        """Return the student token [V] that begins each of the teacher's tokens, as the tables spell them."""
        firsts = tables.firsts(len(self.reader.bytes))
        firsts[[*self.stop_pairs]] = firsts.new_tensor([*self.stop_pairs.values()])
        return firsts

    @cached_property
    def _opening(self) -> tuple[Any, Any, Any]:
        """Return what a text may begin with after a space of the teacher's tokenizer's own, without that space.

        These are the tables of it, a table of the whole first row, and one of it without the space alone.
        """
        import torch

        from arkasr.builtin.mappers.byte_tables import Continuations, Table

        opened = [text and text.removeprefix(b" ") for text in self.reader.bytes]
        tables = Continuations(self.tables.student, opened)
        firsts = self._begun(tables)
        others = torch.tensor([i for i, text in enumerate(opened) if text != b""])
        return tables, Table(torch.arange(len(firsts)), firsts), Table(others, firsts[others])

    def translate(self, view: arkasr.DistributionView, alignment: ByteAlignment) -> arkasr.DistributionView:
        """Return the teacher's distributions over the student's tokens, with `dropped` (float32 [P])."""
        from arkasr.builtin.mappers.byte_views import Telling, spelled_view, whole

        logprobs = whole(view, sum(map(len, alignment.teacher_ids)), self.options.top_k)
        mass, told = Telling(logprobs, alignment, self._firsts, len(self.student_bytes)).told()
        return spelled_view(mass, told, self.spoken.to(told.device), self.options.least_told)

    def align(self, student_ids: Sequence[Sequence[int]]) -> ByteAlignment:
        """Tokenise each transcript anew for the teacher, a stop after it, and pair the positions that it can follow."""
        import torch

        made, student_rows, teacher_rows, row_s, row_t = ByteAlignment([], None, None, 0), [], [], 0, 0
        for ids in student_ids:
            reading, same = self._reading(ids)
            for s, row, place in self._places(reading):
                student_rows.append(row_s + s)
                teacher_rows.append(row_t + row)
                made.places.append(place)
            made.teacher_ids.append([*reading.new, self.teacher_stop[0]])
            made.num_mismatched += not same
            row_s, row_t = row_s + len(ids), row_t + len(reading.new) + 1
        made.num_student = row_s
        made.student_rows = torch.tensor(student_rows, dtype=torch.long)
        made.teacher_rows = torch.tensor(teacher_rows, dtype=torch.long)
        return made

    def _reading(self, ids: Sequence[int]) -> tuple[_Reading, bool]:
        stopped = bool(ids) and ids[-1] in self.student_stop
        pieces = [self.student_bytes[i] or b"" for i in (ids[:-1] if stopped else ids)]
        data = b"".join(pieces)
        new, theirs, spoken, spaced = self.reader.read(valid_text(data)[1])
        agreed = common_prefix(data, b"".join(theirs))
        same = agreed == len(data) == sum(map(len, theirs))
        borders = [o for o in accumulate(map(len, theirs[:spoken]), initial=0) if o <= agreed]
        starts = list(accumulate(map(len, pieces[: count_spoken(pieces)]), initial=0))[: len(ids)]
        return _Reading(ids, data, starts, new, borders, agreed, spaced), same

    def _places(self, reading: _Reading):
        """Yield (student position, teacher row, place) where all was agreed on, or some teacher token goes on."""
        for s, offset in enumerate(reading.starts):
            row = bisect_right(reading.borders, offset) - 1
            partial = reading.data[reading.borders[row] : offset]
            if offset <= reading.agreed or self._tables(reading, row).goes_on(partial):
                own = self._own(reading, s, row, partial)
                ways = [(0, own)] if own else []
                ways += self._earlier(reading, s, offset, row, bool(partial))
                yield s, row, Place(partial, ways, self._chain(reading, s, offset, row, own))

    def _tables(self, reading: _Reading, row: int) -> Any:
        return self._opening[0] if reading.spaced and row == 0 else self.tables

    def _own(self, reading: _Reading, s: int, row: int, partial: bytes) -> Any:
        """Return the table of a position's own row, None where this counts as it stands."""
        if partial:
            return self._tables(reading, row).table(partial, reading.read(row, s), False, True)
        return self._opening[1] if reading.spaced and row == 0 else None

    def _earlier(self, reading: _Reading, s: int, offset: int, row: int, ends: bool):
        """Yield the ways that begin at earlier rows."""
        for earlier in range(row - 1, max(row - 1 - STEPS_BACK, -1), -1):
            start, read = reading.data[reading.borders[earlier] : offset], reading.read(earlier, s)
            tables = self._tables(reading, earlier)
            if read is not None and tables.goes_on(start):
                # nothing was read since only where the teacher's tokenizer made its space a token
                table = tables.table(start, read, True, ends) if start else self._opening[2]
                if len(table.teacher):
                    yield row - earlier, table

    def _chain(self, reading: _Reading, s: int, offset: int, row: int, own: Any) -> Chain | None:
        """Return the chain of the visited token, None where one teacher token reaches its end."""
        visited = reading.ids[s]
        end = offset + len(self.student_bytes[visited] or b"")
        last = bisect_left(reading.borders, end) - 1
        if last <= row:
            return None
        token = reading.new[row]
        first = self._firsts[token] if own is None else own.student[own.teacher == token][0]
        return Chain(visited, int(first), last - row, self.tables.beginning(reading.data[reading.borders[last] : end]))


@arkasr.hookimpl
def register_token_mappers(register):
    """Register the mapper by name."""
    register("byte_offsets", ByteOffsets, ByteOffsetsOptions)

"""How a student spells bytes, and which teacher tokens continue given bytes: the tables of `byte_offsets`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import arkasr
from arkasr.builtin.mappers.common import valid_text

CACHED = 1 << 14


class Speller:
    """A tokenizer's own tokenisation of any bytes, where a tokenizer takes whole UTF-8 only."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.bytes = tokenizer, arkasr.token_bytes(tokenizer)
        self.piece_of = {b: i for i, b in enumerate(self.bytes) if b}
        self.longest = max(map(len, self.piece_of))

    def spell(self, texts: Sequence[bytes]) -> list[tuple[int, ...]]:
        """Spell each text: the one token that is it, else its tokenisation, by longest match where that does not exist.

        No tokenisation exists for bytes after the last whole character and where reading back gives other bytes
        (`<unk>`, a normaliser). A spelling ends at the first byte that no token begins with.
        """
        whole = [valid_text(text)[1] for text in texts]
        new = self.tokenizer(whole, add_special_tokens=False)["input_ids"] if whole else []
        return [self._spell_one(text, head.encode(), ids) for text, head, ids in zip(texts, whole, new)]

    def _spell_one(self, text: bytes, head: bytes, ids: Sequence[int]) -> tuple[int, ...]:
        if text in self.piece_of:
            return (self.piece_of[text],)
        if b"".join(self.bytes[i] or b"" for i in ids) != head:
            return self._match(text)
        return (*ids, *self._match(text[len(head) :]))

    def _match(self, text: bytes) -> tuple[int, ...]:
        ids, at = [], 0
        while at < len(text):
            sizes = range(min(self.longest, len(text) - at), 0, -1)
            size = next((n for n in sizes if text[at : at + n] in self.piece_of), 0)
            if not size:
                break
            ids.append(self.piece_of[text[at : at + size]])
            at += size
        return tuple(ids)


@dataclass
class Table:
    """Teacher tokens [N] that agree with what was read; the student token [N] next in each, -1 where not known."""

    teacher: Tensor
    student: Tensor


class Continuations:
    """Which teacher tokens go on from given bytes, and how the student goes on in them."""

    def __init__(self, student: Speller, teacher_bytes: Sequence[bytes | None]):
        self.student = student
        order = sorted((b, i) for i, b in enumerate(teacher_bytes) if b)
        self.keys, self.ids = [b for b, _ in order], torch.tensor([i for _, i in order])
        self.spelt = student.spell(self.keys)
        self.longest = max(map(len, self.keys))
        self.table, self.first_of = lru_cache(CACHED)(self._table), lru_cache(CACHED)(self._first_of)

    def span(self, start: bytes) -> tuple[int, int]:
        """Return where among the sorted tokens those stand that begin with `start`."""
        low = bisect_left(self.keys, start)
        trimmed = start.rstrip(b"\xff")
        above = trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b""
        return low, bisect_left(self.keys, above, lo=low) if above else len(self.keys)

    def beginning(self, start: bytes) -> Tensor:
        """Return the teacher's tokens that begin with `start`, itself too."""
        return self.ids[slice(*self.span(start))]

    def goes_on(self, start: bytes) -> bool:
        """Tell whether any teacher token begins with `start` and is longer."""
        low, high = self.span(start)
        return high > low and len(self.keys[high - 1]) > len(start)

    def firsts(self, size: int) -> Tensor:
        """Return the student token [size] that begins each teacher token; -1 where there is none."""
        table = torch.full((size,), -1)
        table[self.ids] = torch.tensor([ids[0] if ids else -1 for ids in self.spelt])
        return table

    def _first_of(self, text: bytes) -> int:
        [ids] = self.student.spell([text])
        return ids[0] if ids else -1

    def _table(self, start: bytes, read: tuple[int, ...] | None, strict: bool, ends: bool) -> Table:
        """List teacher tokens that begin with `start`, which the student spelt as `read` (None: not at token borders).

        strict: only those that the student spells beginning with `read`. ends: list the token that is `start` itself
        too; what comes after it is not known.
        """
        low, high = self.span(start)
        kept, rest, nexts = [], [], []
        for at in range(low, high):
            text, ids = self.keys[at], self.spelt[at]
            agrees = read is not None and ids[: len(read)] == read
            if (strict and not agrees) or (text == start and not ends):
                continue
            told = text == start or (agrees and len(ids) > len(read))
            kept.append(at)
            nexts.append(ids[len(read)] if told and text != start else -1)
            rest.append(b"" if told else text[len(start) :])
        spelt = self.student.spell([text for text in rest if text])
        firsts = iter(ids[0] if ids else -1 for ids in spelt)
        nexts = [next(firsts) if text else i for i, text in zip(nexts, rest)]
        return Table(self.ids[kept], torch.tensor(nexts, dtype=torch.long))

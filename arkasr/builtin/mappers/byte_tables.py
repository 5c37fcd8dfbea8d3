"""How the student spells bytes, and which teacher tokens continue given bytes: the tables of `byte_offsets`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import arkasr
from arkasr.builtin.mappers.byte_alignment import ContinuationTable
from arkasr.builtin.mappers.common import valid_text

CACHED = 1 << 14


class Speller:
    """Spells any bytes in the tokens of a tokenizer. The tokenizer itself accepts valid UTF-8 only.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.bytes = tokenizer, arkasr.token_bytes(tokenizer)
        self.piece_of = {b: i for i, b in enumerate(self.bytes) if b}
        self.longest = max(map(len, self.piece_of))

    def spell(self, texts: Sequence[bytes]) -> list[tuple[int, ...]]:
        """Spell each text in tokens.

        1. If one token has exactly these bytes, it is the spelling.
        2. Otherwise the spelling is the tokenizer's own.
        3. Bytes after the last whole character are spelled by longest match. So is the whole text if the tokenizer's
           own spelling has other bytes, for example because of `<unk>` or a text normalizer.

        A longest match ends at the first byte with which no token begins.

        Args:
            texts: Any bytes.

        Returns:
            The token ids of each text.
        """
        whole = [valid_text(text)[1] for text in texts]
        spelled = self.tokenizer(whole, add_special_tokens=False)["input_ids"] if whole else []
        return [self._spell_one(text, head.encode(), ids) for text, head, ids in zip(texts, whole, spelled)]

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


class Continuations:
    """Finds the teacher tokens that begin with given bytes, and the student token that comes next in each.

    Args:
        student: Speller of the student's tokenizer.
        teacher_bytes: The bytes of each teacher token, None or b"" for a token without bytes.
    """

    def __init__(self, student: Speller, teacher_bytes: Sequence[bytes | None]):
        self.student = student
        order = sorted((b, i) for i, b in enumerate(teacher_bytes) if b)
        self.keys, self.ids = [b for b, _ in order], torch.tensor([i for _, i in order])
        self.spellings = student.spell(self.keys)
        self.table = lru_cache(CACHED)(self._table)

    def prefix_range(self, start: bytes) -> tuple[int, int]:
        """Find the tokens that begin with given bytes.

        Args:
            start: Any bytes.

        Returns:
            First and last + 1 index of these tokens in `keys` and `ids`, which are sorted by bytes.
        """
        low = bisect_left(self.keys, start)
        trimmed = start.rstrip(b"\xff")
        above = trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b""
        return low, bisect_left(self.keys, above, lo=low) if above else len(self.keys)

    def starting_with(self, start: bytes) -> Tensor:
        """Return the teacher tokens that begin with given bytes or equal them.

        Args:
            start: Any bytes.

        Returns:
            Tensor [N], int64.
        """
        return self.ids[slice(*self.prefix_range(start))]

    def has_longer(self, start: bytes) -> bool:
        """Return whether some teacher token begins with given bytes and is longer.

        Args:
            start: Any bytes.

        Returns:
            True if there is one.
        """
        low, high = self.prefix_range(start)
        return high > low and len(self.keys[high - 1]) > len(start)

    def first_tokens(self, size: int) -> Tensor:
        """Return the student token that begins each teacher token.

        Args:
            size: Number of teacher tokens.

        Returns:
            Tensor [size], int64, -1 for teacher tokens without bytes or spelling.
        """
        table = torch.full((size,), -1)
        table[self.ids] = torch.tensor([ids[0] if ids else -1 for ids in self.spellings])
        return table

    def _table(self, start: bytes, written: tuple[int, ...] | None, strict: bool, ends: bool) -> ContinuationTable:
        """Return the teacher tokens that begin with `start`. `table` caches the results.

        Args:
            start: The bytes since the teacher row.
            written: The student tokens that spell `start`, or None if it does not begin at a student token.
            strict: Keep only teacher tokens whose student spelling begins with `written`. If `written` is not the
                usual spelling of `start`, the others are listed as ignored. Otherwise the student would have begun
                them with other tokens, so they do not lead here.
            ends: Keep the teacher token that equals `start` too. The student token after it is not known.
        """
        low, high = self.prefix_range(start)
        size = len(written or ())
        usual = not strict or self.student.spell([start])[0] == written
        kept, rest, nexts, ignored = [], [], [], []
        for at in range(low, high):
            text, ids = self.keys[at], self.spellings[at]
            agrees = written is not None and ids[:size] == written
            if strict and not agrees and not usual and text != start:
                ignored.append(at)
            if (strict and not agrees) or (text == start and not ends):
                continue
            known = text != start and agrees and len(ids) > size
            kept.append(at)
            nexts.append(ids[size] if known else -1)
            rest.append(b"" if known or text == start else text[len(start) :])
        spellings = self.student.spell([text for text in rest if text])
        firsts = iter(ids[0] if ids else -1 for ids in spellings)
        nexts = [next(firsts) if text else i for i, text in zip(nexts, rest)]
        return ContinuationTable(self.ids[kept], torch.tensor(nexts, dtype=torch.long), self.ids[ignored])

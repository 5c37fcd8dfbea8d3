"""Parts shared by the token mappers: id tables, and texts as the teacher's tokenizer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoMapperOptions:
    """This mapper has no options."""


def aligned_rows(view: arkasr.DistributionView, alignment: arkasr.Alignment) -> arkasr.DistributionView:
    """Return the teacher's own distributions at the aligned positions. See `arkasr.TokenMapper.translate`."""
    return view.at(alignment.teacher_rows)


class IdTables:
    """Maps token ids with two tables. A table is copied once to each device on which it is used.

    Args:
        forward: Tensor [V_S], int64, the teacher's id of each student id, or -1.
        backward: Tensor [V_T], int64, the student's id of each teacher id, or -1.
    """

    def __init__(self, forward: Tensor, backward: Tensor):
        self._forward, self._backward = forward, backward
        self._copies: dict[tuple[str, Any], Tensor] = {}

    def to_teacher(self, student_ids: Tensor) -> Tensor:
        """See `arkasr.TokenMapper.to_teacher`."""
        return self._look_up("_forward", student_ids)

    def to_student(self, teacher_ids: Tensor) -> Tensor:
        """See `arkasr.TokenMapper.to_student`."""
        return self._look_up("_backward", teacher_ids)

    def _look_up(self, name: str, ids: Tensor) -> Tensor:
        key = name, ids.device
        if key not in self._copies:
            self._copies[key] = getattr(self, name).to(ids.device)
        table = self._copies[key]
        known = (ids >= 0) & (ids < len(table))
        return table[ids.clamp(0, len(table) - 1)].masked_fill(~known, -1)


class TeacherText(NamedTuple):
    """A text as the teacher's tokenizer reads it.

    Attributes:
        ids: Token ids.
        pieces: The bytes of each token, without the added space. b"" for a token that has no bytes.
        num_usable: Number of tokens before the first special token, which has no bytes. The tokenizer reads one if the
            text spells it out. The teacher's distributions after it belong to another text.
        added_space: Whether the tokenizer added a space before the text.
    """

    ids: list[int]
    pieces: list[bytes]
    num_usable: int
    added_space: bool


class Reader:
    """Reads texts with a tokenizer, and detects whether the tokenizer adds a space before every text without one.

    This option is called `add_dummy_prefix` in SentencePiece, and `prepend_scheme` or `add_prefix_space` in tokenizers.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.bytes, self.adds_space = tokenizer, arkasr.token_bytes(tokenizer), False
        self.adds_space = b"".join(self.read("a").pieces).startswith(b" ")

    def read(self, text: str) -> TeacherText:
        """Tokenise a text.

        Args:
            text: Any text.

        Returns:
            The token ids and their bytes.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        pieces = [self.bytes[i] or b"" for i in ids]
        num_usable, added_space = count_before_special(pieces), self.adds_space and not text.startswith(" ")
        if added_space and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        return TeacherText(ids, pieces, num_usable, added_space)


def count_before_special(pieces: Sequence[bytes]) -> int:
    """Count the tokens before the first token that has no bytes.

    Args:
        pieces: The bytes of each token, b"" for a special token.

    Returns:
        The number of tokens, `len(pieces)` if all have bytes.
    """
    return next((n for n, piece in enumerate(pieces) if not piece), len(pieces))


def stop_pairs(student: Any, teacher: Any) -> list[tuple[int, int]]:
    """Pair the stop ids of student and teacher.

    The first stop ids always form a pair. Further stop ids form a pair if their strings are equal.

    Args:
        student: Anything with `tokenizer` and `stop_ids`.
        teacher: Anything with `tokenizer` and `stop_ids`.

    Returns:
        Pairs (student id, teacher id).
    """
    of_student, of_teacher = (
        {side.tokenizer.convert_ids_to_tokens(i): i for i in side.stop_ids if i != side.stop_ids[0]}
        for side in (student, teacher)
    )
    first = student.stop_ids[0], teacher.stop_ids[0]
    return [first, *((i, of_teacher[name]) for name, i in of_student.items() if name in of_teacher)]


def valid_text(data: bytes) -> tuple[bool, str]:
    """Decode the longest prefix that is valid UTF-8. A rollout may end inside a character.

    Args:
        data: Any bytes.

    Returns:
        Whether all bytes are valid, and the text of the valid prefix.
    """
    try:
        return True, data.decode()
    except UnicodeDecodeError as error:
        return False, data[: error.start].decode()


def common_prefix(a: bytes, b: bytes) -> int:
    """Return the length of the common prefix.

    Args:
        a: Any bytes.
        b: Any bytes.

    Returns:
        The number of bytes.
    """
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

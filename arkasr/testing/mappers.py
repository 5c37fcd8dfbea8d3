"""Check that an object conforms to `arkasr.TokenMapper` and returns conforming `arkasr.Alignment` objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from arkasr.distributions.views import DenseView
from arkasr.interfaces import Alignment, TokenMapper
from arkasr.testing.alignments import (
    check_alignment,
    check_coverage,
    check_mismatches,
    check_repeatable,
    check_stops,
    check_text_before_pairs,
)
from arkasr.testing.require import attempt, describe, distance, is_tensor, requirer
from arkasr.testing.rollouts import TEXTS, Vocabulary, make_rollouts, vocabulary
from arkasr.testing.views import check_view

require = requirer("check_token_mapper")


def check_token_mapper(
    mapper: TokenMapper,
    student: Any,
    teacher: Any,
    texts: Sequence[str] = TEXTS,
    same_bytes: bool = True,
    translates_to: Any = None,
) -> None:
    """Check that a token mapper conforms to `arkasr.TokenMapper`.

    The mapper aligns each text as a rollout that stopped, one cut at the token cap and one cut inside a character,
    and a rollout that is only a stop token. The check covers:

    - `to_student` and `to_teacher` are one to one, keep the shape and return int64. They return -1 for ids outside the
      vocabulary or without a counterpart, and map the first stop ids to each other.
    - `align` is deterministic, and returns the same for one clip and for a batch that contains it. Paired rows are in
      range, in the same clip and strictly increasing. Each clip has a teacher token, and the stop of a text is paired.
    - `translate` returns the teacher's distributions at the P aligned positions, also for P = 0.
    - With `same_bytes`: Mapped tokens have the same bytes, and so have the texts before paired rows. At least half of
      the positions are paired in texts that both tokenizers split alike. `num_mismatched` counts the clips whose
      teacher tokens are another text.

    Args:
        mapper: The mapper.
        student: The student that the mapper was built for: any object with a fast `tokenizer` and `stop_ids`.
        teacher: The teacher that the mapper was built for, likewise.
        texts: Texts of the rollouts.
        same_bytes: Set it to False for a mapper that maps tokens with different bytes on purpose.
        translates_to: The owner of the vocabulary of the views that `translate` returns, such as the student: any
            object with `tokenizer` and `stop_ids`. None: the teacher. If set, a teacher row may be paired several
            times, and the text before it may be a prefix of the student's.

    Raises:
        AssertionError: The first promise that the mapper breaks.
    """
    members = "align, to_student, to_teacher, translate"
    require(isinstance(mapper, TokenMapper), f"{describe(mapper)} lacks at least one of {members}")
    student_vocab, teacher_vocab = vocabulary(student), vocabulary(teacher)
    target = teacher_vocab if translates_to is None else vocabulary(translates_to)
    _check_map("to_teacher", mapper.to_teacher, mapper.to_student, student_vocab, target, same_bytes)
    _check_map("to_student", mapper.to_student, mapper.to_teacher, target, student_vocab, same_bytes)
    rollouts = make_rollouts(student_vocab, texts)
    alignment = _align(mapper, [ids for ids, _ in rollouts])
    check_alignment(alignment, rollouts, teacher_vocab, strictly=translates_to is None)
    if same_bytes:
        check_text_before_pairs(alignment, rollouts, student_vocab, teacher_vocab, equal=translates_to is None)
    check_stops(alignment, rollouts, student_vocab, teacher_vocab)
    target_size = None if translates_to is None else len(target.token_bytes)
    _check_translation(mapper, alignment, len(teacher_vocab.token_bytes), target_size)
    again, *singles = (_align(mapper, batch) for batch in ([i for i, _ in rollouts], *([i] for i, _ in rollouts)))
    check_repeatable(alignment, again, singles, rollouts)
    if same_bytes:
        check_coverage(alignment, rollouts, student_vocab, teacher_vocab)
        check_mismatches(singles, rollouts, student_vocab, teacher_vocab)


IdMap = Callable[[Tensor], Tensor]


def _check_map(name: str, forward: IdMap, inverse: IdMap, source: Vocabulary, target: Vocabulary, same: bool) -> None:
    """Check the map `forward` from `source` to `target` (`same`: mapped tokens must have the same bytes)."""
    ids, size = torch.arange(len(source.token_bytes)), len(target.token_bytes)
    mapped = _mapped(name, forward, ids)
    known = mapped >= 0
    in_range = bool((mapped >= -1).all()) and bool((mapped < size).all())
    require(in_range, f"{name} returns ids out of range; they must be from -1 to {size - 1}")
    outside = torch.cat([-1 - ids, len(ids) + ids[:3], torch.tensor([2**31])])
    wrong = outside[_mapped(name, forward, outside) != -1].tolist()
    require(not wrong, f"{name} maps ids outside the vocabulary, such as {wrong[:3]}; it must return -1 for them")
    stop, expected = source.stop_ids[0], target.stop_ids[0]
    found = int(mapped[stop])
    require(found == expected, f"{name} maps stop id {stop} to {found}; it must map it to stop id {expected}")
    back = _mapped(name, inverse, mapped[known])
    require(torch.equal(back, ids[known]), f"{name} is not one to one; the other map must lead back to each mapped id")
    for a, b in zip(ids[known].tolist(), mapped[known].tolist()) if same else ():
        pair = source.token_bytes[a], target.token_bytes[b]
        tokens = f"id {a} ({pair[0]!r}) to id {b} ({pair[1]!r})"
        require(None in pair or pair[0] == pair[1], f"{name} maps {tokens}; mapped tokens must have the same bytes")
    require(int(known.sum()) > 1, f"{name} maps only the stop token; it must map the tokens that both sides share")


def _mapped(name: str, function: IdMap, ids: Tensor) -> Tensor:
    """Map ids in a vector, in a table and in an empty table, and check that the shape is kept."""
    with attempt("check_token_mapper", f"{name} for ids {describe(ids)}"):
        shapes: list[tuple[int, ...]] = [tuple(ids.shape), (1, -1, 1)]
        results = [(shape, function(ids.reshape(shape))) for shape in shapes]
        results.append(((0, 3), function(torch.zeros(0, 3, dtype=torch.long))))
    for shape, mapped in results:
        want = list(ids.reshape(shape).shape) if 0 not in shape else [0, 3]
        require(
            is_tensor(mapped, torch.int64, *want), f"{name} returns {describe(mapped)}; it must return int64 {want}"
        )
    return results[0][1]


def _align(mapper: TokenMapper, ids: list[list[int]]) -> Alignment:
    copies = [list(i) for i in ids]
    with attempt("check_token_mapper", f"align for {len(ids)} rollouts (stopped, cut, cut inside a character)"):
        alignment = mapper.align(copies)
    require(copies == ids, "align changes the token ids that it receives; it must leave its arguments unchanged")
    right_type = isinstance(alignment, Alignment)
    require(right_type, f"align returns {describe(alignment)}; it must return an arkasr.Alignment")
    return alignment


def _check_translation(mapper: TokenMapper, alignment: Alignment, size: int, target_size: int | None) -> None:
    """Check `translate`, whose vocabulary has `target_size` tokens (None: the teacher's vocabulary, of size `size`)."""
    generator = torch.Generator().manual_seed(0)
    scores = DenseView(torch.randn(sum(map(len, alignment.teacher_ids)), size, generator=generator))
    empty = replace(alignment, student_rows=alignment.student_rows[:0], teacher_rows=alignment.teacher_rows[:0])
    for part in (alignment, empty):
        positions = len(part.student_rows)
        with attempt("check_token_mapper", f"translate for {positions} aligned positions"):
            view = mapper.translate(scores, part)
        check_view("check_token_mapper: result of translate", view, positions, 1e-4, drops=target_size is not None)
        found, least, rows = view.vocab_size, target_size or size, scores.at(part.teacher_rows)
        require(found >= least, f"translate returns a view with vocab_size {found}; it must be at least {least}")
        every = torch.arange(size).expand(positions, -1)
        same = target_size is not None or distance(*(v.logprobs_at(every) for v in (view, rows))) < 1e-4
        require(same, "translate changes the teacher's distributions; it must return them complete at teacher_rows")

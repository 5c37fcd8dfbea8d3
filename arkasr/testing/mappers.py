"""Does an object keep what `arkasr.TokenMapper` and `arkasr.Alignment` promise? Legend: see arkasr/interfaces.py."""

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
    check_reading,
    check_repeatable,
    check_stops,
)
from arkasr.testing.require import attempt, described, distance, is_tensor, requirer
from arkasr.testing.rollouts import TEXTS, Side, make_rollouts, side
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
    """Check that a mapper keeps the promises of `arkasr.TokenMapper`; raises AssertionError for the first it breaks.

    student, teacher: what the mapper was made for: anything with a `tokenizer` (a fast one) and `stop_ids`. texts:
    what the student is taken to have said, each as a rollout that stopped, one cut at the cap and, with a byte put
    after it, one cut inside a character; beside them the rollout that is only a stop. Checked are the maps (dtype,
    shape, one to one, -1 for ids outside and without counterpart, stop ids onto each other), the alignment (pairs in
    range, strictly increasing and inside their clip, at least one teacher token a clip, the stop of a text paired,
    the same twice, and alone as in a batch) and translate (the teacher's distributions at the P aligned positions,
    also where there are none). same_bytes: mapped tokens stand for the same bytes, paired positions have read the same
    bytes, of the texts that both spell alike half the positions are paired at least, and num_mismatched counts the
    clips whose bytes the teacher does not read; False for a mapper that pairs other tokens on purpose. translates_to:
    whose vocabulary translate answers in, where it is not the teacher's: anything with a `tokenizer` and `stop_ids`,
    such as the student; a teacher's row may then be paired several times, as long as the teacher has read nothing that
    the student has not.
    """
    require(isinstance(mapper, TokenMapper), f"{described(mapper)} lacks align, to_student, to_teacher or translate")
    ours, theirs = side(student), side(teacher)
    compared = theirs if translates_to is None else side(translates_to)
    _check_map("to_teacher", mapper.to_teacher, mapper.to_student, ours, compared, same_bytes)
    _check_map("to_student", mapper.to_student, mapper.to_teacher, compared, ours, same_bytes)
    rollouts = make_rollouts(ours, texts)
    made = _align(mapper, [ids for ids, _ in rollouts])
    check_alignment(made, rollouts, theirs, strictly=translates_to is None)
    if same_bytes:
        check_reading(made, rollouts, ours, theirs, equal=translates_to is None)
    check_stops(made, rollouts, ours, theirs)
    _check_translation(mapper, made, len(theirs.bytes), None if translates_to is None else len(compared.bytes))
    again, *singles = (_align(mapper, batch) for batch in ([i for i, _ in rollouts], *([i] for i, _ in rollouts)))
    check_repeatable(made, again, singles, rollouts)
    if same_bytes:
        check_coverage(made, rollouts, ours, theirs)
        check_mismatches(singles, rollouts, ours, theirs)


def _check_map(name: str, there: Callable, back: Callable, ours: Side, theirs: Side, same_bytes: bool) -> None:
    ids = torch.arange(len(ours.bytes))
    mapped = _mapped(name, there, ids)
    known = mapped >= 0
    require(bool((mapped >= -1).all()) and bool((mapped < len(theirs.bytes)).all()), f"{name} gives ids out of range")
    outside = torch.cat([-1 - ids, len(ids) + ids[:3], torch.tensor([2**31])])
    wrong = outside[_mapped(name, there, outside) != -1].tolist()
    require(not wrong, f"{name}: ids outside the vocabulary must map to -1, but {wrong[:3]} do not")
    stop = int(mapped[ours.stops[0]])
    said = f"{name}: stop id {ours.stops[0]} maps to {stop}"
    require(stop == theirs.stops[0], f"{said}, not to the stop id {theirs.stops[0]}")
    again = _mapped(name, back, mapped[known])
    require(torch.equal(again, ids[known]), f"{name} and the way back are not one to one on the ids that they map")
    for a, b in zip(ids[known].tolist(), mapped[known].tolist()) if same_bytes else ():
        pair = ours.bytes[a], theirs.bytes[b]
        require(None in pair or pair[0] == pair[1], f"{name}: id {a} is {pair[0]!r}, but {b} is {pair[1]!r}")
    require(int(known.sum()) > 1, f"{name} maps nothing but the stop")


def _mapped(name: str, function: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    """Map ids as a line, as a table and as nothing; the shape must be kept."""
    with attempt("check_token_mapper", f"{name} of ids {described(ids)}"):
        results = [(shape, function(ids.reshape(shape))) for shape in (ids.shape, (1, -1, 1))]
        results.append(((0, 3), function(torch.zeros(0, 3, dtype=torch.long))))
    for shape, mapped in results:
        want = list(ids.reshape(shape).shape) if 0 not in shape else [0, 3]
        require(is_tensor(mapped, torch.int64, *want), f"{name} returns {described(mapped)}, not int64 {want}")
    return results[0][1]


def _align(mapper: TokenMapper, ids: list[list[int]]) -> Alignment:
    given = [list(i) for i in ids]
    with attempt("check_token_mapper", f"align of {len(ids)} rollouts (stopped, cut, cut inside a character)"):
        made = mapper.align(given)
    require(given == ids, "align writes into the ids that it is given")
    require(isinstance(made, Alignment), f"align returns {described(made)}, not an Alignment")
    return made


def _check_translation(mapper: TokenMapper, made: Alignment, size: int, other: int | None) -> None:
    """It is the teacher's view at the aligned positions; other: the size of the vocabulary, if not the teacher's."""
    draw = torch.Generator().manual_seed(0)
    scored = DenseView(torch.randn(sum(map(len, made.teacher_ids)), size, generator=draw))
    none = replace(made, student_rows=made.student_rows[:0], teacher_rows=made.teacher_rows[:0])
    for alignment in (made, none):
        positions = len(alignment.student_rows)
        with attempt("check_token_mapper", f"translate at {positions} aligned positions"):
            view = mapper.translate(scored, alignment)
        check_view("check_token_mapper: what translate returns", view, positions, 1e-4, drops=other is not None)
        tokens, named, rows = view.vocab_size, other or size, scored.at(alignment.teacher_rows)
        require(tokens >= named, f"translate answers over {tokens} tokens, fewer than the {named} that there are")
        every = torch.arange(size).expand(positions, -1)
        same = other is not None or distance(*(v.logprobs_at(every) for v in (view, rows))) < 1e-4
        require(same, "translate does not return the teacher's distributions, whole, at teacher_rows")

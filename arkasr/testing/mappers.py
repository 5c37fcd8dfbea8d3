"""Does an object keep what `arkasr.TokenMapper` and `arkasr.Alignment` promise? Legend: see arkasr/interfaces.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from arkasr.interfaces import Alignment, TokenMapper
from arkasr.testing.require import attempt, described, distance, is_tensor, requirer
from arkasr.testing.rollouts import TEXTS, Side, make_rollouts, paired, side
from arkasr.testing.views import check_view
from arkasr.views import DenseView

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
    the same alone as in a batch) and translate (a view of the P aligned positions, also where there are none).
    same_bytes: mapped tokens stand for the same bytes, and paired positions have read the same bytes; False for a
    mapper that pairs other tokens on purpose. translates_to: whose vocabulary translate answers in, where it is not
    the teacher's: anything with a `tokenizer` and `stop_ids`, such as the student; a teacher's row may then be paired
    several times, as long as the teacher has read nothing that the student has not.
    """
    require(isinstance(mapper, TokenMapper), f"{described(mapper)} lacks align, to_student, to_teacher or translate")
    ours, theirs = side(student), side(teacher)
    compared = theirs if translates_to is None else side(translates_to)
    _check_map("to_teacher", mapper.to_teacher, mapper.to_student, ours, compared, same_bytes)
    _check_map("to_student", mapper.to_student, mapper.to_teacher, compared, ours, same_bytes)
    rollouts = make_rollouts(ours, texts)
    made = _align(mapper, [ids for ids, _ in rollouts])
    _check_alignment(made, rollouts, theirs, strictly=translates_to is None)
    if same_bytes:
        _check_reading(made, rollouts, ours, theirs, equal=translates_to is None)
    _check_stops(made, rollouts, ours, theirs)
    _check_translation(mapper, made, len(theirs.bytes), None if translates_to is None else len(compared.bytes))
    for clip, (ids, what) in enumerate(rollouts):
        alone, batched = paired(_align(mapper, [ids]), [ids])[0], paired(made, [r for r, _ in rollouts])[clip]
        require(alone == batched, f"a clip aligned alone and in a batch differs ({what})")


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


def _check_alignment(made: Alignment, rollouts: list[tuple[list[int], str]], theirs: Side, strictly: bool) -> None:
    count, size = len(made.student_rows), len(theirs.bytes)
    for name, rows in (("student_rows", made.student_rows), ("teacher_rows", made.teacher_rows)):
        require(is_tensor(rows, torch.int64, count), f"{name} is {described(rows)}, not int64 [{count}]")
        least = 1 if strictly or name == "student_rows" else 0
        require(bool((rows.diff() >= least).all()), f"{name} must be {'strictly ' * least}increasing")
    clips, read = len(rollouts), len(made.teacher_ids)
    require(read == clips, f"teacher_ids holds {read} of {clips} clips")
    for ids, (_, what) in zip(made.teacher_ids, rollouts):
        require(len(ids) > 0, f"teacher_ids is empty for {what}: a teacher needs one token at least")
        require(all(isinstance(i, int) and 0 <= i < size for i in ids), f"teacher_ids are out of range for {what}")
    total = sum(len(ids) for ids, _ in rollouts)
    require(made.num_student == total, f"num_student is {made.num_student}, but there are {total} student ids")
    require(0 <= made.num_mismatched <= clips, f"num_mismatched is {made.num_mismatched} of {clips} clips")
    paired(made, [ids for ids, _ in rollouts])  # refuses rows that are out of range or in another clip


def _check_reading(
    made: Alignment, rollouts: list[tuple[list[int], str]], ours: Side, theirs: Side, equal: bool
) -> None:
    """Paired positions have read the same bytes; without `equal` the student may be ahead."""
    for (ids, what), (read, pairs) in zip(rollouts, paired(made, [ids for ids, _ in rollouts])):
        for s, t in pairs:
            a, b = ours.read(ids[:s]), theirs.read(read[:t])
            good = a == b if equal else a.startswith(b)
            require(good, f"{what}: rows {s} and {t} are paired, but have read {a!r} and {b!r}")


def _check_stops(made: Alignment, rollouts: list[tuple[list[int], str]], ours: Side, theirs: Side) -> None:
    """The stop is a token like any other: some text's stop is scored against the teacher's."""
    for (ids, _), (read, pairs) in zip(rollouts, paired(made, [ids for ids, _ in rollouts])):
        stopped = len(ids) > 1 and ids[-1] in ours.stops and read[-1] == theirs.stops[0]
        if stopped and (len(ids) - 1, len(read) - 1) in pairs:
            return
    require(False, "no text's stop is paired with the teacher's stop: the student would not learn where to end")


def _check_translation(mapper: TokenMapper, made: Alignment, size: int, other: int | None) -> None:
    """It is the teacher's view at the aligned positions; other: the size of the vocabulary, if not the teacher's."""
    draw = torch.Generator().manual_seed(0)
    scored = DenseView(torch.randn(sum(map(len, made.teacher_ids)), size, generator=draw))
    none = replace(made, student_rows=made.student_rows[:0], teacher_rows=made.teacher_rows[:0])
    for alignment in (made, none):
        positions = len(alignment.student_rows)
        with attempt("check_token_mapper", f"translate at {positions} aligned positions"):
            view = mapper.translate(scored, alignment)
        check_view("check_token_mapper: what translate returns", view, positions, tolerance=1e-4)
        tokens, named = view.vocab_size, other or size
        require(tokens >= named, f"translate answers over {tokens} tokens, fewer than the {named} that there are")
        ids, values = scored.at(alignment.teacher_rows).topk(1)
        same = other is not None or distance(view.logprobs_at(ids), values) < 1e-4
        require(same, "translate does not return the teacher's distributions at teacher_rows")

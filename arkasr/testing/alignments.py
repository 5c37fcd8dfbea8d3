"""What `arkasr.Alignment` promises of the rollouts that were aligned: rows, bytes read, stops, coverage, counts."""

from __future__ import annotations

import torch

from arkasr.interfaces import Alignment
from arkasr.testing.require import described, is_tensor, requirer
from arkasr.testing.rollouts import Side, alike, paired

require = requirer("check_token_mapper")
Rollouts = list[tuple[list[int], str]]  # as make_rollouts gives them


def check_alignment(made: Alignment, rollouts: Rollouts, theirs: Side, strictly: bool) -> None:
    """Dtypes, ranges and order of an alignment; `strictly`: teacher rows may not repeat."""
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


def check_reading(made: Alignment, rollouts: Rollouts, ours: Side, theirs: Side, equal: bool) -> None:
    """Paired positions have read the same bytes; without `equal` the student may be ahead."""
    for (ids, what), (read, pairs) in zip(rollouts, paired(made, [ids for ids, _ in rollouts])):
        for s, t in pairs:
            a, b = ours.read(ids[:s]), theirs.read(read[:t])
            good = a == b if equal else a.startswith(b)
            require(good, f"{what}: rows {s} and {t} are paired, but have read {a!r} and {b!r}")


def check_stops(made: Alignment, rollouts: Rollouts, ours: Side, theirs: Side) -> None:
    """The stop is a token like any other: some text's stop is scored against the teacher's."""
    for (ids, _), (read, pairs) in zip(rollouts, paired(made, [ids for ids, _ in rollouts])):
        stopped = len(ids) > 1 and ids[-1] in ours.stops and read[-1] == theirs.stops[0]
        if stopped and (len(ids) - 1, len(read) - 1) in pairs:
            return
    require(False, "no text's stop is paired with the teacher's stop: the student would not learn where to end")


def check_repeatable(made: Alignment, again: Alignment, singles: list[Alignment], rollouts: Rollouts) -> None:
    """The same batch gives the same alignment, and each clip of it what it gives alone."""
    every = [ids for ids, _ in rollouts]
    pairs = paired(made, every)
    same = paired(again, every) == pairs and again.num_mismatched == made.num_mismatched
    require(same, "align gives another alignment when it is called again with the same batch")
    for (ids, what), single, batched in zip(rollouts, singles, pairs):
        require(paired(single, [ids])[0] == batched, f"a clip aligned alone and in a batch differs ({what})")
    total = sum(single.num_mismatched for single in singles)
    said = f"num_mismatched is {made.num_mismatched}, but {total} over the same clips one by one"
    require(made.num_mismatched == total, said)


def check_coverage(made: Alignment, rollouts: Rollouts, ours: Side, theirs: Side) -> None:
    """Where both spell a text alike they have read the same before every token: half of that, at least, is paired.

    Not asked for is what is inside of characters, and what tokenizers that cut differently leave to the mapper.
    """
    whole = found = 0
    for (ids, _), (_, pairs) in zip(rollouts, paired(made, [ids for ids, _ in rollouts])):
        borders = alike(ids, ours, theirs)
        whole, found = whole + len(borders), found + len({s for s, _ in pairs} & borders)
    said = f"only {found} of the {whole} positions of texts that both tokenizers spell alike are paired"
    require(2 * found >= whole, f"{said}: pair all positions at which both have read the same text")


def check_mismatches(singles: list[Alignment], rollouts: Rollouts, ours: Side, theirs: Side) -> None:
    """Counted is a clip that the teacher reads back as another text."""
    for (ids, what), made in zip(rollouts, singles):
        text, read = ours.read(ours.spoken(ids)), theirs.read(theirs.spoken(made.teacher_ids[0]))
        said = f"{what}: num_mismatched is {made.num_mismatched} where the teacher reads {text!r} as {read!r}"
        require(not text or made.num_mismatched == (text != read), said)

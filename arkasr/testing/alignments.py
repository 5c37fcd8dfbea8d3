"""What `arkasr.Alignment` promises: rows, text before paired rows, stops, repeatability, coverage and counts.

The functions are the parts of `arkasr.testing.check_token_mapper` that check an alignment. Each raises AssertionError
for the first promise that the alignment breaks.
"""

from __future__ import annotations

import torch

from arkasr.interfaces import Alignment
from arkasr.testing.require import describe, is_tensor, requirer
from arkasr.testing.rollouts import Rollouts, Vocabulary, pairs_by_clip, shared_boundaries

require = requirer("check_token_mapper")


def check_alignment(alignment: Alignment, rollouts: Rollouts, teacher: Vocabulary, strictly: bool) -> None:
    """Check dtypes, ranges and order of an alignment.

    Args:
        alignment: The alignment of all rollouts as one batch.
        rollouts: The student's transcripts.
        teacher: The teacher's vocabulary.
        strictly: Teacher rows must increase strictly, not only weakly.
    """
    count, size = len(alignment.student_rows), len(teacher.token_bytes)
    for name, rows in (("student_rows", alignment.student_rows), ("teacher_rows", alignment.teacher_rows)):
        require(
            is_tensor(rows, torch.int64, count), f"Alignment.{name} is {describe(rows)}; it must be int64 [{count}]"
        )
        least = 1 if strictly or name == "student_rows" else 0
        order = "strictly increasing" if least else "increasing"
        require(bool((rows.diff() >= least).all()), f"Alignment.{name} is not {order}; its rows must be {order}")
    clips, lists = len(rollouts), len(alignment.teacher_ids)
    require(lists == clips, f"Alignment.teacher_ids has {lists} lists for {clips} clips; it must have one per clip")
    for ids, (_, what) in zip(alignment.teacher_ids, rollouts):
        require(len(ids) > 0, f"Alignment.teacher_ids is empty for {what}; each clip needs at least one token")
        in_range = all(isinstance(i, int) and 0 <= i < size for i in ids)
        require(in_range, f"Alignment.teacher_ids has invalid ids for {what}; they must be int from 0 to {size - 1}")
    total, num_student = sum(len(ids) for ids, _ in rollouts), alignment.num_student
    require(num_student == total, f"Alignment.num_student is {num_student}; the batch has {total} student tokens")
    wrong = f"Alignment.num_mismatched is {alignment.num_mismatched}; it must be from 0 to {clips}, the number of clips"
    require(0 <= alignment.num_mismatched <= clips, wrong)
    pairs_by_clip(alignment, [ids for ids, _ in rollouts])  # fails for rows out of range or in another clip


def check_text_before_pairs(
    alignment: Alignment, rollouts: Rollouts, student: Vocabulary, teacher: Vocabulary, equal: bool
) -> None:
    """Check that the text before paired rows is the same in both transcripts.

    Args:
        alignment: The alignment of all rollouts as one batch.
        rollouts: The student's transcripts.
        student: The student's vocabulary.
        teacher: The teacher's vocabulary.
        equal: The bytes must be equal. Otherwise the teacher's must be a prefix of the student's.
    """
    for (ids, what), (teacher_ids, pairs) in zip(rollouts, pairs_by_clip(alignment, [ids for ids, _ in rollouts])):
        for s, t in pairs:
            text_s, text_t = student.decode_bytes(ids[:s]), teacher.decode_bytes(teacher_ids[:t])
            good = text_s == text_t if equal else text_s.startswith(text_t)
            rule = "both must be equal" if equal else "the teacher's must be a prefix of the student's"
            pair = f"{what}: align pairs student row {s} with teacher row {t}"
            require(good, f"{pair}, but the text before them is {text_s!r} and {text_t!r}; {rule}")


def check_stops(alignment: Alignment, rollouts: Rollouts, student: Vocabulary, teacher: Vocabulary) -> None:
    """Check that the stop token of at least one text is paired with the teacher's stop token.

    Args:
        alignment: The alignment of all rollouts as one batch.
        rollouts: The student's transcripts.
        student: The student's vocabulary.
        teacher: The teacher's vocabulary.
    """
    for (ids, _), (teacher_ids, pairs) in zip(rollouts, pairs_by_clip(alignment, [ids for ids, _ in rollouts])):
        stopped = len(ids) > 1 and ids[-1] in student.stop_ids and teacher_ids[-1] == teacher.stop_ids[0]
        if stopped and (len(ids) - 1, len(teacher_ids) - 1) in pairs:
            return
    require(
        False, "align pairs no stop token with the teacher's stop token; without it the student cannot learn to stop"
    )


def check_repeatable(alignment: Alignment, again: Alignment, singles: list[Alignment], rollouts: Rollouts) -> None:
    """Check that the alignment is deterministic and that clips do not influence each other.

    Args:
        alignment: The alignment of all rollouts as one batch.
        again: A second alignment of the same batch.
        singles: The alignment of each rollout alone.
        rollouts: The student's transcripts.
    """
    student_ids = [ids for ids, _ in rollouts]
    pairs = pairs_by_clip(alignment, student_ids)
    same = pairs_by_clip(again, student_ids) == pairs and again.num_mismatched == alignment.num_mismatched
    require(same, "align returns a different alignment for the same batch; it must be deterministic")
    for (ids, what), single, batched in zip(rollouts, singles, pairs):
        equal = pairs_by_clip(single, [ids])[0] == batched
        require(equal, f"align returns different pairs for a clip alone and in a batch ({what}); they must be the same")
    total = sum(single.num_mismatched for single in singles)
    counts = f"Alignment.num_mismatched is {alignment.num_mismatched} for a batch, but {total} for its clips one by one"
    require(alignment.num_mismatched == total, f"{counts}; both must be the same")


def check_coverage(alignment: Alignment, rollouts: Rollouts, student: Vocabulary, teacher: Vocabulary) -> None:
    """Check that at least half of the positions are paired in texts that both tokenizers split alike.

    Positions inside of characters, and texts that the tokenizers split differently, are not checked.

    Args:
        alignment: The alignment of all rollouts as one batch.
        rollouts: The student's transcripts.
        student: The student's vocabulary.
        teacher: The teacher's vocabulary.
    """
    expected = found = 0
    for (ids, _), (_, pairs) in zip(rollouts, pairs_by_clip(alignment, [ids for ids, _ in rollouts])):
        boundaries = shared_boundaries(ids, student, teacher)
        expected, found = expected + len(boundaries), found + len({s for s, _ in pairs} & boundaries)
    share = f"align pairs only {found} of the {expected} positions of texts that both tokenizers split alike"
    require(2 * found >= expected, f"{share}; pair all positions with the same text before them")


def check_mismatches(singles: list[Alignment], rollouts: Rollouts, student: Vocabulary, teacher: Vocabulary) -> None:
    """Check that `num_mismatched` counts the clips whose teacher tokens are another text.

    Args:
        singles: The alignment of each rollout alone.
        rollouts: The student's transcripts.
        student: The student's vocabulary.
        teacher: The teacher's vocabulary.
    """
    for (ids, what), alignment in zip(rollouts, singles):
        text_s = student.decode_bytes(student.without_stop(ids))
        text_t = teacher.decode_bytes(teacher.without_stop(alignment.teacher_ids[0]))
        expected, found = int(text_s != text_t), alignment.num_mismatched
        texts = f"the student's text is {text_s!r} and the teacher's {text_t!r}"
        require(
            not text_s or found == expected,
            f"{what}: Alignment.num_mismatched is {found}; it must be {expected}, since {texts}",
        )

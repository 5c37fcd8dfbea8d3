"""`union_support` compared with Python sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arkasr.distill.support import union_support

NUM_STUDENT, NUM_TEACHER = 14, 18


class TableMapper:
    """A one-to-one mapper built from (student id, teacher id) pairs."""

    def __init__(self, pairs):
        self.pairs = dict(pairs)
        self.forward, self.backward = torch.full((NUM_STUDENT,), -1), torch.full((NUM_TEACHER,), -1)
        for s, t in self.pairs.items():
            self.forward[s], self.backward[t] = t, s

    def to_teacher(self, ids):
        return self.forward[ids]

    def to_student(self, ids):
        return self.backward[ids]


@st.composite
def cases(draw):
    size = draw(st.integers(0, NUM_STUDENT))
    student_ids = draw(st.permutations(range(NUM_STUDENT)))[:size]
    teacher_ids = draw(st.permutations(range(NUM_TEACHER)))[:size]
    k_t, k_s, positions = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(0, 4))
    teacher = [draw(st.permutations(range(NUM_TEACHER)))[:k_t] for _ in range(positions)]
    student = [draw(st.permutations(range(NUM_STUDENT)))[:k_s] for _ in range(positions)]
    return list(zip(student_ids, teacher_ids)), teacher, student, k_t, k_s


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases())
@example(([(i, i) for i in range(NUM_STUDENT)], [[3, 4]], [[4, 3]], 2, 2))
@example(([], [[3, 4]], [[4, 3]], 2, 2))
@example(([(0, 0)], [[0, 1]], [[0, 2]], 2, 2))
def test_union_support_equals_union_of_python_sets(case):
    pairs, teacher, student, k_t, k_s = case
    mapper, back = TableMapper(pairs), {t: s for s, t in pairs}
    support = union_support(
        torch.tensor(teacher, dtype=torch.long).reshape(-1, k_t),
        torch.tensor(student, dtype=torch.long).reshape(-1, k_s),
        torch.tensor([ids[0] for ids in student], dtype=torch.long),
        mapper,
    )
    assert support.valid.shape == support.student_ids.shape == support.teacher_ids.shape == (len(teacher), k_t + k_s)
    assert support.valid.dtype == torch.bool and support.num_overlap.shape == (len(teacher),)
    assert support.student_ids[~support.valid].eq(0).all() and support.teacher_ids[~support.valid].eq(0).all()
    for p, (t_ids, s_ids) in enumerate(zip(teacher, student)):
        from_teacher = {back[t] for t in t_ids if t in back}
        from_student = {s for s in s_ids if s in mapper.pairs}
        valid = support.valid[p]
        student_ids, teacher_ids = support.student_ids[p, valid].tolist(), support.teacher_ids[p, valid].tolist()
        assert set(student_ids) == from_teacher | from_student
        assert len(set(student_ids)) == len(student_ids) and len(set(teacher_ids)) == len(teacher_ids)
        assert all(mapper.pairs[s] == t for s, t in zip(student_ids, teacher_ids))
        assert int(support.num_overlap[p]) == len(from_teacher & from_student)
        assert set(support.student_ids[p, support.from_teacher[p]].tolist()) == from_teacher
        assert set(support.student_ids[p, support.from_student[p]].tolist()) == from_student
        assert int(support.visited_student[p]) == s_ids[0]
        assert int(support.visited_teacher[p]) == mapper.pairs.get(s_ids[0], -1)
        assert int(valid[:k_t].sum()) == len(from_teacher)

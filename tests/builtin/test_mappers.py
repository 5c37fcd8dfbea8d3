"""What the mappers `shared_strings` and `identity` have in common: stop tokens, tables of ids, the protocol."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapper_cases import SPECIAL, parts, side
from tiny import bpe_bytes, teacher_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.distill.support import union_support
from arkasr.distributions.views import DenseView
from arkasr.interfaces import TokenMapper
from arkasr.plugins.registry import create

STOPS = st.permutations(SPECIAL).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n]))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([SharedStrings, Identity]), STOPS, STOPS)
@example(Identity, SPECIAL[:2], SPECIAL[:2])
def test_mappers_map_further_stops_by_string(kind, student_stops, teacher_stops):
    tokenizer = teacher_tokenizer()
    sides = {"student": side(tokenizer, *student_stops), "teacher": side(tokenizer, *teacher_stops)}
    mapper, ids = kind(NoMapperOptions(), **sides), {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    expected = {student_stops[0]: ids[teacher_stops[0]]}
    expected |= {name: ids[name] if name in teacher_stops[1:] else -1 for name in student_stops[1:]}
    assert {name: int(mapper.to_teacher(torch.tensor(ids[name]))) for name in student_stops} == expected
    every = torch.arange(len(tokenizer))
    for there, back in ((mapper.to_teacher, mapper.to_student), (mapper.to_student, mapper.to_teacher)):
        known = there(every) >= 0
        assert torch.equal(back(there(every)[known]), every[known])
        assert int(known.sum()) == len(bpe_bytes(tokenizer)) + sum(i >= 0 for i in expected.values())


@pytest.mark.parametrize("name", ["identity", "shared_strings", "byte_offsets"])
def test_loss_lowers_premature_second_stop(name):
    """The student is about to write its second stop token. The teacher expects letters."""
    both = side(teacher_tokenizer(), *SPECIAL[:2])
    mapper = create("token_mapper", name, {}, student=both, teacher=both)
    letters = both.tokenizer.convert_tokens_to_ids(["q", "x"])
    ids, second = [letters[0], both.stop_ids[1]], both.stop_ids[1]
    alignment = mapper.align([ids])
    logits = torch.zeros(len(alignment.teacher_ids[0]), len(both.tokenizer))
    logits[:, letters] = torch.tensor([16.0, 14.0])
    teacher = mapper.translate(DenseView(logits), alignment).at(torch.tensor([1]))
    student = torch.zeros(1, len(both.tokenizer)).index_fill_(1, torch.tensor([second]), 16.0).requires_grad_()
    best = [view.topk(2)[0] for view in (teacher, DenseView(student.detach()))]
    total, count = UnionTopkKl(UnionTopkKlOptions())(
        DenseView(student), teacher, union_support(*best, torch.tensor([second]), mapper)
    )
    total.backward()
    assert int(count) == 1 and float(student.grad[0, second]) > 0.9


class Copies(TorchDispatchMode):
    """Counts copies of tensors to another device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_id_table_is_copied_once_per_device():
    student, teacher, *_ = parts()
    mapper, ids = SharedStrings(NoMapperOptions(), student=student, teacher=teacher), torch.arange(5)
    expected, away = mapper.to_teacher(ids), ids.to("meta")
    with Copies() as copies:
        assert mapper.to_teacher(away).device.type == "meta" and copies.count == 1
        assert torch.equal(mapper.to_teacher(ids), expected)
        mapper.to_teacher(away)
    assert copies.count == 1


def test_id_maps_accept_any_shape_and_return_minus_one_for_unknown_ids():
    _, _, mapper, _, _ = parts()
    assert mapper.to_teacher(torch.tensor([[-1, 10**6], [3, 4]])).shape == (2, 2)
    assert mapper.to_teacher(torch.tensor([-1, 10**6])).tolist() == [-1, -1]
    assert mapper.to_student(torch.tensor([-1, 10**6])).tolist() == [-1, -1]
    assert mapper.to_student(torch.zeros(0, 5, dtype=torch.long)).shape == (0, 5)


def test_mappers_implement_protocol():
    same = side(teacher_tokenizer(), "<|im_end|>")
    assert isinstance(parts()[2], TokenMapper)
    assert isinstance(Identity(NoMapperOptions(), student=same, teacher=same), TokenMapper)

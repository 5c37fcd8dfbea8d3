"""The mapper `identity`: equal vocabularies only, and the ids it gives."""

from __future__ import annotations

import pytest
import torch
from mapper_cases import parts, side
from tiny import bpe_bytes, teacher_tokenizer
from transformers import AutoTokenizer

from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.errors import UserError


def test_identity_rejects_different_vocabularies():
    student, teacher, *_ = parts()
    with pytest.raises(UserError, match="identity.*equal vocabularies.*student ids are other tokens.*shared_strings"):
        Identity(NoMapperOptions(), student=student, teacher=teacher)


def test_identity_rejects_one_swapped_token(tmp_path):
    teacher_tokenizer().save_pretrained(tmp_path)
    spec = (tmp_path / "tokenizer.json").read_text()
    swapped = spec.replace('"a":', '"SWAP":', 1).replace('"b":', '"a":', 1).replace('"SWAP":', '"b":', 1)
    assert swapped != spec
    (tmp_path / "tokenizer.json").write_text(swapped)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.get_vocab()["a"] == teacher_tokenizer().get_vocab()["b"]
    with pytest.raises(UserError, match="2 student ids"):
        Identity(NoMapperOptions(), student=side(teacher_tokenizer(), "<|im_end|>"), teacher=side(other, "<|im_end|>"))


def test_identity_gives_teacher_the_student_ids():
    both = side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = Identity(NoMapperOptions(), student=both, teacher=both)
    end, other_end = both.stop_ids
    alignment = mapper.align([[3, 4, end], [end], [5, 6], [7, other_end]])
    assert alignment.teacher_ids == [[3, 4, end], [end], [5, 6], [7, end]]
    assert alignment.student_rows.tolist() == alignment.teacher_rows.tolist() == list(range(8))
    assert (alignment.num_student, alignment.num_mismatched) == (8, 0)
    table = bpe_bytes(both.tokenizer)
    for i in range(len(both.tokenizer)):
        expected = i if i in table or i in both.stop_ids else -1
        assert mapper.to_teacher(torch.tensor(i)) == mapper.to_student(torch.tensor(i)) == expected


def test_identity_accepts_further_teacher_tokens():
    """The published student and teacher have equal text ids and different special tokens above them."""
    student, teacher = side(teacher_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|endoftext|>")
    mapper = Identity(NoMapperOptions(), student=student, teacher=teacher)
    assert mapper.align([[3, student.stop_ids[0]]]).teacher_ids == [[3, teacher.stop_ids[0]]]
    assert mapper.to_student(torch.tensor(student.stop_ids[0])) == -1

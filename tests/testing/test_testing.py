"""arkasr.testing: the built-in plugins pass its checks, and its models, audio and helpers are correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from kit import failure_message, student, teacher

from arkasr.errors import UserError
from arkasr.testing import check_loss, check_teacher, check_token_mapper, create, tiny_student, tiny_teacher, waveform
from arkasr.testing.require import distance
from arkasr.testing.tiny import student_tokenizer, teacher_tokenizer

ROOT = Path(__file__).parents[2]


def test_builtin_teacher_passes_check(tmp_path):
    teacher().save(tmp_path)
    options = {"path": str(tmp_path), "dtype": "float32", "max_new_tokens": 5}
    check_teacher(create("teacher", "qwen3_asr", options, device="cpu"))


@pytest.mark.parametrize("name", ["shared_strings", "identity"])
def test_builtin_mappers_pass_check(name):
    sides = {"student": teacher() if name == "identity" else student(), "teacher": teacher()}
    check_token_mapper(create("token_mapper", name, {}, **sides), **sides)


def test_byte_offsets_mapper_passes_check_with_translates_to():
    sides = {"student": student(), "teacher": teacher()}
    mapper = create("token_mapper", "byte_offsets", {}, **sides)
    check_token_mapper(mapper, **sides, translates_to=student())
    assert "to_teacher" in failure_message(check_token_mapper, mapper, **sides)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("union_topk_kl", {"temperature": 0.5}),
        ("union_topk_kl", {"temperature": 0.02}),
        ("union_topk_kl", {"temperature": 100.0}),
        ("union_topk_kl", {"tail": True}),
        ("teacher_topk_kl", {}),
        ("student_topk_reverse_kl", {"temperature": 2.0}),
        ("full_kl", {}),
        ("reverse_kl", {}),
        ("jsd", {"beta": 0.1}),
    ],
)
def test_builtin_divergences_pass_check(name, options):
    check_loss(create("loss", name, options))


def test_sampled_reverse_kl_passes_check_without_divergence():
    check_loss(create("loss", "sampled_reverse_kl", {}), divergence=False)


def test_testing_imports_no_test_framework():
    texts = [path.read_text() for path in (ROOT / "arkasr" / "testing").glob("*.py")]
    frameworks = re.compile(r"^\s*(import|from) (pytest|hypothesis|unittest)", re.M)
    assert len(texts) > 5 and not any(map(frameworks.search, texts))


def test_create_checks_option_names():
    with pytest.raises(UserError, match="temprature.*temperature"):
        create("loss", "union_topk_kl", {"temprature": 2.0})


@pytest.mark.parametrize("build", [tiny_student, tiny_teacher])
def test_tiny_models_are_small_and_seeded(build):
    one, same, other = build(), build(), build(seed=5)
    assert 10_000 < sum(p.numel() for p in one.parameters()) < 100_000
    assert torch.equal(one.head, same.head) and not torch.equal(one.head, other.head)
    states = torch.random.get_rng_state()
    build()
    assert torch.equal(states, torch.random.get_rng_state())


def test_distance_of_infinities_nan_and_shapes():
    inf, nan = torch.inf, torch.nan
    assert distance(torch.tensor([1.0, -inf]), torch.tensor([1.5, -inf])) == 0.5
    assert distance(torch.tensor([-inf]), torch.tensor([0.0])) == inf
    assert distance(torch.tensor([nan]), torch.tensor([nan])) == inf
    assert distance(torch.zeros(2), torch.zeros(1, 2)) == inf and distance(torch.zeros(0), torch.zeros(0)) == 0.0


def test_waveform_is_seeded_and_in_range():
    one = waveform(800, seed=2)
    assert one.dtype == torch.float32 and one.shape == (800,) and 0.01 < one.abs().max() < 1
    assert torch.equal(one, waveform(800, seed=2)) and not torch.equal(one, waveform(800))


def test_tiny_tokenizers_split_text_differently():
    text = "the quick brown fox \u4f60\u597d"
    cuts = [t.encode(text, add_special_tokens=False) for t in (student_tokenizer(), teacher_tokenizer())]
    assert len(cuts[0]) != len(cuts[1])

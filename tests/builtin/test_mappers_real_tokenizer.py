"""The token mappers with the real tokenizer of Qwen3, for English, Mandarin and mixed text."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapper_cases import TEXT, reference_alignment, side
from real_tokenizer import NUM_BASE, TEXTS, VOCAB_SIZE, needs_tokenizer, with_tokens
from tiny import batch, bpe_bytes, eager_to_stop, piece_bytes, student, student_tokenizer, teacher

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.plugins.registry import create
from arkasr.utils.timing import Phases

pytestmark = [needs_tokenizer, pytest.mark.slow]
NAMES = ("identity", "shared_strings", "byte_offsets")


@lru_cache
def sides():
    return side(with_tokens("arkasr"), "<|im_end|>"), side(with_tokens("qwen3_asr"), "<|im_end|>", "<|endoftext|>")


@lru_cache
def mapper(name):
    return create("token_mapper", name, {}, student=sides()[0], teacher=sides()[1])


def transcripts():
    of_student = sides()[0]
    return [[*of_student.tokenizer.encode(text, add_special_tokens=False), of_student.stop_ids[0]] for text in TEXTS]


@pytest.mark.parametrize("name", NAMES)
def test_equal_vocabularies_pair_every_position_with_the_same_id(name):
    found = mapper(name).align(transcripts())
    assert found.teacher_ids == transcripts()
    rows = list(range(sum(map(len, transcripts()))))
    assert found.student_rows.tolist() == found.teacher_rows.tolist() == rows
    assert (found.num_student, found.num_mismatched) == (len(rows), 0)


@pytest.mark.parametrize("name", NAMES)
def test_ids_map_to_themselves_and_special_tokens_to_nothing(name):
    ids, stop = torch.arange(VOCAB_SIZE), sides()[0].stop_ids[0]
    expected = ids.where((ids < NUM_BASE) | (ids == stop), -1)
    for mapped in (mapper(name).to_teacher(ids), mapper(name).to_student(ids)):
        assert torch.equal(mapped, expected)


@pytest.mark.parametrize("name", ["shared_strings", "byte_offsets"])
def test_a_rollout_that_ends_inside_a_character_keeps_the_positions_before_it(name):
    ids = sides()[0].tokenizer.encode("今天 we go to 𪚥", add_special_tokens=False)
    whole = len(sides()[0].tokenizer.encode("今天 we go to", add_special_tokens=False))
    assert len(ids) > whole + 2  # the last character has several tokens
    found = mapper(name).align([ids[:-1]])
    assert found.num_mismatched == 1
    assert found.student_rows.tolist()[:whole] == found.teacher_rows.tolist()[:whole] == list(range(whole))


@lru_cache
def letters_against_words():
    """Return a student with few SentencePiece pieces and the teacher with the real tokenizer."""
    small, large = side(student_tokenizer(), "<|im_end|>"), sides()[1]
    strings = create("token_mapper", "shared_strings", {}, student=small, teacher=large)
    return small, large, strings, piece_bytes(small.tokenizer), bpe_bytes(large.tokenizer)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=3))
@example([("the 今天 fox", True), ("naïve café 你好", False)])
def test_shared_strings_of_another_tokenizer_agrees_with_the_reference(cases):
    case = letters_against_words()
    small = case[0]
    rows = [
        small.tokenizer.encode(text, add_special_tokens=False) + ([small.stop_ids[0]] if stopped else [])
        for text, stopped in cases
    ]
    rows = [ids or [small.stop_ids[0]] for ids in rows]
    found, expected = case[2].align(rows), [reference_alignment(ids, case) for ids in rows]
    assert found.teacher_ids == [ids for ids, _, _ in expected]
    assert found.num_mismatched == sum(not same for _, _, same in expected)
    pairs, row_s, row_t = [], 0, 0
    for ids, (teacher_ids, own, _) in zip(rows, expected):
        pairs += [(row_s + s, row_t + t) for s, t in own]
        row_s, row_t = row_s + len(ids), row_t + len(teacher_ids)
    assert list(zip(found.student_rows.tolist(), found.teacher_rows.tolist())) == pairs


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_distillation_scores_every_position_of_the_rollouts(name):
    lm = eager_to_stop(student(0, with_tokens("arkasr")), 3.0)
    scorer = teacher(1, with_tokens("qwen3_asr"))

    class Local:
        tokenizer, stop_ids = scorer.tokenizer, scorer.stop_ids

        def score(self, waveforms, languages, token_ids):
            from arkasr.distributions.views import HeadView

            prompts = scorer.embed_prompts(scorer.encode_audio(waveforms), languages)
            with torch.no_grad():
                return HeadView(scorer.transcript_states(prompts, token_ids), scorer.head, None)

    clips = batch([8000, 12000, 16000], ["the sea", "今天", "我用 Python"], "Chinese")
    options = {"min_mapped_mass": 0.0} if name == "byte_offsets" else {}
    opd = Opd(
        Local(),
        create("token_mapper", name, options, student=lm, teacher=scorer),
        UnionTopkKl(UnionTopkKlOptions()),
        RolloutConfig(max_new_tokens=6),
        DistillConfig(top_k=8),
    )
    phases = Phases("cpu")
    scored = opd.collect(lm, clips, phases)
    ids = [i for row in scored.rollout.generation.ids for i in row]
    assert not lm.blocked_ids.intersection(ids)
    paired = len(opd.mapper.align(scored.rollout.generation.ids).student_rows)  # random ids need not be UTF-8
    assert len(scored.student_rows) == paired and (paired == len(ids) or name != "identity")
    total, count = opd.rescore(lm, scored)
    total.backward()
    assert 0 < float(total.detach()) < float("inf") and float(count) > 0

"""Rollouts and the three policies for empty ones."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from tiny import batch, eager_to_stop, student, waveform

from arkasr.distill.rollout import roll_out
from arkasr.model.generation import Generation, generate, token_caps
from arkasr.schema import RolloutConfig

SIZES = [16000, 4000, 9000, 24000, 160, 12345]
EMPTY, K = 0, 5  # the first of these clips makes this student stop at once


@lru_cache
def lm():
    return eager_to_stop(student(11))


def rolled(empty, clips=None, texts=None, k=K, **options):
    made = batch(SIZES, texts)
    made.waveforms, made.texts = ([items[i] for i in clips or range(6)] for items in (made.waveforms, made.texts))
    config = RolloutConfig(max_new_tokens=9, empty=empty, **options)
    return roll_out(lm(), made.waveforms, ["English"] * len(made.waveforms), made.texts, config, k)


def plain(clips=range(6), k=K):
    """The same clips through generate alone."""
    waveforms = [waveform(SIZES[i], i) for i in clips]
    with torch.no_grad():
        prompts = lm().embed_prompts(lm().encode_audio(waveforms), ["English"] * len(waveforms))
    return generate(lm(), prompts, token_caps(waveforms, 9, 12.0), k), prompts


def rows(made):
    return list(made.topk.split([len(ids) for ids in made.ids]))


def test_an_empty_transcript_is_scored_by_its_stop():
    rollout, (expected, _) = rolled("score"), plain()
    assert rollout.kept == list(range(6)) and rollout.scored
    assert rollout.made.ids == expected.ids and rollout.made.ids[EMPTY] == [lm().stop_ids[0]]
    assert torch.equal(rollout.made.topk, expected.topk) and rollout.made.topk.shape[1] == K
    assert rollout.num_empty == 1 == sum(not lm().text(ids) for ids in expected.ids)
    assert rollout.num_stopped == sum(expected.stopped) >= 1


def test_clips_with_an_empty_transcript_are_left_out():
    rollout, (expected, _) = rolled("skip"), plain()
    assert rollout.kept == [1, 2, 3, 4, 5] and rollout.scored
    assert rollout.made.ids == expected.ids[1:] and rollout.made.stopped == expected.stopped[1:]
    assert torch.equal(rollout.made.topk, torch.cat(rows(expected)[1:]))
    assert rollout.num_empty == 1 and rollout.num_stopped == sum(expected.stopped)


def test_the_reference_is_read_instead():
    texts = ["the sea shells", "b", "c", "d", "e", "f"]
    rollout, (expected, prompts) = rolled("reference", texts=texts, k=100), plain(k=100)
    ids = lm().text_ids("the sea shells")
    assert rollout.kept == list(range(6)) and rollout.made.ids == [ids, *expected.ids[1:]]
    embed = lm().hf.get_input_embeddings().weight
    with torch.no_grad():
        logits = lm().hf(inputs_embeds=torch.cat([prompts[EMPTY], embed[ids]])[None]).logits[0]
    logits = logits[len(prompts[EMPTY]) - 1 : -1]
    allowed = logits.masked_fill(lm().blocked, -torch.inf)
    assert lm().blocked[logits.topk(100).indices].any()
    assert torch.equal(rows(rollout.made)[EMPTY], allowed.topk(100).indices)
    assert torch.equal(torch.cat(rows(rollout.made)[1:]), torch.cat(rows(expected)[1:]))
    assert rollout.num_empty == 1


@pytest.mark.parametrize("empty", ["score", "skip", "reference"])
def test_a_batch_without_a_word(empty):
    rollout = rolled(empty, clips=[EMPTY] * 3, texts=["the fox"] * 6)
    stop = lm().stop_ids[0]
    expected = {
        "score": ([0, 1, 2], [[stop]] * 3, True),
        "skip": ([0], [[stop]], False),
        "reference": ([0, 1, 2], [lm().text_ids("the fox")] * 3, True),
    }
    assert (rollout.kept, rollout.made.ids, rollout.scored) == expected[empty]
    assert len(rollout.made.topk) == sum(map(len, rollout.made.ids))
    assert (rollout.num_empty, rollout.num_stopped) == (3, 3)


@pytest.mark.parametrize("empty", ["skip", "reference"])
def test_where_all_have_words_the_policies_agree(empty):
    clips = [1, 2, 3, 5]
    rollout, (expected, _) = rolled(empty, clips=clips), plain(clips)
    assert rollout.kept == [0, 1, 2, 3] and rollout.made.ids == expected.ids and rollout.num_empty == 0
    assert torch.equal(rollout.made.topk, expected.topk)


def test_spaces_are_no_words(monkeypatch):
    stop = lm().stop_ids[0]
    words = [[*lm().tokenizer.encode(text, add_special_tokens=False), stop] for text in ("  ", "sea", "")]
    made = Generation(words, [True] * 3, torch.zeros(sum(map(len, words)), K, dtype=torch.long))
    monkeypatch.setattr("arkasr.distill.rollout.generate", lambda *arguments: made)
    rollout = rolled("skip", clips=[1, 2, 3])
    assert rollout.kept == [1] and rollout.num_empty == 2 and rollout.made.ids == [words[1]]


def test_caps_follow_the_configuration():
    rollout = rolled("score", clips=[1, 3], tokens_per_second=2.0)
    assert [len(ids) for ids in rollout.made.ids] <= [3, 5] and rollout.made.stopped == [False, False]


def test_reference_candidates_are_at_most_the_vocabulary():
    rollout = rolled("reference", texts=["the sea"] * 6, k=10**6)
    assert rollout.made.topk.shape[1] == len(lm().blocked)


def test_a_warm_rollout_is_drawn_and_a_greedy_one_is_not():
    torch.manual_seed(0)
    first = rolled("score", temperature=2.0).made.ids
    assert rolled("score", temperature=2.0).made.ids != first
    torch.manual_seed(0)
    assert rolled("score", temperature=2.0).made.ids == first
    assert rolled("score").made.ids == rolled("score").made.ids


def test_no_gradient_is_kept():
    assert not rolled("reference", texts=["the sea"] * 6).made.topk.requires_grad

"""Rollouts, samples and given texts, and the three policies for empty and looping ones."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import batch, eager_to_stop, student, waveform

from arkasr.config.schema import RolloutConfig
from arkasr.corpora.synthetic.grammar import sentences
from arkasr.distill import rollout as rollout_module
from arkasr.distill.rollout import draw_sources, roll_out
from arkasr.model.generation import Generation, generate, is_looping, token_caps

SIZES = [16000, 4000, 9000, 24000, 160, 12345]
EMPTY, K = 0, 5  # the first of these clips makes this student stop at once


@lru_cache
def lm():
    return eager_to_stop(student(11))


def rolled(empty="score", clips=None, texts=None, k=K, given=None, **options):
    made = batch(SIZES, texts)
    made.waveforms, made.texts = ([items[i] for i in clips or range(6)] for items in (made.waveforms, made.texts))
    config = RolloutConfig(max_new_tokens=9, empty=empty, **options)
    return roll_out(lm(), made.waveforms, ["English"] * len(made.waveforms), made.texts, config, k, given)


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


@pytest.mark.parametrize("text", ["", "  "])
def test_without_a_reference_an_empty_transcript_is_scored(text):
    rollout, (expected, _) = rolled("reference", texts=[text] * 6), plain()
    assert rollout.made.ids == expected.ids and rollout.sources == ["student"] * 6


def test_one_that_is_empty_and_loops_goes_by_the_policy_for_empty_ones(monkeypatch):
    space = lm().tokenizer.encode("  ", add_special_tokens=False)
    ids = (space * 20)[:20]
    assert is_looping(ids, lm().stop_ids) and not lm().text(ids)
    made = Generation([ids], [False], torch.zeros(20, K, dtype=torch.long))
    monkeypatch.setattr("arkasr.distill.rollout.generate", lambda *arguments, **options: made)
    rollout = rolled("reference", clips=[1], texts=["", "the sea"], looping="skip")
    assert rollout.sources == ["reference"] and rollout.made.ids == [lm().text_ids("the sea")]
    assert not rolled("skip", clips=[1], texts=["", "the sea"], looping="reference").scored


def test_spaces_are_no_words(monkeypatch):
    stop = lm().stop_ids[0]
    words = [[*lm().tokenizer.encode(text, add_special_tokens=False), stop] for text in ("  ", "sea", "")]
    made = Generation(words, [True] * 3, torch.zeros(sum(map(len, words)), K, dtype=torch.long))
    monkeypatch.setattr("arkasr.distill.rollout.generate", lambda *arguments, **options: made)
    rollout = rolled("skip", clips=[1, 2, 3])
    assert rollout.kept == [1] and rollout.num_empty == 2 and rollout.made.ids == [words[1]]


def test_caps_follow_the_configuration():
    rollout = rolled("score", clips=[1, 3], tokens_per_second=2.0)
    assert [len(ids) for ids in rollout.made.ids] == [3, 5] and rollout.made.stopped == [False, False]


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


# Loops


@pytest.mark.parametrize(
    ("ids", "looping"),
    [
        ([7] * 12, True),
        ([7] * 11, False),  # four times, but not twelve tokens
        ([1, 2, 3] * 4, True),
        ([9, 8, *[1, 2, 3] * 4, 1, 2], True),  # cut inside the fifth repetition
        ([1, 2, 3] * 3 + [1, 2], False),  # eleven tokens
        ([*[1, 2, 3] * 4, 9], False),  # it found its way out
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, True),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 3 + [1, 2, 3, 4, 5, 6, 7], False),  # a fourth repetition short of a token
        ([1, 2, 3, 4, 5, 6, 7, 8, 9] * 4, True),
        ([*range(24)] * 4, True),
        ([*range(24)] * 4 + [*range(23)], True),
        ([*range(24)] * 3 + [*range(23)], False),
        ([*range(25)] * 5, False),  # twenty-five tokens: too long a pattern
        ([*range(30)], False),
        ([], False),
    ],
)
def test_loops_by_hand(ids, looping):
    assert is_looping(ids) is looping


def looks_looping(ids):
    """The definition, read word by word."""
    ends = [(p, ids[len(ids) - max(4 * p, 12) :]) for p in range(1, 25) if len(ids) >= max(4 * p, 12)]
    return any(all(end[i] == end[i - p] for i in range(p, len(end))) for p, end in ends)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), min_size=1, max_size=26), st.integers(0, 130)
)
def test_loops_are_what_they_are_said_to_be(before, pattern, length):
    ids = before + (pattern * 130)[:length]
    assert is_looping(ids) is looks_looping(ids)


def test_a_chinese_word_said_again_and_again_is_a_loop_in_bytes_too():
    for word in ("我", "你们", "图书馆", "公共汽车"):  # the last two take 9 and 12 bytes
        assert is_looping([*("今天" + word * 4).encode()]), word
        assert not is_looping([*("今天" + word * 3).encode()]), word


@pytest.mark.parametrize(
    "said", ["no no no", "very very much", "1 0 0 0 0 0", "020 7946 0000", "ha ha ha", "123123123"]
)
def test_what_people_repeat_is_no_loop(said):
    for ids in ([*said.encode()], said.split(), lm().tokenizer.encode(said, add_special_tokens=False)):
        assert not is_looping(ids)


@pytest.mark.parametrize("language", ["English", "Chinese"])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 6))
def test_ordinary_sentences_are_no_loops(language, seed, length):
    """Words, characters and bytes of one sentence or of several after each other."""
    words = [
        word for found in islice(sentences(language, "train", np.random.default_rng(seed)), length) for word in found
    ]
    text = (" " if language == "English" else "").join(words)
    for ids in (words, [*text], [*text.encode()]):
        assert not is_looping(ids)


LOOP = [5, 6] * 6


def with_a_loop(monkeypatch, stop=False):
    """Have clip 1 of three loop; the others say a word or nothing."""
    end = lm().stop_ids[0]
    word = lm().tokenizer.encode("sea", add_special_tokens=False)
    ids = [[*word, end], [*LOOP, end] if stop else LOOP, [end]]
    topk = torch.arange(sum(map(len, ids)))[:, None].expand(-1, K)
    made = Generation(ids, [True, stop, True], topk)
    monkeypatch.setattr(rollout_module, "generate", lambda *arguments, **options: made)
    return ids, topk.split([len(row) for row in ids])


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("empty", ["score", "skip", "reference"])
@pytest.mark.parametrize("looping", ["score", "skip", "reference"])
def test_each_oddity_has_its_policy(monkeypatch, stop, empty, looping):
    ids, topk = with_a_loop(monkeypatch, stop)
    rollout = rolled(empty, clips=[1, 2, 3], texts=["a", "b", "the sea", "d"], looping=looping)
    expected = [(0, ids[0], "student")]
    for clip, policy, text in ((1, looping, "the sea"), (2, empty, "d")):
        if policy != "skip":
            read = policy == "reference"
            expected.append((clip, lm().text_ids(text) if read else ids[clip], "reference" if read else "student"))
    assert list(zip(rollout.kept, rollout.made.ids, rollout.sources, strict=True)) == expected
    assert (rollout.num_rolled, rollout.num_empty, rollout.num_looping) == (3, 1, 1)
    assert rollout.num_stopped == 2 + stop and rollout.scored
    for clip, source, rows_of_clip in zip(rollout.kept, rollout.sources, rows(rollout.made)):
        assert torch.equal(rows_of_clip, topk[clip]) == (source == "student")


# Samples


def test_samples_of_a_clip_stand_together_and_its_audio_is_encoded_once(monkeypatch):
    heard = []
    encode = type(lm()).encode_audio
    monkeypatch.setattr(type(lm()), "encode_audio", lambda self, clips: heard.append(len(clips)) or encode(self, clips))
    torch.manual_seed(0)
    rollout = rolled(clips=[1, 2, 3], samples=4, temperature=2.0)
    assert rollout.kept == [0] * 4 + [1] * 4 + [2] * 4 and rollout.num_rolled == 12 and heard == [3]
    assert len({tuple(ids) for ids in rollout.made.ids[:4]}) > 1
    for clip, ids, candidates in zip(rollout.kept, rollout.made.ids, rows(rollout.made)):
        _, prompts = plain([1, 2, 3])
        with torch.no_grad():
            logits = (lm().transcript_states([prompts[clip]], [ids]) @ lm().head.T).masked_fill(lm().blocked, -1e9)
        assert torch.equal(candidates, logits.topk(K).indices)


def test_a_clip_whose_samples_are_odd_is_read_once(monkeypatch):
    ids, _ = with_a_loop(monkeypatch)
    rollout = rolled("reference", clips=[1], texts=["a", "the sea"], looping="reference", samples=3, temperature=1.0)
    assert rollout.made.ids == [ids[0], lm().text_ids("the sea")] and rollout.kept == [0, 0]
    assert rollout.sources == ["student", "reference"] and rollout.num_rolled == 3


def test_what_is_drawn_depends_on_torchs_generator_alone():
    """Which a checkpoint holds: a resumed run samples the same."""
    rolled(temperature=2.0)
    state = torch.get_rng_state()
    first = [rolled(temperature=2.0, top_p=0.9, samples=2).made.ids for _ in range(2)]
    torch.set_rng_state(state)
    assert [rolled(temperature=2.0, top_p=0.9, samples=2).made.ids for _ in range(2)] == first
    assert first[0] != first[1]


def test_greedy_rollouts_draw_nothing():
    state = torch.get_rng_state()
    rolled("reference", texts=["the sea"] * 6)
    assert draw_sources({"student": 1.0, "teacher": 0.0, "reference": 0.0}, 5) == ["student"] * 5
    assert torch.equal(torch.get_rng_state(), state)


# Given texts


def test_given_texts_stand_where_their_clips_do():
    given = {4: ("teacher", "she sells"), 1: ("reference", "one two")}
    rollout, (expected, prompts) = rolled(given=given, k=7), plain(k=7)
    ids = list(expected.ids)
    ids[4], ids[1] = lm().text_ids("she sells"), lm().text_ids("one two")
    assert rollout.kept == list(range(6)) and rollout.made.ids == ids and rollout.num_rolled == 4
    assert rollout.sources == ["student", "reference", "student", "student", "teacher", "student"]
    with torch.no_grad():
        logits = (lm().transcript_states(prompts, ids) @ lm().head.T).masked_fill(lm().blocked, -torch.inf)
    assert torch.equal(rollout.made.topk, logits.topk(7).indices)
    assert rollout.num_empty == 1 and rollout.num_stopped == sum(expected.stopped[i] for i in (0, 2, 3, 5))


def test_where_every_text_is_given_nothing_is_rolled_out(monkeypatch):
    monkeypatch.setattr(rollout_module, "generate", None)
    rollout = rolled("skip", given=dict.fromkeys(range(6), ("teacher", "sea")))
    assert rollout.sources == ["teacher"] * 6 and (rollout.num_rolled, rollout.num_stopped) == (0, 0)


@pytest.mark.parametrize("at_once", [1, 3])
def test_logits_of_given_texts_are_formed_some_at_a_time(at_once, monkeypatch):
    given = {i: ("reference", text) for i, text in enumerate(["she sells", "one", "two three four", "", "a", "b"])}
    expected = rolled(given=given)
    monkeypatch.setattr(rollout_module, "READ", at_once)
    seen, plain_logits = [], rollout_module.head_logits
    monkeypatch.setattr(rollout_module, "head_logits", lambda *of: seen.append(len(of[0])) or plain_logits(*of))
    assert torch.equal(rolled(given=given).made.topk, expected.made.topk)
    assert max(seen) == at_once and sum(seen) == len(expected.made.topk)


@pytest.mark.parametrize("text", ["one <|user|>two", "one <|im_end|>two"])
def test_special_tokens_in_a_text_are_not_read(text):
    rollout = rolled(clips=[1], given={0: ("reference", text)})
    [ids] = rollout.made.ids
    assert lm().text(ids) == "one two" and ids[-1] == lm().stop_ids[0]
    assert not lm().blocked[ids].any() and not set(ids[:-1]) & set(lm().stop_ids)


def test_sources_are_drawn_by_weight():
    torch.manual_seed(1)
    drawn = draw_sources({"student": 2.0, "teacher": 0.0, "reference": 6.0}, 4000)
    assert drawn.count("teacher") == 0 and drawn.count("student") / 4000 == pytest.approx(0.25, abs=0.03)
    assert draw_sources({"teacher": 0.1}, 2) == ["teacher"] * 2

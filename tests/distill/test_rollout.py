"""Rollouts, samples, provided texts, and the policies for empty and looping transcripts."""

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
EMPTY, K = 0, 5  # the student stops at once for the first clip


@lru_cache
def lm():
    return eager_to_stop(student(52))


def rolled(empty="score", clips=None, texts=None, k=K, provided=None, **options):
    data = batch(SIZES, texts)
    data.waveforms, data.texts = ([items[i] for i in clips or range(6)] for items in (data.waveforms, data.texts))
    config = RolloutConfig(max_new_tokens=9, empty=empty, **options)
    return roll_out(lm(), data.waveforms, ["English"] * len(data.waveforms), data.texts, config, k, provided)


def generated(clips=range(6), k=K):
    """Return the result of `generate` for the same clips, and their prompts."""
    waveforms = [waveform(SIZES[i], i) for i in clips]
    with torch.no_grad():
        prompts = lm().embed_prompts(lm().encode_audio(waveforms), ["English"] * len(waveforms))
    return generate(lm(), prompts, token_caps(waveforms, 9, 12.0), k), prompts


def candidates_by_clip(generation):
    return list(generation.topk.split([len(ids) for ids in generation.ids]))


def test_empty_policy_score_keeps_stop_token():
    rollout, (expected, _) = rolled("score"), generated()
    assert rollout.kept == list(range(6)) and rollout.scored
    assert rollout.generation.ids == expected.ids and rollout.generation.ids[EMPTY] == [lm().stop_ids[0]]
    assert torch.equal(rollout.generation.topk, expected.topk) and rollout.generation.topk.shape[1] == K
    assert rollout.num_empty == 1 == sum(not lm().text(ids) for ids in expected.ids)
    assert rollout.num_stopped == sum(expected.stopped) >= 1


def test_empty_policy_skip_removes_clip():
    rollout, (expected, _) = rolled("skip"), generated()
    assert rollout.kept == [1, 2, 3, 4, 5] and rollout.scored
    assert rollout.generation.ids == expected.ids[1:] and rollout.generation.stopped == expected.stopped[1:]
    assert torch.equal(rollout.generation.topk, torch.cat(candidates_by_clip(expected)[1:]))
    assert rollout.num_empty == 1 and rollout.num_stopped == sum(expected.stopped)


def test_empty_policy_reference_replaces_transcript():
    texts = ["the sea shells", "b", "c", "d", "e", "f"]
    rollout, (expected, prompts) = rolled("reference", texts=texts, k=100), generated(k=100)
    ids = lm().text_ids("the sea shells")
    assert rollout.kept == list(range(6)) and rollout.generation.ids == [ids, *expected.ids[1:]]
    embed = lm().hf.get_input_embeddings().weight
    with torch.no_grad():
        logits = lm().hf(inputs_embeds=torch.cat([prompts[EMPTY], embed[ids]])[None]).logits[0]
    logits = logits[len(prompts[EMPTY]) - 1 : -1]
    allowed = logits.masked_fill(lm().blocked, -torch.inf)
    assert lm().blocked[logits.topk(100).indices].any()
    found = candidates_by_clip(rollout.generation)[EMPTY]
    assert found.sort().values.diff().all()  # each candidate once
    # Another batch shape is rounded in another way, which swaps candidates of nearly equal logits on some processors.
    torch.testing.assert_close(allowed.gather(1, found), allowed.topk(100).values, rtol=0, atol=1e-5)
    assert torch.equal(
        torch.cat(candidates_by_clip(rollout.generation)[1:]), torch.cat(candidates_by_clip(expected)[1:])
    )
    assert rollout.num_empty == 1


@pytest.mark.parametrize("empty", ["score", "skip", "reference"])
def test_empty_policy_applies_to_batch_of_empty_transcripts(empty):
    rollout = rolled(empty, clips=[EMPTY] * 3, texts=["the fox"] * 6)
    stop = lm().stop_ids[0]
    expected = {
        "score": ([0, 1, 2], [[stop]] * 3, True),
        "skip": ([0], [[stop]], False),
        "reference": ([0, 1, 2], [lm().text_ids("the fox")] * 3, True),
    }
    assert (rollout.kept, rollout.generation.ids, rollout.scored) == expected[empty]
    assert len(rollout.generation.topk) == sum(map(len, rollout.generation.ids))
    assert (rollout.num_empty, rollout.num_stopped) == (3, 3)


@pytest.mark.parametrize("empty", ["skip", "reference"])
def test_empty_policy_has_no_effect_without_empty_transcripts(empty):
    clips = [1, 2, 3, 5]
    rollout, (expected, _) = rolled(empty, clips=clips), generated(clips)
    assert rollout.kept == [0, 1, 2, 3] and rollout.generation.ids == expected.ids and rollout.num_empty == 0
    assert torch.equal(rollout.generation.topk, expected.topk)


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_policy_reference_scores_clip_without_reference(text):
    rollout, (expected, _) = rolled("reference", texts=[text] * 6), generated()
    assert rollout.generation.ids == expected.ids and rollout.sources == ["student"] * 6


def test_empty_policy_precedes_looping_policy(monkeypatch):
    space = lm().tokenizer.encode("  ", add_special_tokens=False)
    ids = (space * 20)[:20]
    assert is_looping(ids, lm().stop_ids) and not lm().text(ids)
    result = Generation([ids], [False], torch.zeros(20, K, dtype=torch.long))
    monkeypatch.setattr("arkasr.distill.rollout.generate", lambda *arguments, **options: result)
    rollout = rolled("reference", clips=[1], texts=["", "the sea"], looping="skip")
    assert rollout.sources == ["reference"] and rollout.generation.ids == [lm().text_ids("the sea")]
    assert not rolled("skip", clips=[1], texts=["", "the sea"], looping="reference").scored


def test_empty_transcript_may_contain_spaces(monkeypatch):
    stop = lm().stop_ids[0]
    words = [[*lm().tokenizer.encode(text, add_special_tokens=False), stop] for text in ("  ", "sea", "")]
    result = Generation(words, [True] * 3, torch.zeros(sum(map(len, words)), K, dtype=torch.long))
    monkeypatch.setattr("arkasr.distill.rollout.generate", lambda *arguments, **options: result)
    rollout = rolled("skip", clips=[1, 2, 3])
    assert rollout.kept == [1] and rollout.num_empty == 2 and rollout.generation.ids == [words[1]]


def test_token_caps_follow_configuration():
    rollout = rolled("score", clips=[1, 3], tokens_per_second=2.0)
    assert [len(ids) for ids in rollout.generation.ids] == [3, 5] and rollout.generation.stopped == [False, False]


def test_reference_candidates_are_limited_by_vocabulary_size():
    rollout = rolled("reference", texts=["the sea"] * 6, k=10**6)
    assert rollout.generation.topk.shape[1] == len(lm().blocked)


def test_rollout_is_random_only_with_temperature():
    torch.manual_seed(0)
    first = rolled("score", temperature=2.0).generation.ids
    assert rolled("score", temperature=2.0).generation.ids != first
    torch.manual_seed(0)
    assert rolled("score", temperature=2.0).generation.ids == first
    assert rolled("score").generation.ids == rolled("score").generation.ids


def test_rollout_candidates_have_no_gradient():
    assert not rolled("reference", texts=["the sea"] * 6).generation.topk.requires_grad


# Loops


@pytest.mark.parametrize(
    ("ids", "looping"),
    [
        ([7] * 12, True),
        ([7] * 11, False),  # four repetitions, but fewer than 12 tokens
        ([1, 2, 3] * 4, True),
        ([9, 8, *[1, 2, 3] * 4, 1, 2], True),  # the fifth repetition is incomplete
        ([1, 2, 3] * 3 + [1, 2], False),  # eleven tokens
        ([*[1, 2, 3] * 4, 9], False),  # the loop ends
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, True),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 3 + [1, 2, 3, 4, 5, 6, 7], False),  # the fourth repetition lacks one token
        ([1, 2, 3, 4, 5, 6, 7, 8, 9] * 4, True),
        ([*range(24)] * 4, True),
        ([*range(24)] * 4 + [*range(23)], True),
        ([*range(24)] * 3 + [*range(23)], False),
        ([*range(25)] * 5, False),  # a pattern of 25 tokens is too long
        ([*range(30)], False),
        ([], False),
    ],
)
def test_is_looping_on_worked_examples(ids, looping):
    assert is_looping(ids) is looping


def reference_is_looping(ids):
    """Check every pattern length from 1 to 24 as the definition states it."""
    ends = [(p, ids[len(ids) - max(4 * p, 12) :]) for p in range(1, 25) if len(ids) >= max(4 * p, 12)]
    return any(all(end[i] == end[i - p] for i in range(p, len(end))) for p, end in ends)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), min_size=1, max_size=26), st.integers(0, 130)
)
def test_is_looping_equals_reference(before, pattern, length):
    ids = before + (pattern * 130)[:length]
    assert is_looping(ids) is reference_is_looping(ids)


def test_is_looping_detects_repeated_chinese_word_in_bytes():
    for word in ("我", "你们", "图书馆", "公共汽车"):  # the last two take 9 and 12 bytes
        assert is_looping([*("今天" + word * 4).encode()]), word
        assert not is_looping([*("今天" + word * 3).encode()]), word


@pytest.mark.parametrize(
    "text", ["no no no", "very very much", "1 0 0 0 0 0", "020 7946 0000", "ha ha ha", "123123123"]
)
def test_is_looping_accepts_natural_repetition(text):
    for ids in ([*text.encode()], text.split(), lm().tokenizer.encode(text, add_special_tokens=False)):
        assert not is_looping(ids)


@pytest.mark.parametrize("language", ["English", "Chinese"])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 6))
def test_is_looping_accepts_ordinary_sentences(language, seed, length):
    """Check words, characters and bytes of one or several consecutive sentences."""
    words = [
        word for found in islice(sentences(language, "train", np.random.default_rng(seed)), length) for word in found
    ]
    text = (" " if language == "English" else "").join(words)
    for ids in (words, [*text], [*text.encode()]):
        assert not is_looping(ids)


LOOP = [5, 6] * 6


def patch_looping_clip(monkeypatch, stop=False):
    """Make `generate` return a word, a loop and an empty transcript for three clips."""
    end = lm().stop_ids[0]
    word = lm().tokenizer.encode("sea", add_special_tokens=False)
    ids = [[*word, end], [*LOOP, end] if stop else LOOP, [end]]
    topk = torch.arange(sum(map(len, ids)))[:, None].expand(-1, K)
    result = Generation(ids, [True, stop, True], topk)
    monkeypatch.setattr(rollout_module, "generate", lambda *arguments, **options: result)
    return ids, topk.split([len(row) for row in ids])


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("empty", ["score", "skip", "reference"])
@pytest.mark.parametrize("looping", ["score", "skip", "reference"])
def test_empty_and_looping_policies_are_independent(monkeypatch, stop, empty, looping):
    ids, topk = patch_looping_clip(monkeypatch, stop)
    rollout = rolled(empty, clips=[1, 2, 3], texts=["a", "b", "the sea", "d"], looping=looping)
    expected = [(0, ids[0], "student")]
    for clip, policy, text in ((1, looping, "the sea"), (2, empty, "d")):
        if policy != "skip":
            replaced = policy == "reference"
            transcript = lm().text_ids(text) if replaced else ids[clip]
            expected.append((clip, transcript, "reference" if replaced else "student"))
    assert list(zip(rollout.kept, rollout.generation.ids, rollout.sources, strict=True)) == expected
    assert (rollout.num_rolled, rollout.num_empty, rollout.num_looping) == (3, 1, 1)
    assert rollout.num_stopped == 2 + stop and rollout.scored
    for clip, source, candidates in zip(rollout.kept, rollout.sources, candidates_by_clip(rollout.generation)):
        assert torch.equal(candidates, topk[clip]) == (source == "student")


# Samples


@pytest.mark.slow
def test_samples_are_grouped_by_clip_and_share_encoded_audio(monkeypatch):
    calls, encode = [], type(lm()).encode_audio
    monkeypatch.setattr(type(lm()), "encode_audio", lambda self, clips: calls.append(len(clips)) or encode(self, clips))
    torch.manual_seed(0)
    rollout = rolled(clips=[1, 2, 3], samples=4, temperature=2.0)
    assert rollout.kept == [0] * 4 + [1] * 4 + [2] * 4 and rollout.num_rolled == 12 and calls == [3]
    assert len({tuple(ids) for ids in rollout.generation.ids[:4]}) > 1
    for clip, ids, candidates in zip(rollout.kept, rollout.generation.ids, candidates_by_clip(rollout.generation)):
        _, prompts = generated([1, 2, 3])
        with torch.no_grad():
            logits = (lm().transcript_states([prompts[clip]], [ids]) @ lm().head.T).masked_fill(lm().blocked, -1e9)
        assert torch.equal(candidates, logits.topk(K).indices)


def test_reference_replaces_several_samples_once(monkeypatch):
    ids, _ = patch_looping_clip(monkeypatch)
    rollout = rolled("reference", clips=[1], texts=["a", "the sea"], looping="reference", samples=3, temperature=1.0)
    assert rollout.generation.ids == [ids[0], lm().text_ids("the sea")] and rollout.kept == [0, 0]
    assert rollout.sources == ["student", "reference"] and rollout.num_rolled == 3


def test_rollout_repeats_from_saved_generator_state():
    """Checkpoints store torch's generator state, so a resumed run draws the same samples."""
    rolled(temperature=2.0)
    state = torch.get_rng_state()
    first = [rolled(temperature=2.0, top_p=0.9, samples=2).generation.ids for _ in range(2)]
    torch.set_rng_state(state)
    assert [rolled(temperature=2.0, top_p=0.9, samples=2).generation.ids for _ in range(2)] == first
    assert first[0] != first[1]


def test_greedy_rollout_draws_no_random_number():
    state = torch.get_rng_state()
    rolled("reference", texts=["the sea"] * 6)
    assert draw_sources({"student": 1.0, "teacher": 0.0, "reference": 0.0}, 5) == ["student"] * 5
    assert torch.equal(torch.get_rng_state(), state)


# Provided texts


def test_provided_texts_keep_clip_order():
    provided = {4: ("teacher", "she sells"), 1: ("reference", "one two")}
    rollout, (expected, prompts) = rolled(provided=provided, k=7), generated(k=7)
    ids = list(expected.ids)
    ids[4], ids[1] = lm().text_ids("she sells"), lm().text_ids("one two")
    assert rollout.kept == list(range(6)) and rollout.generation.ids == ids and rollout.num_rolled == 4
    assert rollout.sources == ["student", "reference", "student", "student", "teacher", "student"]
    with torch.no_grad():
        logits = (lm().transcript_states(prompts, ids) @ lm().head.T).masked_fill(lm().blocked, -torch.inf)
    assert torch.equal(rollout.generation.topk, logits.topk(7).indices)
    assert rollout.num_empty == 1 and rollout.num_stopped == sum(expected.stopped[i] for i in (0, 2, 3, 5))


def test_provided_texts_for_all_clips_skip_generation(monkeypatch):
    monkeypatch.setattr(rollout_module, "generate", None)
    rollout = rolled("skip", provided=dict.fromkeys(range(6), ("teacher", "sea")))
    assert rollout.sources == ["teacher"] * 6 and (rollout.num_rolled, rollout.num_stopped) == (0, 0)


@pytest.mark.parametrize("chunk", [1, 3])
def test_provided_texts_form_logits_in_chunks(chunk, monkeypatch):
    provided = {i: ("reference", text) for i, text in enumerate(["she sells", "one", "two three four", "", "a", "b"])}
    expected = rolled(provided=provided)
    monkeypatch.setattr(rollout_module, "CHUNK", chunk)
    sizes, head_logits = [], rollout_module.head_logits
    monkeypatch.setattr(rollout_module, "head_logits", lambda *args: sizes.append(len(args[0])) or head_logits(*args))
    assert torch.equal(rolled(provided=provided).generation.topk, expected.generation.topk)
    assert max(sizes) == chunk and sum(sizes) == len(expected.generation.topk)


RESERVED = ["one <|user|>two", "one <|im_end|>two"]


@pytest.mark.parametrize("text", RESERVED)
def test_provided_text_with_special_tokens_is_logged_and_rolled_out(text, capsys):
    rollout = rolled(clips=[1], provided={0: ("reference", text)})
    assert rollout.sources == ["student"]
    assert rollout.generation.ids == rolled(clips=[1]).generation.ids
    assert f"reference text {text!r} contains reserved tokens" in capsys.readouterr().out


@pytest.mark.parametrize("text", RESERVED)
def test_policy_reference_keeps_transcript_if_the_reference_holds_special_tokens(text, capsys):
    rollout = rolled("reference", texts=[text] * 6)
    assert rollout.sources == ["student"] * 6
    assert rollout.generation.ids == generated()[0].ids
    assert "contains reserved tokens" in capsys.readouterr().out


def test_draw_sources_follows_weights():
    torch.manual_seed(1)
    drawn = draw_sources({"student": 2.0, "teacher": 0.0, "reference": 6.0}, 4000)
    assert drawn.count("teacher") == 0 and drawn.count("student") / 4000 == pytest.approx(0.25, abs=0.03)
    assert draw_sources({"teacher": 0.1}, 2) == ["teacher"] * 2

"""Test generate() against decoding without a cache, one clip at a time. Also token caps, nucleus and cache_argument."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from decoding import SIZES, prompts_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import eager_to_stop, student, teacher, waveform
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from arkasr.model.generation import Generation, cache_argument, generate, is_looping, schedule, token_caps
from arkasr.model.generation.choosing import nucleus


def reference_greedy(lm, prompt, cap, k):
    """Return greedy ids and the k best allowed ids of each step, from a full forward pass per step."""
    embed, ids, candidates = lm.hf.get_input_embeddings().weight, [], []
    allowed = [i for i in range(len(lm.blocked)) if not lm.blocked[i]]
    for _ in range(cap):
        with torch.no_grad():
            logits = lm.hf(inputs_embeds=torch.cat([prompt, embed[ids]])[None]).logits[0, -1].tolist()
        best = sorted(allowed, key=lambda i: -logits[i])
        ids.append(best[0])
        candidates.append(best[:k])
        if best[0] in lm.stop_ids:
            break
    return ids, candidates


@pytest.fixture(scope="module", params=["ark", "qwen"])
def lm(request):
    return eager_to_stop(student(24) if request.param == "ark" else teacher(10), 2.0)


def test_generate_matches_decoding_without_a_cache(lm):
    prompts, caps, k = prompts_of(lm), [14, 3, 9, 17, 1, 12], 5
    result = generate(lm, prompts, caps, top_k=k)
    expected = [reference_greedy(lm, prompt, cap, k) for prompt, cap in zip(prompts, caps)]
    assert result.ids == [ids for ids, _ in expected]
    assert result.stopped == [ids[-1] in lm.stop_ids for ids, _ in expected]
    assert result.topk.tolist() == [row for _, rows in expected for row in rows]
    assert len({tuple(ids[:3]) for ids in result.ids}) > 2


def test_generate_stops_some_transcripts_and_cuts_others(lm):
    """The clips of the test above must give both cases. A stop id, if any, is the last id."""
    result = generate(lm, prompts_of(lm), [17] * len(SIZES))
    for ids, stopped in zip(result.ids, result.stopped):
        assert not set(ids[:-1]) & set(lm.stop_ids)
        assert (ids[-1] in lm.stop_ids) == stopped and (stopped or len(ids) == 17)
    assert any(result.stopped) and not all(result.stopped)
    assert result.topk.shape == (sum(map(len, result.ids)), 0)


@pytest.mark.parametrize("every", [1, 2, 3, 1000])
def test_generate_does_not_depend_on_batch_composition(lm, every, monkeypatch):
    prompts, caps = prompts_of(lm), [6, 20, 1, 13, 9, 20]
    expected = generate(lm, prompts, caps, top_k=3)
    monkeypatch.setattr(schedule, "CPU", replace(schedule.CPU, every=every))
    assert same(generate(lm, prompts, caps, top_k=3), expected)
    alone = [generate(lm, [prompt], [cap], top_k=3) for prompt, cap in zip(prompts, caps)]
    joined = Generation(
        [ids for one in alone for ids in one.ids],
        [flag for one in alone for flag in one.stopped],
        torch.cat([one.topk for one in alone]),
    )
    assert same(joined, expected)


def test_generate_drops_finished_clips_from_the_batch(lm):
    seen = []
    hook = lm.hf.model.language_model.register_forward_hook(lambda *of: seen.append(len(of[2].last_hidden_state)))
    result = generate(lm, prompts_of(lm), [1, 3, 5, 9, 14, 20])
    hook.remove()
    lengths = [len(ids) for ids in result.ids]
    every = schedule.CPU.every
    expected = [
        sum(n > step // every * every for n in lengths) for step in range(math.ceil(max(lengths) / every) * every)
    ]
    assert seen == expected[: len(seen)] and len(seen) >= max(lengths) and seen[-1] < seen[0]


class Reads(TorchDispatchMode):
    """Count how often a value is read from a tensor, which would wait for the GPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [SIZES, [9000, 9000]])
def test_generate_reads_no_value_from_a_tensor_per_token(temperature, sizes, monkeypatch):
    lm, counts = student(10), []  # its transcripts run to the token cap
    prompts = prompts_of(lm, sizes)
    monkeypatch.setattr(schedule, "CPU", replace(schedule.CPU, every=10))
    for cap in (20, 60):
        with Reads() as reads:
            result = generate(lm, prompts, [cap] * len(sizes), 4, temperature, torch.Generator().manual_seed(0))
        counts.append(reads.count)
        assert max(map(len, result.ids)) == cap
    assert counts[1] - counts[0] <= 2 * 4  # two reads per check: whether any clip is finished, and which


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=6))
def test_generate_respects_the_cap_of_each_clip(chosen):
    prompts = prompts_of(shared())
    result = generate(shared(), [prompts[i] for i, _ in chosen], [cap for _, cap in chosen], top_k=2)
    for (clip, cap), ids, stopped in zip(chosen, result.ids, result.stopped):
        full, ended = full_rollouts()[clip]
        assert ids == full[:cap] and stopped == (ended and len(full) <= cap)
    assert result.topk.shape == (sum(map(len, result.ids)), 2)


@lru_cache
def shared():
    return eager_to_stop(student(24), 2.0)


@lru_cache
def full_rollouts():
    """Transcribe each clip alone, with the largest cap."""
    result = [generate(shared(), [prompt], [12]) for prompt in prompts_of(shared())]
    return [(one.ids[0], one.stopped[0]) for one in result]


def test_generate_counts_a_stop_at_the_cap_as_stopped(lm):
    prompts = prompts_of(lm)
    result = generate(lm, prompts, [17] * len(prompts))
    clip = result.stopped.index(True)
    length = len(result.ids[clip])
    again = generate(lm, [prompts[clip]], [length])
    assert again.ids == [result.ids[clip]] and again.stopped == [True]
    if length > 1:
        shorter = generate(lm, [prompts[clip]], [length - 1])
        assert shorter.ids == [result.ids[clip][:-1]] and shorter.stopped == [False]


def test_generate_ends_a_transcript_at_every_stop_id():
    lm = eager_to_stop(teacher(10), 2.0)
    prompts, (first, second) = prompts_of(lm), lm.stop_ids
    expected = generate(lm, prompts, [17] * len(prompts))
    with torch.no_grad():  # swap the logits of the two stop ids
        lm.head[[first, second]] = lm.head[[second, first]]
    result = generate(lm, prompts, [17] * len(prompts))
    assert result.stopped == expected.stopped and any(result.stopped)
    assert result.ids == [[{first: second, second: first}.get(i, i) for i in ids] for ids in expected.ids]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 30.0])
def test_generate_never_returns_blocked_ids(temperature):
    lm = student(8)
    with torch.no_grad():
        lm.head[lm.blocked] *= 30  # without the mask they would often be the best
    prompts = prompts_of(lm)
    result = generate(lm, prompts, [20] * len(prompts), 8, temperature, torch.Generator().manual_seed(0))
    assert not lm.blocked[torch.tensor([i for ids in result.ids for i in ids])].any()
    assert not lm.blocked[result.topk].any()
    blocked, lm.blocked = lm.blocked, torch.zeros_like(lm.blocked)
    unmasked = generate(lm, prompts, [20] * len(prompts))
    assert blocked[torch.tensor([i for ids in unmasked.ids for i in ids])].any()


def test_generate_repeats_its_samples_with_the_same_generator():
    lm, prompts = shared(), prompts_of(shared())
    draw = lambda seed: generate(lm, prompts, [12] * 6, 4, 1.5, torch.Generator().manual_seed(seed))  # noqa: E731
    assert same(draw(1), draw(1))
    assert draw(1).ids != draw(2).ids
    greedy = generate(lm, prompts, [12] * 6)
    assert generate(lm, prompts, [12] * 6, temperature=1e-4).ids == greedy.ids != draw(1).ids


def test_generate_samples_from_the_models_distribution():
    lm, [prompt] = shared(), prompts_of(shared(), [8000])
    num_samples = 4000
    result = generate(lm, [prompt] * num_samples, [1] * num_samples, 1, 0.7, torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = lm.hf(inputs_embeds=prompt[None]).logits[0, -1].double()
    expected = (logits.masked_fill(lm.blocked, -torch.inf) / 0.7).softmax(0)
    drawn = torch.tensor([ids[0] for ids in result.ids]).bincount(minlength=len(expected)) / num_samples
    assert (drawn - expected).abs().max() < 4 * (0.25 / num_samples) ** 0.5
    assert result.topk.eq(expected.argmax()).all()


def test_nucleus_matches_values_by_hand():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.0, 0.0, 1.0, 0.0]])
    assert nucleus(probs, 0.7).tolist() == [pytest.approx([0, 0.5, 0, 0.25]), [0, 0, 1, 0]]
    assert nucleus(probs, 0.5)[0].tolist() == pytest.approx([0, 0.5, 0, 0])  # the first token is enough
    assert nucleus(probs, 0.91)[0].tolist() == pytest.approx([0.1, 0.5, 0.15, 0.25])
    assert nucleus(probs, 1e-6)[0].tolist() == pytest.approx([0, 0.5, 0, 0])


@pytest.mark.slow
def test_generate_samples_from_the_renormalised_nucleus():
    lm, [prompt] = shared(), prompts_of(shared(), [8000])
    num_samples = 2000
    draw = lambda top_p: generate(  # noqa: E731
        lm, [prompt] * num_samples, [1] * num_samples, 1, 2.0, torch.Generator().manual_seed(3), top_p=top_p
    )
    with torch.no_grad():
        logits = lm.hf(inputs_embeds=prompt[None]).logits[0, -1].masked_fill(lm.blocked, -torch.inf)
    kept = nucleus((logits / 2.0).softmax(0)[None], 0.6)[0]
    drawn = torch.tensor([ids[0] for ids in draw(0.6).ids]).bincount(minlength=len(kept)) / num_samples
    assert 1 < int((kept > 0).sum()) < len(kept) and not drawn[kept == 0].any()
    assert (drawn - kept / kept.sum()).abs().max() < 4 * (0.25 / num_samples) ** 0.5
    assert {ids[0] for ids in draw(1.0).ids} > set(drawn.nonzero()[:, 0].tolist())
    assert draw(1e-6).ids == generate(lm, [prompt] * num_samples, [1] * num_samples).ids


def test_generate_returns_topk_along_the_sampled_transcript():
    lm, prompts = shared(), prompts_of(shared())
    result = generate(lm, prompts, [9] * 6, 4, 2.0, torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = (lm.transcript_states(prompts, result.ids) @ lm.head.T).masked_fill(lm.blocked, -torch.inf)
    assert torch.equal(result.topk, logits.topk(4).indices)


def test_generate_limits_top_k_to_the_vocabulary():
    lm = shared()
    result = generate(lm, prompts_of(lm)[:1], [2], top_k=10**6)
    assert result.topk.sort().values.tolist() == [list(range(len(lm.blocked)))] * len(result.topk)


def test_generate_keeps_no_gradient():
    lm = student(6)
    prompts = lm.embed_prompts(lm.encode_audio([waveform(4000)]), ["English"])
    assert prompts[0].requires_grad
    assert not generate(lm, prompts, [3], 2).topk.requires_grad


@pytest.mark.parametrize(
    ("samples", "most", "rate", "expected"),
    [
        (16000, 64, 12.0, 14),
        (16001, 64, 12.0, 15),
        (160000, 64, 12.0, 64),
        (0, 64, 12.0, 2),
        (8000, 9, 12.0, 8),
        (0, 64, 0.0, 64),
    ],
)
def test_token_caps_follow_the_duration(samples, most, rate, expected):
    assert token_caps([torch.zeros(samples)], most, rate) == [expected]


@torch.no_grad()
def test_generate_separates_tokens_whose_bfloat16_logits_are_equal():
    """The second best row of the head differs from the best in one last bit, which bfloat16 logits cannot show."""
    lm = student(1).to(torch.bfloat16)
    prompts = prompts_of(lm, [8000])
    [[best]] = generate(lm, prompts, [1]).ids
    state = lm.transcript_states(prompts, [[best]])[0]
    below = next(i for i in range(best) if not lm.blocked[i] and i not in lm._ids("".join(lm.prompt_text("English"))))
    lm.head[below] = lm.head[best]
    place = (state * lm.head[best]).argmax()
    lm.head[below, place] *= 1 - 2**-7
    assert (lm.head[below] != lm.head[best]).sum() == 1
    rounded = (lm.head[[below, best]] @ state).tolist()
    assert rounded[0] == rounded[1]
    result = generate(lm, prompts, [1], top_k=2)
    assert result.ids == [[best]] and result.topk.tolist() == [[best, below]]


class NewDecoder(nn.Module):
    """Takes its cache as transformers does from 5.24 on."""

    def forward(self, inputs_embeds, cache=None, use_cache=None):
        return inputs_embeds


class OldDecoder(nn.Module):
    """Takes its cache as transformers did before 5.24."""

    def forward(self, inputs_embeds, past_key_values=None, use_cache=None):
        return inputs_embeds


@pytest.mark.parametrize(("module", "name"), [(NewDecoder(), "cache"), (OldDecoder(), "past_key_values")])
def test_cache_argument_reads_the_name_from_the_signature(module, name):
    assert cache_argument(module) == name


def test_cache_argument_is_accepted_by_the_decoder_without_a_future_warning(lm):
    decoder, cache = lm.hf.model.language_model, DynamicCache(config=lm.hf.config.text_config)
    embeds = prompts_of(lm, [4000])[0][None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        states = decoder(inputs_embeds=embeds, use_cache=True, **{cache_argument(decoder): cache})
    assert cache.get_seq_length() == embeds.shape[1] == states.last_hidden_state.shape[1]


def test_is_looping_ignores_stop_token_after_loop():
    text = [5, 6, 7] * 5
    assert is_looping([*text, 2], [2, 3]) and not is_looping([*text, 2]) and is_looping(text)
    assert not is_looping([5, 2, 6] * 5, [2, 5])  # without the stop tokens it is one token, repeated too few times


# Odd inputs


def test_generate_without_prompts_returns_nothing(ark):
    found = generate(ark, [], [], top_k=3)
    assert found.ids == found.stopped == [] and found.topk.shape == (0, 3)


@pytest.mark.parametrize("caps", [[0, 0], [0, 5], [-3, 4]])
def test_generate_writes_nothing_for_a_cap_of_zero(ark, caps):
    clips = [waveform(9000), waveform(16000)]
    prompts = ark.embed_prompts(ark.encode_audio(clips), ["English"] * 2)
    found = generate(ark, prompts, caps, top_k=2)
    assert found.ids[0] == [] and not found.stopped[0]
    alone = generate(ark, prompts[1:], caps[1:])
    assert found.ids[1] == alone.ids[0] and len(found.topk) == len(found.ids[1])


def test_generate_samples_from_a_diverged_model_without_an_error():
    lm = student(4)
    with torch.no_grad():
        lm.hf.model.language_model.norm.weight.fill_(float("nan"))
    prompts = lm.embed_prompts(lm.encode_audio([waveform(9000)]), ["English"])
    for top_p in (1.0, 0.8):
        found = generate(lm, prompts, [3], temperature=1.0, top_p=top_p, generator=torch.Generator().manual_seed(0))
        assert 1 <= len(found.ids[0]) <= 3 and not any(lm.blocked[i] for i in found.ids[0])


def test_token_caps_of_clips_without_samples():
    assert token_caps([torch.zeros(0), torch.zeros(1)], 10, 12.5) == [2, 3]
    assert token_caps([], 10, 12.5) == [] and token_caps([torch.zeros(0)], 10, 0) == [10]

"""generate() against a loop without a cache, clip by clip."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import eager_to_stop, student, teacher, waveform
from torch.utils._python_dispatch import TorchDispatchMode

from arkasr.model import generation
from arkasr.model.generation import Generation, generate, nucleus, token_caps

SIZES = [16000, 4000, 9000, 24000, 160, 12345]


def prompts_of(lm, sizes=SIZES):
    with torch.no_grad():
        clips = [waveform(n, seed=i) for i, n in enumerate(sizes)]
        return lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(sizes))


def naive(lm, prompt, cap, k):
    """Greedy ids and each step's k best allowed ids, by whole forward passes."""
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
    return eager_to_stop(student(10) if request.param == "ark" else teacher(10), 2.0)


def test_greedy_ids_and_candidates_are_those_of_the_loop_without_a_cache(lm):
    prompts, caps, k = prompts_of(lm), [14, 3, 9, 17, 1, 12], 5
    made = generate(lm, prompts, caps, top_k=k)
    expected = [naive(lm, prompt, cap, k) for prompt, cap in zip(prompts, caps)]
    assert made.ids == [ids for ids, _ in expected]
    assert made.stopped == [ids[-1] in lm.stop_ids for ids, _ in expected]
    assert made.topk.tolist() == [row for _, rows in expected for row in rows]
    assert len({tuple(ids[:3]) for ids in made.ids}) > 2


def test_some_rows_stop_and_some_are_cut(lm):
    """The case above must hold both ends; a stop, if any, stands last."""
    made = generate(lm, prompts_of(lm), [17] * len(SIZES))
    for ids, stopped in zip(made.ids, made.stopped):
        assert not set(ids[:-1]) & set(lm.stop_ids)
        assert (ids[-1] in lm.stop_ids) == stopped and (stopped or len(ids) == 17)
    assert any(made.stopped) and not all(made.stopped)
    assert made.topk.shape == (sum(map(len, made.ids)), 0)


@pytest.mark.parametrize("every", [1, 2, 3, 1000])
def test_leaving_the_batch_changes_nothing(lm, every, monkeypatch):
    prompts, caps = prompts_of(lm), [6, 20, 1, 13, 9, 20]
    expected = generate(lm, prompts, caps, top_k=3)
    monkeypatch.setattr(generation, "CHECK_EVERY", every)
    assert same(generate(lm, prompts, caps, top_k=3), expected)
    alone = [generate(lm, [prompt], [cap], top_k=3) for prompt, cap in zip(prompts, caps)]
    joined = Generation(
        [ids for one in alone for ids in one.ids],
        [flag for one in alone for flag in one.stopped],
        torch.cat([one.topk for one in alone]),
    )
    assert same(joined, expected)


def test_rows_that_are_done_leave_the_batch(lm):
    seen = []
    hook = lm.hf.model.language_model.register_forward_hook(lambda *of: seen.append(len(of[2].last_hidden_state)))
    made = generate(lm, prompts_of(lm), [1, 3, 5, 9, 14, 20])
    hook.remove()
    lengths = [len(ids) for ids in made.ids]
    every = generation.CHECK_EVERY
    expected = [
        sum(n > step // every * every for n in lengths) for step in range(math.ceil(max(lengths) / every) * every)
    ]
    assert seen == expected[: len(seen)] and len(seen) >= max(lengths) and seen[-1] < seen[0]


class Reads(TorchDispatchMode):
    """Counts how often a number is read off a tensor, for which a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count and run."""
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [SIZES, [9000, 9000]])
def test_nothing_is_read_off_a_tensor_for_a_token(temperature, sizes, monkeypatch):
    lm, counts = student(10), []  # its rollouts do not end by themselves
    prompts = prompts_of(lm, sizes)
    monkeypatch.setattr(generation, "CHECK_EVERY", 10)
    for cap in (20, 60):
        with Reads() as reads:
            made = generate(lm, prompts, [cap] * len(sizes), 4, temperature, torch.Generator().manual_seed(0))
        counts.append(reads.count)
        assert max(map(len, made.ids)) == cap
    assert counts[1] - counts[0] <= 2 * 4  # at each look at who is done: whether anybody is, and who


def same(a, b):
    return a.ids == b.ids and a.stopped == b.stopped and torch.equal(a.topk, b.topk)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=6))
def test_caps_hold_in_any_batch(chosen):
    prompts = prompts_of(shared())
    made = generate(shared(), [prompts[i] for i, _ in chosen], [cap for _, cap in chosen], top_k=2)
    for (clip, cap), ids, stopped in zip(chosen, made.ids, made.stopped):
        full, ended = full_rollouts()[clip]
        assert ids == full[:cap] and stopped == (ended and len(full) <= cap)
    assert made.topk.shape == (sum(map(len, made.ids)), 2)


@lru_cache
def shared():
    return eager_to_stop(student(10), 2.0)


@lru_cache
def full_rollouts():
    """Each clip alone with a cap above all others."""
    made = [generate(shared(), [prompt], [12]) for prompt in prompts_of(shared())]
    return [(one.ids[0], one.stopped[0]) for one in made]


def test_a_stop_at_the_cap_counts_as_stopped(lm):
    prompts = prompts_of(lm)
    made = generate(lm, prompts, [17] * len(prompts))
    clip = made.stopped.index(True)
    length = len(made.ids[clip])
    again = generate(lm, [prompts[clip]], [length])
    assert again.ids == [made.ids[clip]] and again.stopped == [True]
    if length > 1:
        shorter = generate(lm, [prompts[clip]], [length - 1])
        assert shorter.ids == [made.ids[clip][:-1]] and shorter.stopped == [False]


def test_every_stop_id_ends_a_transcript():
    lm = eager_to_stop(teacher(10), 2.0)
    prompts, (first, second) = prompts_of(lm), lm.stop_ids
    expected = generate(lm, prompts, [17] * len(prompts))
    with torch.no_grad():  # each is scored as the other was
        lm.head[[first, second]] = lm.head[[second, first]]
    made = generate(lm, prompts, [17] * len(prompts))
    assert made.stopped == expected.stopped and any(made.stopped)
    assert made.ids == [[{first: second, second: first}.get(i, i) for i in ids] for ids in expected.ids]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 30.0])
def test_blocked_ids_are_never_chosen_nor_candidates(temperature):
    lm = student(8)
    with torch.no_grad():
        lm.head[lm.blocked] *= 30  # without the mask they would often win
    prompts = prompts_of(lm)
    made = generate(lm, prompts, [20] * len(prompts), 8, temperature, torch.Generator().manual_seed(0))
    assert not lm.blocked[torch.tensor([i for ids in made.ids for i in ids])].any()
    assert not lm.blocked[made.topk].any()
    blocked, lm.blocked = lm.blocked, torch.zeros_like(lm.blocked)
    loud = generate(lm, prompts, [20] * len(prompts))
    assert blocked[torch.tensor([i for ids in loud.ids for i in ids])].any()


def test_sampling_repeats_with_its_generator():
    lm, prompts = shared(), prompts_of(shared())
    draw = lambda seed: generate(lm, prompts, [12] * 6, 4, 1.5, torch.Generator().manual_seed(seed))  # noqa: E731
    assert same(draw(1), draw(1))
    assert draw(1).ids != draw(2).ids
    greedy = generate(lm, prompts, [12] * 6)
    assert generate(lm, prompts, [12] * 6, temperature=1e-4).ids == greedy.ids != draw(1).ids


def test_sampling_follows_the_models_distribution():
    lm, [prompt] = shared(), prompts_of(shared(), [8000])
    many = 4000
    made = generate(lm, [prompt] * many, [1] * many, 1, 0.7, torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = lm.hf(inputs_embeds=prompt[None]).logits[0, -1].double()
    expected = (logits.masked_fill(lm.blocked, -torch.inf) / 0.7).softmax(0)
    drawn = torch.tensor([ids[0] for ids in made.ids]).bincount(minlength=len(expected)) / many
    assert (drawn - expected).abs().max() < 4 * (0.25 / many) ** 0.5
    assert made.topk.eq(expected.argmax()).all()


def test_the_nucleus_by_hand():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.0, 0.0, 1.0, 0.0]])
    assert nucleus(probs, 0.7).tolist() == [pytest.approx([0, 0.5, 0, 0.25]), [0, 0, 1, 0]]
    assert nucleus(probs, 0.5)[0].tolist() == pytest.approx([0, 0.5, 0, 0])  # the first alone holds enough
    assert nucleus(probs, 0.91)[0].tolist() == pytest.approx([0.1, 0.5, 0.15, 0.25])
    assert nucleus(probs, 1e-6)[0].tolist() == pytest.approx([0, 0.5, 0, 0])


def test_a_nucleus_is_sampled_by_its_share():
    lm, [prompt] = shared(), prompts_of(shared(), [8000])
    many = 2000
    draw = lambda top_p: generate(  # noqa: E731
        lm, [prompt] * many, [1] * many, 1, 2.0, torch.Generator().manual_seed(3), top_p=top_p
    )
    with torch.no_grad():
        logits = lm.hf(inputs_embeds=prompt[None]).logits[0, -1].masked_fill(lm.blocked, -torch.inf)
    kept = nucleus((logits / 2.0).softmax(0)[None], 0.6)[0]
    drawn = torch.tensor([ids[0] for ids in draw(0.6).ids]).bincount(minlength=len(kept)) / many
    assert 1 < int((kept > 0).sum()) < len(kept) and not drawn[kept == 0].any()
    assert (drawn - kept / kept.sum()).abs().max() < 4 * (0.25 / many) ** 0.5
    assert {ids[0] for ids in draw(1.0).ids} > set(drawn.nonzero()[:, 0].tolist())
    assert draw(1e-6).ids == generate(lm, [prompt] * many, [1] * many).ids


def test_candidates_are_those_at_the_states_that_a_sample_visits():
    lm, prompts = shared(), prompts_of(shared())
    made = generate(lm, prompts, [9] * 6, 4, 2.0, torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = (lm.transcript_states(prompts, made.ids) @ lm.head.T).masked_fill(lm.blocked, -torch.inf)
    assert torch.equal(made.topk, logits.topk(4).indices)


def test_more_candidates_than_tokens_are_all_tokens():
    lm = shared()
    made = generate(lm, prompts_of(lm)[:1], [2], top_k=10**6)
    assert made.topk.sort().values.tolist() == [list(range(len(lm.blocked)))] * len(made.topk)


def test_no_gradient_is_kept():
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
def test_caps_follow_the_audio(samples, most, rate, expected):
    assert token_caps([torch.zeros(samples)], most, rate) == [expected]


@torch.no_grad()
def test_tokens_that_bfloat16_cannot_part_are_told_apart():
    """The runner-up's row of the head is the best one's but for a last bit: rounded to bfloat16 their logits are one."""
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
    made = generate(lm, prompts, [1], top_k=2)
    assert made.ids == [[best]] and made.topk.tolist() == [[best, below]]

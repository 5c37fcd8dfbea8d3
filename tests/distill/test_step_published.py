"""The published training step: candidate rule, masked control tokens and `ark_compat`, against a slow reference.

The reference follows the description of AutoArk/open-audio-opd at revision aad5c81, position by position.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import SIZES, with_tokens_of_the_teacher
from tiny import batch, eager_to_stop, teacher

from arkasr.builtin.losses import ArkCompat, ArkCompatOptions
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.distill.support import published_candidates, union_support
from arkasr.distributions.views import DenseView
from arkasr.plugins import registry
from arkasr.utils.timing import Phases

V, STOP, CONTROL = 40, 37, [36, 38, 39]  # one vocabulary of both models: words, control tokens and a stop token


class SameIds:
    """Maps all ids but control tokens to themselves."""

    @staticmethod
    def to_teacher(ids):
        return torch.where(torch.isin(ids, torch.tensor(CONTROL)), -1, ids)

    to_student = to_teacher


def reference_candidates(topk, visited, stops):
    """Return the student's candidates of one position as a list."""
    k = len(topk)
    kept = [token for token in topk if token not in stops]
    return (kept if visited in kept else [visited, *kept])[:k]


def reference_loss(z_s, z_t, candidates, k, tau):
    """Return the mean over the positions of the published loss, with gradient to z_s. float64 in, float64 out."""
    losses = []
    for scores, logits, from_student in zip(z_s, z_t, candidates):
        masked = logits.clone()
        masked[CONTROL] = -math.inf
        true = masked.log_softmax(0)
        best = sorted((i for i in range(V) if i not in CONTROL), key=lambda i: -float(masked[i]))[:k]
        targets = {i: true[i] for i in from_student if i not in CONTROL} | {i: masked[i] for i in best}
        ids = sorted(targets)
        log_p_t = (torch.stack([targets[i] for i in ids]) / tau).log_softmax(0)
        log_p_s = (scores[ids] / tau).log_softmax(0)
        losses.append(tau**2 * (log_p_t.exp() * (log_p_t - log_p_s)).sum())
    return torch.stack(losses).mean()


def visited_tokens(z_s):
    """Return one visited token per position: the best, the stop token, and tokens far outside of the top k, in turn."""
    order = z_s.masked_fill(torch.isin(torch.arange(V), torch.tensor(CONTROL)), -math.inf).argsort(-1, descending=True)
    choices = [order[:, 0], torch.full((len(z_s),), STOP), order[:, V - 8]]
    return torch.stack([choices[at % 3][at] for at in range(len(z_s))])


@pytest.mark.parametrize(("k", "tau"), [(4, 1.0), (4, 2.0), (8, 0.5), (33, 1.0)])
@pytest.mark.parametrize("stop_score", [-2.0, 9.0], ids=["stop-unlikely", "stop-likely"])
@pytest.mark.parametrize("control_score", [-3.0, 20.0], ids=["control-unlikely", "control-in-top-k"])
def test_ark_compat_equals_the_published_step(k, tau, stop_score, control_score):
    generator = torch.Generator().manual_seed(k)
    z_s, z_t = (4 * torch.randn(12, V, generator=generator) for _ in range(2))
    z_s[:, STOP], z_t[:, CONTROL] = stop_score, control_score
    blocked = torch.isin(torch.arange(V), torch.tensor(CONTROL))
    visited = visited_tokens(z_s)
    topk = z_s.masked_fill(blocked, -math.inf).topk(k).indices
    exact = z_s.double().requires_grad_()
    candidates = [reference_candidates(row, int(seen), [STOP]) for row, seen in zip(topk.tolist(), visited)]
    expected = reference_loss(exact, z_t.double(), candidates, k, tau)
    expected.backward()

    ids, chosen = published_candidates(topk, visited, [STOP])
    assert [[int(i) for i, c in zip(row, keep) if c] for row, keep in zip(ids, chosen)] == candidates
    leaf, teacher_view = z_s.clone().requires_grad_(), DenseView(z_t, blocked)
    support = union_support(teacher_view.topk(k)[0], ids, visited, SameIds, chosen)
    total, count = ArkCompat(ArkCompatOptions(tau))(DenseView(leaf, blocked), teacher_view, support)
    (total / count).backward()
    assert int(count) == 12
    assert float(total.detach() / count) == pytest.approx(float(expected.detach()), rel=2e-6)
    scale = max(1.0, float(exact.grad.abs().max()))
    assert float((leaf.grad - exact.grad).abs().max()) < 4e-8 * scale
    assert any(STOP in row for row in candidates) and any(STOP not in row for row in candidates)


def test_each_part_of_the_published_step_matters():
    """Without the mask or without the rule, the gradients differ."""
    generator = torch.Generator().manual_seed(0)
    z_s, z_t = (4 * torch.randn(12, V, generator=generator) for _ in range(2))
    z_s[:, STOP] = 9.0
    blocked, visited = torch.isin(torch.arange(V), torch.tensor(CONTROL)), visited_tokens(z_s)
    topk = z_s.masked_fill(blocked, -math.inf).topk(4).indices

    def gradient(mask, rule):
        leaf, view = z_s.clone().requires_grad_(), DenseView(z_t, blocked if mask else None)
        ids, chosen = published_candidates(topk, visited, [STOP]) if rule else (topk, None)
        support = union_support(view.topk(4)[0], ids, visited, SameIds, chosen)
        total, count = ArkCompat(ArkCompatOptions())(DenseView(leaf, blocked), view, support)
        (total / count).backward()
        return leaf.grad

    published = gradient(True, True)
    for mask, rule in ((False, True), (True, False)):
        assert float((gradient(mask, rule) - published).abs().max()) > 1e-3


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 8), st.integers(0, 11), st.sets(st.integers(0, 11), max_size=3))
def test_published_candidates_equal_the_rule_on_lists(order, k, visited, stops):
    ids, chosen = published_candidates(torch.tensor([order[:k]]), torch.tensor([visited]), sorted(stops))
    found = ids[0][chosen[0]].tolist()
    assert found == reference_candidates(order[:k], visited, stops)
    assert len(set(found)) == len(found) <= k and visited in found


@pytest.fixture(scope="module")
def masked_teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    lm = eager_to_stop(teacher(10), 2.0)
    with torch.no_grad():
        lm.head[[i for i in lm.tokenizer.added_tokens_decoder if i != lm.stop_ids[0]]] *= 3  # likely control tokens
    lm.save(folder)
    options = {"path": str(folder), "dtype": "float32", "mask_control_tokens": True}
    return registry.create("teacher", "qwen3_asr", options, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_opd_step_equals_the_published_loss_on_its_own_transcripts(masked_teacher, temperature):
    """The whole step of two models with one vocabulary. Sampled transcripts visit tokens outside of the top k."""
    torch.manual_seed(3)
    lm, k = with_tokens_of_the_teacher(), 3
    mapper = Identity(NoMapperOptions(), student=lm, teacher=masked_teacher)
    rollout = RolloutConfig(max_new_tokens=8, tokens_per_second=0, temperature=temperature)
    distill = DistillConfig(top_k=k, candidates="published")
    one = Opd(masked_teacher, mapper, ArkCompat(ArkCompatOptions()), rollout, distill)
    clips = batch(SIZES)
    scored = one.collect(lm, clips, Phases())
    total, count = one.rescore(lm, scored)
    transcripts = scored.rollout.generation.ids
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips.waveforms), clips.languages)
        z_s = (lm.transcript_states(prompts, transcripts) @ lm.head.T).double().masked_fill(lm.blocked, -math.inf)
        other = masked_teacher.lm
        heard = other.embed_prompts(other.encode_audio(clips.waveforms), clips.languages)
        z_t = (other.transcript_states(heard, transcripts) @ other.head.T).double()
    control = [i for i in other.tokenizer.added_tokens_decoder if i != other.stop_ids[0]]
    assert len(control) >= 5 and (z_t[:, control].amax(-1) > z_t.topk(k).values[:, -1]).any()
    z_t[:, control] = -math.inf
    losses, outside, at = [], 0, 0
    for ids in transcripts:
        for token in ids:
            best = z_s[at].topk(k).indices.tolist()
            outside += token not in best
            candidates = reference_candidates(best, token, lm.stop_ids)
            true, raw = z_t[at].log_softmax(0), z_t[at]
            pairs = {i: true[i] for i in candidates} | {i: raw[i] for i in raw.topk(k).indices.tolist()}
            columns = [i for i in pairs if i < len(z_s[at]) and pairs[i].isfinite()]
            log_p_t = torch.stack([pairs[i] for i in columns]).log_softmax(0)
            log_p_s = z_s[at][columns].log_softmax(0)
            losses.append(float((log_p_t.exp() * (log_p_t - log_p_s)).sum()))
            at += 1
    assert int(count) == len(losses) == at > 20
    assert float(total.detach()) == pytest.approx(sum(losses), rel=1e-5)
    assert (outside > 0) == (temperature > 0)


def test_local_teacher_masks_control_tokens_before_normalising(masked_teacher):
    lm = masked_teacher.lm
    options = {"path": masked_teacher.options.path, "dtype": "float32"}
    plain = registry.create("teacher", "qwen3_asr", options, device="cpu")
    clips, ids = batch([9000]), [[5, 9, lm.stop_ids[0]]]
    view, logits = (t.score(clips.waveforms, clips.languages, ids) for t in (masked_teacher, plain))
    control = [i for i in lm.tokenizer.added_tokens_decoder if i != lm.stop_ids[0]]
    words = [i for i in range(view.vocab_size) if i not in control]
    expected = logits.logits[:, words].double().log_softmax(-1)
    rows = torch.tensor([words]).expand(3, -1)
    torch.testing.assert_close(view.logprobs_at(rows).double(), expected, rtol=1e-5, atol=1e-5)
    assert view.logits[:, control].isneginf().all() and logits.logits[:, control].isfinite().all()

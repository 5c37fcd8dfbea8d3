"""SpecAugment: masks against the distribution of the paper and torchaudio, and who reads masked features."""

from __future__ import annotations

import pytest
import torch
from steps import SIZES, K, frozen_teacher, opd, trainable
from tiny import batch, student, waveform
from torchaudio.functional import mask_along_axis_iid

from arkasr.config.schema import AugmentConfig, RolloutConfig
from arkasr.data.waveforms import Waveforms
from arkasr.model.spec_augment import SpecAugment
from arkasr.training.objectives import SupervisedObjective
from arkasr.utils.timing import Phases

CLIPS = 20_000
PAPER = AugmentConfig(time_masks=2, mel_masks=2)


def reference_coverage(size: int, longest: int, masks: int) -> torch.Tensor:
    """Probability that each place is masked: t uniform in 0..longest, t0 uniform in 0..size - t."""
    covered = torch.zeros(size, dtype=torch.float64)
    for length in range(longest + 1):
        for start in range(size - length + 1):
            covered[start : start + length] += 1 / (longest + 1) / (size - length + 1)
    return 1 - (1 - covered) ** masks


def masked(config: AugmentConfig, filters: int, frames: list[int], total: int) -> torch.Tensor:
    """Return bool [B, M, T], where masks have changed features."""
    torch.manual_seed(0)
    mel = torch.rand(len(frames), filters, total)
    return SpecAugment(config)(mel, frames) != mel


@pytest.mark.parametrize(
    ("masks", "seconds", "share", "longest"), [(1, 0.06, 1.0, 6), (2, 1.0, 0.4, 5), (3, 9.0, 1.0, 13)]
)
def test_time_masks_cover_frames_as_often_as_in_the_paper(masks, seconds, share, longest):
    config = AugmentConfig(time_masks=masks, time_mask_seconds=seconds, time_mask_share=share)
    found = masked(config, 1, [13] * CLIPS, 15)[:, 0]
    assert not found[:, 13:].any()
    expected = reference_coverage(13, longest, masks)
    assert found[:, :13].double().mean(0).tolist() == pytest.approx(expected.tolist(), abs=0.015)  # 4 deviations
    if masks == 1:
        assert set(found.sum(1).tolist()) == set(range(longest + 1))


def test_mel_masks_cover_filters_as_often_as_in_the_paper_and_in_torchaudio():
    found = masked(AugmentConfig(mel_masks=1), 80, [1] * CLIPS, 1)[:, :, 0]
    assert found.sum(1).max() == 27
    rates = found.double().mean(0)
    assert rates.tolist() == pytest.approx(reference_coverage(80, 27, 1).tolist(), abs=0.015)
    ones = torch.ones(CLIPS, 1, 80, 1)
    reference = (mask_along_axis_iid(ones, 28, 0.0, axis=2) == 0).double().mean(0)[0, :, 0]  # widths below 28
    assert rates.tolist() == pytest.approx(reference.tolist(), abs=0.03)


def test_masked_values_are_the_mean_of_their_clip_and_padding_stays():
    torch.manual_seed(3)
    mel = torch.rand(3, 16, 50)
    frames = [50, 31, 7]
    for clip, end in zip(mel, frames):
        clip[:, end:] = 0
    before = mel.clone()
    found = SpecAugment(PAPER)(mel, frames)
    assert torch.equal(mel, before)
    for clip, own, end in zip(found, mel, frames):
        changed = clip != own
        assert changed.any() and not changed[:, end:].any()
        assert clip[changed].tolist() == pytest.approx([own[:, :end].mean().item()] * int(changed.sum()))


def test_no_masks_are_drawn_by_default():
    state = torch.get_rng_state()
    assert SpecAugment.of(AugmentConfig()) is None and torch.equal(torch.get_rng_state(), state)


def with_masked_features(lm, monkeypatch, seed: int) -> None:
    """Let a model compute features that are masked already, drawn from a seed."""
    mel = type(lm).mel

    def of_masked(waveforms):
        torch.manual_seed(seed)
        return SpecAugment(PAPER)(mel(lm, waveforms), lm.count_frames(waveforms))

    monkeypatch.setattr(lm, "mel", of_masked)


def test_supervised_loss_is_that_of_masked_features(monkeypatch):
    lm, clips, phases = trainable(), batch(SIZES), Phases("cpu")
    plain = SupervisedObjective(0.0)(lm, clips, phases).total
    torch.manual_seed(5)
    found = SupervisedObjective(0.0, SpecAugment(PAPER))(lm, clips, phases).total
    assert torch.equal(SupervisedObjective(0.0)(lm, clips, phases).total, plain)
    with_masked_features(lm, monkeypatch, 5)
    assert torch.equal(SupervisedObjective(0.0)(lm, clips, phases).total, found) and not torch.equal(found, plain)


def test_opd_masks_only_what_the_student_is_scored_on(monkeypatch):
    lm, clips, phases = trainable(), batch(SIZES), Phases("cpu")
    heard = []
    plain, with_masks = opd(lm), opd(lm)
    with_masks.masks = SpecAugment(PAPER)
    score = frozen_teacher().score
    monkeypatch.setattr(frozen_teacher(), "score", lambda *inputs: heard.append(inputs) or score(*inputs))
    expected, found = plain.collect(lm, clips, phases), with_masks.collect(lm, clips, phases)
    assert found.rollout.generation.ids == expected.rollout.generation.ids
    assert torch.equal(found.teacher_view.topk(K)[1], expected.teacher_view.topk(K)[1])
    assert all(torch.equal(a, b) for a, b in zip(heard[0][0], heard[1][0], strict=True))
    assert not any(rows.requires_grad for rows in found.rollout.audio)
    torch.manual_seed(7)
    loss, count = with_masks.rescore(lm, found)
    unmasked, same_count = plain.rescore(lm, expected)
    assert count == same_count and not torch.equal(loss, unmasked)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lm.hf.model.audio_tower.conv1.parameters())
    with_masked_features(lm, monkeypatch, 7)
    expected.rollout.audio = lm.encode_audio(clips.waveforms)
    assert plain.rescore(lm, expected)[0].item() == pytest.approx(loss.item(), rel=1e-6)


def test_opd_with_masks_encodes_a_clip_with_several_transcripts_once(monkeypatch):
    lm, clips = trainable(), batch(SIZES)
    step, encode, encoded = opd(lm), lm.encode_audio, []
    step.rollout, step.masks = RolloutConfig(max_new_tokens=9, samples=3, temperature=1.0), SpecAugment(PAPER)
    scored = step.collect(lm, clips, Phases("cpu"))
    assert len(scored.rollout.kept) == 3 * len(SIZES)
    monkeypatch.setattr(lm, "encode_audio", lambda *inputs: encoded.append([*inputs[0]]) or encode(*inputs))
    step.rescore(lm, scored)[0].backward()
    assert all(a is b for a, b in zip(encoded[0], clips.waveforms, strict=True))


def test_masked_features_leave_those_of_other_models_unchanged():
    lm, shared = student(3), Waveforms([waveform(9000), waveform(5000)])
    before = lm.mel(shared).clone()
    torch.manual_seed(1)
    masked_rows = lm.encode_audio(shared, SpecAugment(PAPER))
    assert torch.equal(lm.mel(shared), before)
    assert any(not torch.equal(a, b) for a, b in zip(masked_rows, lm.encode_audio(shared)))

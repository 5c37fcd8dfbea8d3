"""Log-mel features against transformers' extractors for one clip at a time, checks of waveforms, and audio files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import student, teacher, waveform
from torch.nn.functional import pad
from torchaudio.functional import melscale_fbanks
from transformers import Qwen3ASRFeatureExtractor, WhisperFeatureExtractor

from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.model.log_mel import check_waveforms, log_mel, mel_and_mask, num_frames, read_audio
from arkasr.testing.host_reads import forbid_host_reads

EDGES = [0, 1, 100, 159, 160, 161, 199, 200, 201, 319, 320, 399, 400, 401, 4799, 4800, 7777, 16000, 16001]


def reference_features(clip, num_mel):
    """Compute Whisper's features [M, T] of one clip, padded with silence to the 201 samples of a centred window."""
    clip = pad(clip, (0, max(201 - len(clip), 0)))
    extractor = WhisperFeatureExtractor(feature_size=num_mel)
    return extractor([clip.numpy()], sampling_rate=16000, padding="longest", return_tensors="pt").input_features[0]


@pytest.mark.parametrize("num_mel", [40, 80, 128])
@pytest.mark.parametrize("samples", EDGES)
def test_log_mel_matches_whisper(samples, num_mel):
    clip = waveform(samples, seed=samples % 5)
    features, lengths = log_mel([clip], num_mel)
    expected = reference_features(clip, num_mel)
    assert lengths.tolist() == [expected.shape[1]] == [max(samples // 160, 1)] == [num_frames(clip)]
    assert features.shape == (1, num_mel, expected.shape[1]) and features.dtype == torch.float32
    torch.testing.assert_close(features[0], expected, atol=2e-4, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12000), min_size=1, max_size=5), st.integers(0, 99))
def test_log_mel_does_not_depend_on_batch_composition(sizes, seed):
    clips = [waveform(n, seed + i) * 10.0 ** (-2 * (i % 3)) for i, n in enumerate(sizes)]
    features, lengths = log_mel(clips, 40)
    for clip, got, length in zip(clips, features, lengths):
        alone, [frames] = log_mel([clip], 40)
        assert length == frames
        torch.testing.assert_close(got[:, :length], alone[0], atol=1e-5, rtol=0)
        assert not got[:, length:].any()


def test_log_mel_ignores_a_burst_after_the_last_whole_hop():
    """Whisper drops the frame after the last whole hop before it takes the maximum. A batch computes this frame."""
    clip = 1e-3 * waveform(1759)
    clip[-15:] = 1.0
    features, lengths = log_mel([clip, waveform(8000)], 40)
    torch.testing.assert_close(features[0, :, : lengths[0]], reference_features(clip, 40), atol=2e-4, rtol=0)


def test_log_mel_of_digital_silence_is_constant():
    features, _ = log_mel([torch.zeros(1600)], 40)
    torch.testing.assert_close(features, torch.full((1, 40, 10), -1.5))


def test_log_mel_takes_any_float_and_has_no_gradient():
    clip = waveform(1600).double().requires_grad_()
    features, _ = log_mel([clip], 40)
    assert not features.requires_grad and features.dtype == torch.float32


@pytest.mark.parametrize("num_mel", [16, 128])
@pytest.mark.parametrize("samples", [160, 320, 4800, 7840, 8000, 8160, 15840, 16000, 16160, 48000])
def test_qwen_features_match_its_extractor(samples, num_mel):
    clip = waveform(samples, seed=3)
    extractor = Qwen3ASRFeatureExtractor(feature_size=num_mel)
    reference = extractor([clip.numpy()], sampling_rate=16000, padding="longest", return_attention_mask=True)
    expected_mask = np.asarray(reference["attention_mask"])
    features, mask = teacher(num_mel_bins=num_mel).features([clip])
    assert features.shape[-1] % 100 == 0 and mask.tolist() == expected_mask.tolist()
    expected = torch.as_tensor(reference["input_features"]) * torch.as_tensor(expected_mask)[:, None]
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=0)


def test_qwen_features_drop_a_partial_hop():
    lm = teacher()
    long, mask = lm.features([waveform(16100)])
    cut, cut_mask = lm.features([waveform(16100)[:16000]])
    assert torch.equal(mask, cut_mask) and torch.equal(long, cut)


def test_check_waveforms_names_the_invalid_clip():
    good = waveform(400)
    bad = {
        "no samples": torch.zeros(0),
        r"shape \[8, 400\], expected \[num_samples\]": torch.zeros(8, 400),
        r"shape \[\]": torch.tensor(1.0),
        "torch.int16 samples.*divide by 32768": torch.ones(400, dtype=torch.int16),
        "NaN or infinite": torch.cat([good, torch.tensor([float("nan")]), good]),
        "NaN or infinite samples; repair": torch.tensor([float("inf"), float("-inf")]),
    }
    for message, clip in bad.items():
        with pytest.raises(UserError, match=f"^clip 2 of 3: {message}"):
            check_waveforms([good, good, clip])
        with pytest.raises(UserError, match=f"^b.wav: {message}"):
            check_waveforms([good, clip], ["a.wav", "b.wav"])


def test_check_waveforms_accepts_valid_waveforms():
    loud = 60000 * torch.ones(32000)
    check_waveforms([waveform(1), torch.zeros(9), loud, loud.half(), waveform(400).bfloat16(), waveform(400).double()])
    check_waveforms([])


@pytest.mark.parametrize("make", [student, teacher])
@pytest.mark.parametrize("clip", [torch.zeros(0), torch.full((800,), float("nan")), torch.zeros(8, 800)])
def test_encode_audio_refuses_invalid_waveforms(make, clip):
    with pytest.raises(UserError, match="^clip 1 of 2: "):
        make().encode_audio([waveform(800), clip])


@pytest.mark.parametrize("clip", [torch.zeros(1), torch.zeros(16000), waveform(1), waveform(159), waveform(1599)])
def test_short_and_silent_clips_have_finite_features_and_audio_tokens(clip):
    features, mask = mel_and_mask([clip, waveform(4000)], 16)
    frames = max(len(clip) // 160, 1)
    assert features.isfinite().all() and mask[0].tolist() == [1] * frames + [0] * (25 - frames if frames < 25 else 0)
    if not clip.any():
        assert (features[0, :, :frames] == -1.5).all()
    [audio] = student().encode_audio([clip])
    assert len(audio) == max((frames + 1) // 2 // 4, 1) and audio.isfinite().all()


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_read_audio_resamples_to_16_khz(rate, tmp_path):
    time = np.arange(rate) / rate
    soundfile.write(tmp_path / "tone.flac", 0.4 * np.sin(2 * np.pi * 500 * time), rate)
    audio = read_audio(tmp_path / "tone.flac")
    expected = torch.from_numpy(0.4 * np.sin(2 * np.pi * 500 * np.arange(16000) / 16000)).float()
    assert audio.shape == (16000,) and audio.dtype == torch.float32
    torch.testing.assert_close(audio[800:-800], expected[800:-800], atol=0.005, rtol=0)


def test_read_audio_keeps_samples_at_16_khz(tmp_path):
    samples = (waveform(700) * 32767).round() / 32768
    soundfile.write(tmp_path / "clip.wav", samples.numpy(), 16000, subtype="PCM_16")
    assert torch.equal(read_audio(str(tmp_path / "clip.wav")), samples)


def reference_log_mel(clips, num_mel):
    """Compute features clip by clip: reflect, transform, and limit each clip alone."""
    features = []
    for clip in clips:
        clip = pad(clip, (0, max(201 - len(clip), 0)))
        edged = pad(clip[None, None], (200, 200), mode="reflect")[0, 0]
        spectrum = torch.stft(edged, 400, 160, window=torch.hann_window(400), center=False, return_complex=True)
        power = spectrum[:, : len(clip) // 160].abs().square()
        filters = melscale_fbanks(201, 0.0, 8000.0, num_mel, 16000, norm="slaney", mel_scale="slaney")
        log = (filters.T @ power).clamp(min=1e-10).log10()
        features.append((log.maximum(log.max() - 8) + 4) / 4)
    return features


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=5), st.integers(0, 9))
def test_log_mel_of_a_batch_equals_the_features_of_each_clip(sizes, seed):
    clips = [waveform(n, seed + i) for i, n in enumerate(sizes)]
    features, lengths = log_mel(clips, 40)
    for got, length, expected in zip(features, lengths.tolist(), reference_log_mel(clips, 40), strict=True):
        torch.testing.assert_close(got[:, :length], expected, atol=2e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=4), st.integers(0, 8000))
def test_log_mel_of_kept_samples_equals_that_of_cut_and_padded_clips(sizes, min_samples):
    clips, kept = [waveform(n, n % 7) for n, _ in sizes], [k for _, k in sizes]
    cut = [pad(clip[:k], (0, max(min_samples - min(len(clip), k), 0))) for clip, k in zip(clips, kept)]
    found, lengths = log_mel(clips, 16, kept=kept, min_samples=min_samples)
    expected, expected_lengths = log_mel(cut, 16)
    assert torch.equal(lengths, expected_lengths)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("samples", "shared"), [([16000, 8000], True), ([16000, 8001], False), ([16000, 7840], False)])
def test_student_and_teacher_share_features_that_are_equal(samples, shared):
    """The teacher drops samples after the last whole hop and pads clips to 0.5 s."""
    clips = Waveforms(waveform(n, seed) for seed, n in enumerate(samples))
    ark, qwen = student().mel(clips), teacher().mel(clips)
    assert len(clips._results) == (2 if shared else 3)  # the padded copy, and features
    alone = teacher().mel(Waveforms(list(clips)))
    assert torch.equal(qwen, alone)
    assert torch.equal(ark[..., :49], qwen[..., :49]) or not shared


def test_check_waveforms_checks_a_batch_once():
    clips = Waveforms([waveform(400)])
    check_waveforms(clips)
    clips[0][3] = float("nan")
    check_waveforms(clips)
    with pytest.raises(UserError, match="^a.wav: NaN"):
        check_waveforms(Waveforms(list(clips)), ["a.wav"])


def test_log_mel_reads_nothing_from_the_device():
    log_mel([waveform(400)], 16)  # the filters are copied once per process
    clips = [waveform(n) for n in (1, 300, 7000)]
    for clip in clips:
        clip._counts_as_host = True  # as `count_host_reads` marks tensors on the host
    with forbid_host_reads():
        check_waveforms(clips)
        log_mel(clips, 16)
        mel_and_mask(clips, 16, mask_padding=False)
        log_mel(clips, 16, kept=[1, 200, 6000], min_samples=400)

"""Log-mel features against those of Whisper, and the forms of waveforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import waveform
from transformers import WhisperFeatureExtractor

from arkasr import ArkasrFeatureExtractor, UserError


@pytest.mark.parametrize("num_mel", [16, 128])
def test_feature_extractor_matches_whisper(num_mel):
    clips = [waveform(n, seed) for seed, n in enumerate([16000, 5001, 4799, 201, 31999])]
    features = ArkasrFeatureExtractor(num_mel)(clips, sampling_rate=16000)
    assert features["input_features"].dtype == torch.float32
    assert features["input_features_mask"].dtype == torch.int64
    whisper = WhisperFeatureExtractor(feature_size=num_mel)
    for clip, mel, mask in zip(clips, features["input_features"], features["input_features_mask"]):
        alone = whisper([clip.numpy()], sampling_rate=16000, padding="longest", return_tensors="pt").input_features[0]
        frames = len(clip) // 160
        assert mask.tolist() == [1] * frames + [0] * (len(mask) - frames)
        torch.testing.assert_close(mel[:, :frames], alone, atol=2e-4, rtol=0)
        assert not mel[:, frames:].any()


def test_feature_extractor_accepts_tensors_arrays_and_lists():
    clip = waveform(4000)
    expected = ArkasrFeatureExtractor(16)([clip])["input_features"]
    backwards = clip.flip(0).numpy()[::-1]
    forms = [clip, clip.numpy(), clip.tolist(), clip.double(), clip.clone().requires_grad_(), list(clip.numpy())]
    forms += [clip.double().numpy(), backwards, tuple(clip.tolist())]
    for form in forms:
        for audio in (form, [form], (form,)):
            assert torch.equal(ArkasrFeatureExtractor(16)(audio)["input_features"], expected)
    array = ArkasrFeatureExtractor(16)(clip, return_tensors="np")
    assert all(isinstance(array[name], np.ndarray) for name in ("input_features", "input_features_mask"))


@pytest.mark.parametrize("clip", [{"array": [0.0], "sampling_rate": 16000}, None, [[0.0], [0.0, 0.0]]])
def test_feature_extractor_refuses_what_is_not_a_waveform(clip):
    with pytest.raises(UserError, match=f"{type(clip).__name__} is not a waveform"):
        ArkasrFeatureExtractor(16)([clip])

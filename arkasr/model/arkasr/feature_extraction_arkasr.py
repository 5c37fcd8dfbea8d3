"""Log-mel features in transformers' manner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, BatchFeature, SequenceFeatureExtractor

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model import log_mel
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig

Audio = Tensor | np.ndarray | Sequence  # one waveform [num_samples], or a list of them


def as_waveform(waveform: Any) -> Tensor:
    """Make a tensor of an array or a list of numbers (copied); a tensor stays as and where it is.

    Raises UserError for what holds no numbers, such as a row of `datasets` ({"array": ..., "sampling_rate": ...}).
    """
    if isinstance(waveform, Tensor):
        return waveform
    try:
        return torch.from_numpy(np.array(waveform, order="C"))
    except (TypeError, ValueError) as error:
        kind = type(waveform).__name__
        raise UserError(f"a {kind} is no waveform: give a tensor, an array or a list of numbers ({error})") from error


def as_waveforms(audio: Audio) -> list[Tensor]:
    """List the clips of one waveform or a list of them; a 2-D array is one clip of several channels, refused later.

    Raises UserError for no clips at all and for files, which `ArkasrProcessor.apply_transcription_request` reads.
    """
    numbers = isinstance(audio, Sequence) and len(audio) and isinstance(audio[0], int | float | np.number)
    clips = audio if isinstance(audio, list | tuple) and not numbers else [audio]
    if len(clips) == 0:
        raise UserError("no clips: give a waveform or a list of them")
    if files := [str(clip) for clip in clips if isinstance(clip, str | Path)]:
        raise UserError(f"{files[0]}: give waveforms here, or files to apply_transcription_request")
    return [as_waveform(clip) for clip in clips]


class ArkasrFeatureExtractor(SequenceFeatureExtractor):
    """Whisper's log-mel features, every clip's as if it stood alone, and frames counted by whole hops.

    feature_size: mel filters; mask_padding: the model's own (see ArkasrConfig), False for the features of clips
    completed with silence to the longest. The other settings are the model's and are read only to refuse what it was not trained
    on: another value raises UserError. Settings of Whisper's extractor that have no meaning here (chunk_length) are
    left out.
    """

    model_input_names = ["input_features", "input_features_mask"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = SAMPLE_RATE,
        hop_length: int = log_mel.HOP,
        n_fft: int = log_mel.N_FFT,
        mask_padding: bool = True,
        **others: Any,
    ):
        asked, known = (sampling_rate, hop_length, n_fft), (SAMPLE_RATE, log_mel.HOP, log_mel.N_FFT)
        if asked != known:
            raise UserError(f"(sampling_rate, hop_length, n_fft) = {asked}: Ark-ASR's features are made with {known}")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=0.0)
        self.hop_length, self.n_fft, self.mask_padding = hop_length, n_fft, mask_padding

    def __call__(
        self,
        raw_speech: Audio,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        names: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Return input_features float32 [B, feature_size, T] and input_features_mask int64 [B, T].

        raw_speech: one waveform or a list of B, float at 16 kHz (tensor, array or list of numbers); sampling_rate:
        theirs, where known; names: what errors call them. A clip has floor(num_samples / 160) frames, at least 1.
        Raises UserError for another rate and for what `frontend.check_waveforms` refuses.
        """
        log_mel.check_rate(sampling_rate)
        waveforms = as_waveforms(raw_speech)
        log_mel.check_waveforms(waveforms, names)
        clips = [w.detach() for w in waveforms]
        mel, mask = log_mel.mel_and_mask(clips, self.feature_size, mask_padding=self.mask_padding)
        return BatchFeature({"input_features": mel, "input_features_mask": mask}, tensor_type=return_tensors)

    @classmethod
    def get_feature_extractor_dict(
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the extractor's settings; where a folder has none, feature_size is what the model's encoder reads."""
        try:
            return super().get_feature_extractor_dict(pretrained_model_name_or_path, **kwargs)
        except OSError:
            config = ArkasrConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)
            return {"feature_size": config.audio_config.num_mel_bins}, kwargs


AutoFeatureExtractor.register(ArkasrConfig, ArkasrFeatureExtractor)

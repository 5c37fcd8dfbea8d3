"""Log-mel features as a transformers feature extractor."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
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
    """Convert a waveform to a tensor.

    Args:
        waveform: A tensor, which is returned unchanged, or an array or a list of numbers, which is copied.

    Returns:
        The tensor, of the input's shape.

    Raises:
        UserError: The input is not numeric, such as one row of `datasets` ({"array": ..., "sampling_rate": ...}).
    """
    if isinstance(waveform, Tensor):
        return waveform
    try:
        return torch.from_numpy(np.array(waveform, order="C"))
    except (TypeError, ValueError) as error:
        kind = type(waveform).__name__
        raise UserError(f"{kind} is not a waveform; give a tensor, an array or a list of numbers ({error})") from error


def as_waveforms(audio: Audio) -> list[Tensor]:
    """Convert one waveform or a list of waveforms to a list of tensors.

    A 2-D array counts as one clip with several channels, which `check_waveforms` rejects later.

    Args:
        audio: One waveform or a list of them.

    Returns:
        B tensors.

    Raises:
        UserError: The list is empty, or it holds file names.
    """
    is_numeric = isinstance(audio, Sequence) and len(audio) and isinstance(audio[0], int | float | np.number)
    clips = audio if isinstance(audio, list | tuple) and not is_numeric else [audio]
    if len(clips) == 0:
        raise UserError("no clips; give a waveform or a list of waveforms")
    if files := [str(clip) for clip in clips if isinstance(clip, str | Path)]:
        raise UserError(f"{files[0]}: expected waveforms, got a file name; pass files to apply_transcription_request")
    return [as_waveform(clip) for clip in clips]


class ArkasrFeatureExtractor(SequenceFeatureExtractor):
    """Whisper's log-mel features, computed for each clip as if it were alone (see `log_mel.log_mel`).

    Frames are counted by whole hops. Settings of Whisper's extractor that have no meaning here, such as chunk_length,
    are ignored.

    Args:
        feature_size: Number of mel filters.
        sampling_rate: Hz. Must be 16000.
        hop_length: Samples. Must be 160.
        n_fft: Samples. Must be 400.
        mask_padding: See ArkasrConfig. False computes the features of clips padded with silence to the longest.
        **others: Ignored.

    Raises:
        UserError: A setting differs from the one the model was trained with.
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
        settings, expected = (sampling_rate, hop_length, n_fft), (SAMPLE_RATE, log_mel.HOP, log_mel.N_FFT)
        if settings != expected:
            raise UserError(f"(sampling_rate, hop_length, n_fft) must be {expected} for Ark-ASR, got {settings}")
        if type(feature_size) is not int or feature_size < 1:
            raise UserError(
                f"feature_size must be an integer of at least 1, got {feature_size!r}; export the model again"
            )
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=0.0)
        self.hop_length, self.n_fft, self.mask_padding = hop_length, n_fft, mask_padding

    def require_mels(self, num_mel_bins: int, place: str) -> None:
        """Check that the features fit the model.

        Args:
            num_mel_bins: Number of mel filters M that the encoder reads.
            place: Folder or Hub id, for the error message.

        Raises:
            UserError: The extractor computes another number of mel filters.
        """
        if self.feature_size != num_mel_bins:
            raise UserError(
                f"{place}: feature_size in preprocessor_config.json is {self.feature_size}, but num_mel_bins in "
                f"config.json is {num_mel_bins}; export the model again"
            )

    def __call__(
        self,
        raw_speech: Audio,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        names: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Compute the features of B clips.

        Args:
            raw_speech: One waveform or a list of B waveforms, float at 16 kHz (tensor, array or list of numbers).
            sampling_rate: Rate of the waveforms in Hz, if known.
            return_tensors: "pt" or "np".
            names: B names of the clips for error messages.

        Returns:
            `input_features` [B, feature_size, T], float32, and `input_features_mask` [B, T], int64. Each clip has
            floor(num_samples / 160) frames, at least 1.

        Raises:
            UserError: The rate is not 16 kHz, or see `log_mel.check_waveforms`.
        """
        log_mel.check_rate(sampling_rate)
        waveforms = as_waveforms(raw_speech)
        log_mel.check_waveforms(waveforms, names)
        clips = [w.detach() for w in waveforms]
        mel, mask = log_mel.mel_and_mask(clips, self.feature_size, mask_padding=self.mask_padding)
        return BatchFeature({"input_features": mel, "input_features_mask": mask}, tensor_type=return_tensors)

    @classmethod
    def get_feature_extractor_dict(
        cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the extractor's settings. If a folder has none, take feature_size from the encoder's configuration.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: Options of transformers.

        Returns:
            The settings, and the options that were not used.
        """
        try:
            return super().get_feature_extractor_dict(pretrained_model_name_or_path, **kwargs)
        except OSError:
            kwargs.pop("trust_remote_code", None)
            config = ArkasrConfig.from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **kwargs)
            return {"feature_size": config.audio_config.num_mel_bins}, kwargs


AutoFeatureExtractor.register(ArkasrConfig, ArkasrFeatureExtractor)

"""Ark-ASR, the student, as a SpeechLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from arkasr.data.waveforms import Waveforms
from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.configuration_arkasr import LEARNED
from arkasr.model.arkasr.encoder_arkasr import STATES_PER_SECOND
from arkasr.model.arkasr.modeling_arkasr import num_audio_tokens
from arkasr.model.arkasr.processing_arkasr import ArkasrProcessor
from arkasr.model.log_mel import mel_and_mask
from arkasr.model.speech_lm.base import SpeechLM


class ArkSpeechLM(SpeechLM):
    """Ark-ASR. Its prompt is `<|user|><|begin_of_audio|>` audio `<|end_of_audio|>instruction<|assistant|>`.

    See SpeechLM for the constructor's arguments.
    """

    @property
    def max_seconds(self) -> float | None:
        """See `SpeechLM.max_seconds`. Only learned positions have a limit, which is 30 s in Whisper."""
        audio = self.hf.config.audio_config
        return audio.max_position_embeddings / STATES_PER_SECOND if audio.positions == LEARNED else None

    def mel(self, waveforms: Waveforms) -> Tensor:
        """See `SpeechLM.mel`. If the model does not mask padding, these are the authors' features.

        Args:
            waveforms: B waveforms at 16 kHz.

        Returns:
            Tensor [B, M, T], float32.
        """
        return mel_and_mask(waveforms, self.num_mel, self.device, self.hf.config.mask_padding)[0]

    def count_audio_tokens(self, frames: Sequence[int]) -> list[int]:
        """See `SpeechLM.count_audio_tokens`: 12.5 per second, at least one (`num_audio_tokens`).

        Args:
            frames: Mel frames of each clip.

        Returns:
            B counts.
        """
        return [num_audio_tokens(n, self.hf.config.merge_factor) for n in frames]

    def encoder_rows(self, mel: Tensor, frames: Sequence[int]) -> Tensor:
        """See `SpeechLM.encoder_rows`.

        Args:
            mel: Tensor [B, M, T].
            frames: Mel frames of each clip.

        Returns:
            Tensor [sum(N_i), D].
        """
        return self.hf.model.encoder_rows(mel, frames)

    def prompt_text(self, language: str) -> tuple[str, str]:
        """See `SpeechLM.prompt_text`.

        Args:
            language: Ignored. The prompt names no language.

        Returns:
            The text before and after the audio tokens.
        """
        return prompt.prompt_parts(self.hf.config.instruction)

    def _save_processor(self, folder: Path) -> None:
        config: Any = self.hf.config
        ArkasrProcessor.from_config(config, self.tokenizer).save_pretrained(folder)

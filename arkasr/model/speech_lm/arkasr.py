"""Ark-ASR, the student, as a SpeechLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.configuration_arkasr import LEARNED
from arkasr.model.arkasr.modeling_arkasr import STATES_PER_SECOND, num_audio_tokens
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

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `SpeechLM.features`. If the model does not mask padding, these are the authors' features.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.

        Returns:
            Features [B, M, T], float32, and mask [B, T], int64.
        """
        return mel_and_mask(waveforms, self.num_mel, self.device, self.hf.config.mask_padding)

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """See `SpeechLM.count_audio_tokens`: 12.5 per second, at least one (`num_audio_tokens`).

        Args:
            mask: Tensor [B, T].

        Returns:
            B counts.
        """
        return num_audio_tokens(mask.sum(-1), self.hf.config.merge_factor).tolist()

    def prompt_text(self, language: str) -> tuple[str, str]:
        """See `SpeechLM.prompt_text`.

        Args:
            language: Ignored. The prompt names no language.

        Returns:
            The text before and after the audio tokens.
        """
        return prompt.prompt_parts(self.hf.config.instruction)

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """See `SpeechLM.save`. Also writes the processor, and generation_config.json suppresses the blocked ids.

        Args:
            folder: The folder.
            state_dict: See `SpeechLM.save`.
            **options: See `SpeechLM.save`.
        """
        self.hf.generation_config.suppress_tokens = self.blocked.nonzero()[:, 0].tolist()
        super().save(folder, state_dict, **options)

    def _save_processor(self, folder: Path) -> None:
        config: Any = self.hf.config
        ArkasrProcessor.from_config(config, self.tokenizer).save_pretrained(folder)

"""The student as a SpeechLM: its prompt and how many audio tokens a clip has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.modeling_arkasr import num_audio_tokens
from arkasr.model.arkasr.processing_arkasr import ArkasrProcessor
from arkasr.model.log_mel import mel_and_mask
from arkasr.model.speech_lm.base import SpeechLM


class ArkSpeechLM(SpeechLM):
    """The student's prompt: `<|user|><|begin_of_audio|>` audio `<|end_of_audio|>instruction<|assistant|>`."""

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute mel features [B, M, T] and their mask int64 [B, T], the authors' where padding is not masked."""
        return mel_and_mask(waveforms, self.num_mel, self.device, self.hf.config.mask_padding)

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count 12.5 tokens a second: frames halved up, merged down, at least one."""
        return num_audio_tokens(mask.sum(-1), self.hf.config.merge_factor).tolist()

    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return the prompt's two parts; the student is told no language."""
        return prompt.prompt_parts(self.hf.config.instruction)

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """Write the folder with the processor too; its generation_config.json suppresses the blocked ids."""
        self.hf.generation_config.suppress_tokens = self.blocked.nonzero()[:, 0].tolist()
        super().save(folder, state_dict, **options)
        ArkasrProcessor.from_config(self.hf.config, self.tokenizer).save_pretrained(folder)

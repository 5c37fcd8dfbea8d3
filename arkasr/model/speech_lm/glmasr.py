"""GLM-ASR as a SpeechLM: its prompt, and windows of 30 s padded with silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GlmAsrProcessor, PreTrainedModel, PreTrainedTokenizerBase, WhisperFeatureExtractor
from transformers.conversion_mapping import get_model_conversion_mapping

from arkasr.data.waveforms import Waveforms
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.log_mel import HOP, check_waveforms, log_mel
from arkasr.model.packing import take
from arkasr.model.spec_augment import SpecAugment
from arkasr.model.speech_lm.base import SpeechLM

MERGE_FACTOR = 4  # encoder states per audio token
MIN_FRAMES = 2 * MERGE_FACTOR - 1  # mel frames of one audio token: half of them, rounded up, are MERGE_FACTOR states
CHAT_TEMPLATE = (  # the prompt below for conversations, if the tokenizer has no template
    "{%- for message in messages -%}"
    "{{- '<|' + message.role + '|>\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
    "{%- for part in message.content -%}"
    "{{- '<|begin_of_audio|><|pad|><|end_of_audio|><|user|>\\n' if part.type == 'audio' else part.text -}}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '<|assistant|>\\n' if add_generation_prompt -}}"
)


class GlmSpeechLM(SpeechLM):
    """GLM-ASR, with the prompt and features of transformers' GlmAsrProcessor (zai-org/GLM-ASR-Nano-2512).

    Args:
        hf: See SpeechLM.
        tokenizer: See SpeechLM.

    * Each clip is split into windows of `2 * max_position_embeddings` mel frames (30 s). The last window is padded with
      silence, and the encoder attends to it: GLM-ASR masks nothing and was trained this way.
    * All windows have the same length, so outputs do not depend on batch composition. A short clip costs the encoder
      as much as 30 s of audio.
    * Only the audio tokens of the clip itself enter the prompt. A clip under 70 ms gets one. GlmAsrProcessor has none.
    * The prompt names no language.
    * GLM-ASR has three stop ids. `<|user|>`, which ends a turn in GLM's chats, is the one appended to a transcript.
    """

    stop_tokens = ("<|user|>", "<|endoftext|>", "<|observation|>")

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__(hf, tokenizer)
        hf.model.audio_tower.conv2.register_forward_hook(_frames_in_order)

    @property
    def window(self) -> int:
        """Mel frames of one window, a multiple of the frames of one audio token."""
        states = self.hf.config.audio_config.max_position_embeddings
        return 2 * MERGE_FACTOR * -(-states // MERGE_FACTOR)

    def encode_audio(self, waveforms: Sequence[Tensor], masks: SpecAugment | None = None) -> list[Tensor]:
        """See `SpeechLM.encode_audio`. The embeddings of a clip's windows are concatenated.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.
            masks: Hides parts of the features of each window. None hides nothing.

        Returns:
            B tensors [N_i, H].

        Raises:
            UserError: See `log_mel.check_waveforms`.
        """
        check_waveforms(waveforms)
        windows = [self._windows(w) for w in waveforms]
        rows = iter(super().encode_audio([part for parts in windows for part in parts], masks))
        return [torch.cat([next(rows) for _ in parts]) for parts in windows]

    def _windows(self, waveform: Tensor) -> list[Tensor]:
        """Split a clip into windows. A last window too short for one token is dropped, unless it is the whole clip."""
        first, *others = waveform.split(self.window * HOP)
        return [first, *(part for part in others if -(-len(part) // HOP) >= MIN_FRAMES)]

    def mel(self, waveforms: Waveforms) -> Tensor:
        """See `SpeechLM.mel`. Windows are padded with silence to the same length.

        Args:
            waveforms: W waveforms at 16 kHz, each at most one window long.

        Returns:
            Tensor [W, M, window], float32.
        """
        return log_mel(waveforms, self.num_mel, self.device, min_samples=self.window * HOP)[0]

    def count_frames(self, waveforms: Sequence[Tensor]) -> list[int]:
        """See `SpeechLM.count_frames`: at least those of one audio token.

        Args:
            waveforms: W tensors [num_samples] at 16 kHz.

        Returns:
            W counts.
        """
        return [max(-(-len(w) // HOP), MIN_FRAMES) for w in waveforms]

    def count_audio_tokens(self, frames: Sequence[int]) -> list[int]:
        """Count the audio tokens of each window: ceil(frames / 2) // 4.

        Args:
            frames: Mel frames of each window.

        Returns:
            W counts.
        """
        return [(n + 1) // 2 // MERGE_FACTOR for n in frames]

    def encoder_rows(self, mel: Tensor, frames: Sequence[int]) -> Tensor:
        """See `SpeechLM.encoder_rows`.

        Args:
            mel: Tensor [W, M, window].
            frames: Mel frames of each window.

        Returns:
            Tensor [sum(N_i), D].
        """
        states = self.hf.model.audio_tower(mel, return_dict=True).last_hidden_state
        merged = states.unflatten(1, (-1, MERGE_FACTOR)).flatten(2)
        counts = np.asarray(self.count_audio_tokens(frames))
        index = (np.arange(merged.shape[1]) < counts[:, None]).reshape(-1).nonzero()[0]
        return take(merged.flatten(0, 1), index)

    def prompt_text(self, language: str) -> tuple[str, str]:
        """See `SpeechLM.prompt_text`.

        Args:
            language: Ignored. The prompt names no language.

        Returns:
            The chat turns before and after the audio tokens.
        """
        before, instruction = "<|user|>\n<|begin_of_audio|>", "Please transcribe this audio into text"
        return before, f"<|end_of_audio|><|user|>\n{instruction}<|assistant|>\n"

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """See `SpeechLM.save`. `save_original_format=True` writes the names of the published model.

        Args:
            folder: The folder.
            state_dict: See `SpeechLM.save`.
            **options: See `SpeechLM.save`.
        """
        if options.get("save_original_format"):  # loading recorded the names of its files, which would be kept
            rules: Any = get_model_conversion_mapping(self.hf, add_legacy=False)
            self.hf._weight_conversions = rules
        super().save(folder, state_dict, **options)

    def _save_processor(self, folder: Path) -> None:
        """Write transformers' processor, with windows of whole seconds as this model has them."""
        extractor = WhisperFeatureExtractor(self.num_mel, chunk_length=self.window * HOP // SAMPLE_RATE)
        template = getattr(self.tokenizer, "chat_template", None) or CHAT_TEMPLATE
        GlmAsrProcessor(extractor, self.tokenizer, chat_template=template).save_pretrained(folder)


def _frames_in_order(convolution: torch.nn.Module, inputs: object, states: Tensor) -> Tensor:
    """Store states [W, d, T] frame by frame. All layers would otherwise compute on transposed memory."""
    return states.transpose(1, 2).contiguous().transpose(1, 2)

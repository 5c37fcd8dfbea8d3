"""Qwen3-ASR as a SpeechLM: prompt, features and attention windows, and the names of the original layout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    Qwen3ASRConfig,
    Qwen3ASREncoderConfig,
    Qwen3Config,
)
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.log_mel import HOP
from arkasr.model.speech_lm.base import SpeechLM

LANGUAGES = sorted(LANGUAGE_CODE_TO_NAME.values())
# Original to transformers' names, first match first. transformers knows none of these and would draw random weights.
ORIGINAL_KEYS = {
    r"^thinker\.audio_tower\.proj1\.": "model.multi_modal_projector.linear_1.",
    r"^thinker\.audio_tower\.proj2\.": "model.multi_modal_projector.linear_2.",
    r"^thinker\.audio_tower\.": "model.audio_tower.",
    r"^thinker\.model\.": "model.language_model.",
    r"^thinker\.lm_head\.": "lm_head.",
}
MROPE_KEYS = {"mrope_interleaved", "interleaved", "mrope_section", "type"}


class QwenSpeechLM(SpeechLM):
    """Qwen3-ASR, with its prompt, which forces the language, and its features.

    The features are chunks of 1 s. Clips under 0.5 s are padded with silence to 0.5 s. See SpeechLM for the
    constructor's arguments.
    """

    stop_tokens = ("<|im_end|>", "<|endoftext|>")
    min_samples = SAMPLE_RATE // 2  # 0.5 s

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute log-mel features padded to whole chunks. Samples after the last whole hop are dropped.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.

        Returns:
            Features [B, M, T], float32, and mask [B, T], int64, with T a multiple of the chunk length (100 frames).
        """
        whole = [w[: max(len(w) // HOP, 1) * HOP] for w in waveforms]
        mel, mask = super().features([pad(w, (0, max(self.min_samples - len(w), 0))) for w in whole])
        short = -mel.shape[-1] % (2 * self.hf.config.audio_config.n_window)
        return pad(mel, (0, short)), pad(mask, (0, short))

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count the audio tokens of each clip: 13 per whole chunk, and ceil(frames / 8) for the rest.

        Args:
            mask: Tensor [B, T] from `features`.

        Returns:
            B counts.
        """
        frames, chunk = mask.sum(-1), 2 * self.hf.config.audio_config.n_window
        return (-(-(frames % chunk) // 8) + frames // chunk * -(-chunk // 8)).tolist()

    def encoder_arguments(self, counts: list[int]) -> dict[str, Any]:
        """Return the boundaries of the encoder's attention windows. transformers computes them for chunks of 1 s only.

        Args:
            counts: B numbers of audio tokens.

        Returns:
            `cu_seqlens`, int32, cumulative numbers of audio tokens at the boundaries of all clips' windows.
        """
        audio = self.hf.config.audio_config
        chunk = 2 * audio.n_window
        window = -(-chunk // 8) * (audio.n_window_infer // chunk)
        ends = [
            start + min(at + window, n)
            for start, n in zip(accumulate(counts, initial=0), counts)
            for at in range(0, n, window)
        ]
        return {"cu_seqlens": torch.tensor([0, *ends], dtype=torch.int32, device=self.device)}

    def prompt_text(self, language: str) -> tuple[str, str]:
        """See `SpeechLM.prompt_text`. The answer begins with the language.

        Args:
            language: English name of a language that Qwen3-ASR was trained with.

        Returns:
            The chat turns before and after the audio tokens.

        Raises:
            UserError: Qwen3-ASR does not support the language.
        """
        if language not in LANGUAGES:
            raise UserError(
                f"language {language!r}: Qwen3-ASR supports {', '.join(LANGUAGES)}; set one of them in the manifest"
            )
        before = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
        return before, f"<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {language}<asr_text>"


def converted(thinker: dict[str, Any]) -> Qwen3ASRConfig:
    """Convert the original configuration to that of transformers. Keys that transformers does not know are dropped.

    Multimodal rotary positions (mrope) become plain RoPE, which is the same for inputs without images. The encoder's
    positions are those inside one chunk, not `max_source_positions`.

    Args:
        thinker: The table `thinker_config` of the original config.json.

    Returns:
        The configuration.
    """
    audio = {k: v for k, v in thinker["audio_config"].items() if k in Qwen3ASREncoderConfig.__annotations__}
    chunk = 2 * audio.get("n_window", Qwen3ASREncoderConfig.n_window)
    audio |= {"model_type": "qwen3_asr_encoder", "max_position_embeddings": -(-chunk // 8)}
    original = thinker["text_config"]
    rope = {k: v for k, v in (original.get("rope_scaling") or {}).items() if k not in MROPE_KEYS}
    rope = {"rope_type": "default", "rope_theta": original.get("rope_theta", 1e6)} | rope
    text = {k: v for k, v in original.items() if k in Qwen3Config.__annotations__}
    tied = thinker.get("tie_word_embeddings", original.get("tie_word_embeddings", True))
    text |= {"model_type": "qwen3", "rope_parameters": rope, "tie_word_embeddings": tied}
    kept = {k: thinker[k] for k in ("audio_token_id", "initializer_range") if k in thinker}
    return Qwen3ASRConfig(audio_config=audio, text_config=text, tie_word_embeddings=tied, **kept)

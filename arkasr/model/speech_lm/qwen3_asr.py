"""Qwen3-ASR as a SpeechLM: prompt, features and attention windows, and the original repositories' layout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    PreTrainedConfig,
    Qwen3ASRConfig,
    Qwen3ASREncoderConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3Config,
)
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from arkasr.errors import UserError
from arkasr.model.log_mel import HOP
from arkasr.model.speech_lm.base import SpeechLM

LANGUAGES = sorted(LANGUAGE_CODE_TO_NAME.values())
ORIGINAL_KEYS = {  # the first that fits counts
    r"^thinker\.audio_tower\.proj1\.": "model.multi_modal_projector.linear_1.",
    r"^thinker\.audio_tower\.proj2\.": "model.multi_modal_projector.linear_2.",
    r"^thinker\.audio_tower\.": "model.audio_tower.",
    r"^thinker\.model\.": "model.language_model.",
    r"^thinker\.lm_head\.": "lm_head.",
}
MROPE_KEYS = {"mrope_interleaved", "interleaved", "mrope_section", "type"}


class QwenSpeechLM(SpeechLM):
    """Qwen3-ASR's prompt with the language forced, and its features: 1 s chunks, clips padded to half a second."""

    stop_tokens = ("<|im_end|>", "<|endoftext|>")
    min_samples = 8000

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute mel features padded to whole chunks; waveforms are cut to whole hops so that no frame is partial."""
        whole = [w[: max(len(w) // HOP, 1) * HOP] for w in waveforms]
        mel, mask = super().features([pad(w, (0, max(self.min_samples - len(w), 0))) for w in whole])
        short = -mel.shape[-1] % (2 * self.hf.config.audio_config.n_window)
        return pad(mel, (0, short)), pad(mask, (0, short))

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count 13 tokens for each whole second and one for every 8 frames of the rest, rounded up."""
        frames, chunk = mask.sum(-1), 2 * self.hf.config.audio_config.n_window
        return (-(-(frames % chunk) // 8) + frames // chunk * -(-chunk // 8)).tolist()

    def encoder_arguments(self, counts: list[int]) -> dict[str, Any]:
        """Return where attention windows end among all clips' tokens; transformers' own count knows 1 s chunks only."""
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
        """Return the chat turns around the audio; the answer is opened with the language given.

        Raises UserError for a language that Qwen3-ASR was not trained with.
        """
        if language not in LANGUAGES:
            raise UserError(f"language {language!r}: Qwen3-ASR knows {', '.join(LANGUAGES)}; name one in the manifest")
        before = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
        return before, f"<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {language}<asr_text>"


def from_original(path: str, **options: Any) -> tuple[Qwen3ASRForConditionalGeneration, dict[str, Any]]:
    """Load a repository in the original layout: `thinker_config` in config.json, tensors named `thinker.*`.

    path: folder or Hub id; options: for `from_pretrained`. Returns the model and transformers' loading info, in which
    every tensor that is missing, left over or of another shape stands: transformers itself maps none of these names
    and would draw the weights.
    """
    config = converted(PreTrainedConfig.get_config_dict(path)[0]["thinker_config"])
    return Qwen3ASRForConditionalGeneration.from_pretrained(
        path, config=config, key_mapping=ORIGINAL_KEYS, output_loading_info=True, **options
    )


def converted(thinker: dict[str, Any]) -> Qwen3ASRConfig:
    """Keep of the original configuration what transformers' classes know.

    Text positions in three parts (mrope) are plain ones where all parts are equal, as without images. The encoder's
    positions are those inside a chunk, not `max_source_positions`.
    """
    audio = {k: v for k, v in thinker["audio_config"].items() if k in Qwen3ASREncoderConfig.__annotations__}
    chunk = 2 * audio.get("n_window", Qwen3ASREncoderConfig.n_window)
    audio |= {"model_type": "qwen3_asr_encoder", "max_position_embeddings": -(-chunk // 8)}
    given = thinker["text_config"]
    rope = {k: v for k, v in (given.get("rope_scaling") or {}).items() if k not in MROPE_KEYS}
    rope = {"rope_type": "default", "rope_theta": given.get("rope_theta", 1e6)} | rope
    text = {k: v for k, v in given.items() if k in Qwen3Config.__annotations__}
    tied = thinker.get("tie_word_embeddings", given.get("tie_word_embeddings", True))
    text |= {"model_type": "qwen3", "rope_parameters": rope, "tie_word_embeddings": tied}
    kept = {k: thinker[k] for k in ("audio_token_id", "initializer_range") if k in thinker}
    return Qwen3ASRConfig(audio_config=audio, text_config=text, tie_word_embeddings=tied, **kept)

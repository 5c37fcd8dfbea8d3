"""Qwen3-ASR as a SpeechLM: prompt and features, and the names of the original layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    AutoTokenizer,
    Qwen3ASRConfig,
    Qwen3ASREncoderConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRProcessor,
    Qwen3Config,
)
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.languages import known_language
from arkasr.model.log_mel import HOP, log_mel
from arkasr.model.speech_lm.base import SpeechLM
from arkasr.model.speech_lm.qwen3_encoder import encode
from arkasr.model.speech_lm.qwen3_original import original_config, to_original
from arkasr.model.weight_digests import write_digests

LANGUAGES = sorted(LANGUAGE_CODE_TO_NAME.values())
# Original to transformers' names, first match first. transformers knows none of these and would draw random weights.
ORIGINAL_KEYS = {
    r"^thinker\.audio_tower\.proj1\.": "model.multi_modal_projector.linear_1.",
    r"^thinker\.audio_tower\.proj2\.": "model.multi_modal_projector.linear_2.",
    r"^thinker\.audio_tower\.": "model.audio_tower.",
    r"^thinker\.model\.": "model.language_model.",
    r"^thinker\.lm_head\.": "lm_head.",
}
MARKS = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
CHAT_TEMPLATE = (  # the prompt below for conversations, if the tokenizer has no template
    "{%- if messages[0].role != 'system' -%}{{- '<|im_start|>system\\n<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
    "{%- for part in message.content -%}"
    "{{- '<|audio_start|><|audio_pad|><|audio_end|>' if part.type == 'audio' else part.text -}}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}"
)
MROPE_KEYS = {"mrope_interleaved", "interleaved", "mrope_section", "type"}


class QwenSpeechLM(SpeechLM):
    """Qwen3-ASR, with its prompt, which forces the language, and its features.

    The features are chunks of 1 s. Clips under 0.5 s are padded with silence to 0.5 s. See SpeechLM for the
    constructor's arguments.
    """

    stop_tokens = ("<|im_end|>", "<|endoftext|>")
    min_samples = SAMPLE_RATE // 2  # 0.5 s

    def mel(self, waveforms: Waveforms) -> Tensor:
        """See `SpeechLM.mel`. Features are padded to whole chunks. Samples after the last whole hop are dropped.

        They equal those of other models for clips of at least 0.5 s and a whole number of hops. They differ in the
        last frame of most other clips, where the last window is reflected at another sample.

        Args:
            waveforms: B waveforms at 16 kHz.

        Returns:
            Tensor [B, M, T], float32, with T a multiple of the chunk length (100 frames).
        """
        whole = [n // HOP * HOP or n for n in waveforms.lengths]
        mel, _ = log_mel(waveforms, self.num_mel, self.device, whole, self.min_samples)
        return pad(mel, (0, -mel.shape[-1] % self.chunk))

    def count_frames(self, waveforms: Sequence[Tensor]) -> list[int]:
        """See `SpeechLM.count_frames`: at least those of 0.5 s.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.

        Returns:
            B counts.
        """
        return [max(len(w), self.min_samples) // HOP for w in waveforms]

    @property
    def chunk(self) -> int:
        """Mel frames of one chunk, which the convolutions see alone."""
        return 2 * self.hf.config.audio_config.n_window

    def count_audio_tokens(self, frames: Sequence[int]) -> list[int]:
        """Count the audio tokens of each clip: 13 per whole chunk, and ceil(frames / 8) for the rest.

        Args:
            frames: Mel frames of each clip.

        Returns:
            B counts.
        """
        return [-(-(n % self.chunk) // 8) + n // self.chunk * -(-self.chunk // 8) for n in frames]

    def encoder_rows(self, mel: Tensor, frames: Sequence[int]) -> Tensor:
        """See `SpeechLM.encoder_rows`.

        Args:
            mel: Tensor [B, M, T].
            frames: Mel frames of each clip.

        Returns:
            Tensor [sum(N_i), D].
        """
        return encode(self.hf.model.audio_tower, mel, frames)

    def prompt_text(self, language: str) -> tuple[str, str]:
        """See `SpeechLM.prompt_text`. The answer begins with the language.

        Args:
            language: Name or code of a language that Qwen3-ASR was trained with.

        Returns:
            The chat turns before and after the audio tokens.

        Raises:
            UserError: Qwen3-ASR does not support the language.
        """
        found = known_language(language)
        if found is None or found.name not in LANGUAGES:
            raise UserError(
                f"language {language!r}: Qwen3-ASR supports {', '.join(LANGUAGES)}; set one of them in the manifest"
            )
        before = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
        return before, f"<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {found.name}<asr_text>"

    @property
    def suppressed_ids(self) -> list[int]:
        """See `SpeechLM.suppressed_ids`. The model writes `<asr_text>` itself where the prompt names no language."""
        return [i for i in super().suppressed_ids if i != self.tokenizer.convert_tokens_to_ids("<asr_text>")]

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """See `SpeechLM.save`. `save_original_format=True` writes the original layout.

        Args:
            folder: The folder.
            state_dict: See `SpeechLM.save`.
            **options: See `SpeechLM.save`.

        Raises:
            UserError: The original layout cannot represent the model.
        """
        config: Any = self.hf.config
        is_original = options.pop("save_original_format", False)
        if is_original:
            original_config(config)  # before anything is written
        super().save(folder, state_dict, **options)
        if is_original:
            to_original(Path(folder), config, self.num_mel)
            write_digests(Path(folder))

    def _save_processor(self, folder: Path) -> None:
        """Write transformers' processor. The tokenizer gets the names of tokens that the processor reads."""
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **MARKS)
        extractor = Qwen3ASRFeatureExtractor(self.num_mel, n_window=self.chunk // 2)
        template = getattr(self.tokenizer, "chat_template", None) or CHAT_TEMPLATE
        Qwen3ASRProcessor(extractor, tokenizer, chat_template=template).save_pretrained(folder)


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

"""SpeechLM: one face for student and teacher, so that training, rollout, scoring and decoding share one path."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from arkasr.interfaces import UserError
from arkasr.model.frontend import HOP, log_mel

T = TypeVar("T")


class SpeechLM(nn.Module, ABC):
    """A causal language model whose prompt holds audio: `before + audio tokens + after`, then the transcript.

    stop_ids: ids that end a transcript, the first is the one written. blocked: bool [V], ids that never stand in a
    transcript (every added token but the stop ids, and ids past the tokenizer's end). ctc_head: an auxiliary head on
    the audio tokens for training from scratch; it is no part of the exported model.
    """

    stop_tokens: tuple[str, ...] = ("<|im_end|>",)

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.hf, self.tokenizer, self.ctc_head = hf, tokenizer, None
        needed = {*self.stop_tokens, *re.findall("<[^<>]+>", "".join(self.prompt_text("English")))}
        missing = sorted(needed - tokenizer.get_vocab().keys())
        if missing:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer lacks {', '.join(missing)}, part of the prompt")
        self.stop_ids = [tokenizer.convert_tokens_to_ids(t) for t in self.stop_tokens]
        vocab_size = hf.config.text_config.vocab_size
        blocked = torch.arange(vocab_size) >= len(tokenizer)
        blocked[[i for i in tokenizer.added_tokens_decoder if i not in self.stop_ids]] = True
        if tokenizer.unk_token_id is not None:
            blocked[tokenizer.unk_token_id] = tokenizer.unk_token_id not in self.stop_ids
        self.register_buffer("blocked", blocked, persistent=False)

    def forward(self, work: Callable[[SpeechLM], T]) -> T:
        """Run `work` on this model: the one entry through which FSDP2 gathers the weights that live at the root."""
        return work(self)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.blocked.device

    @property
    def num_mel(self) -> int:
        """Mel filters that the audio encoder reads."""
        return self.hf.config.audio_config.num_mel_bins

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute mel features [B, M, T] and their mask int64 [B, T]."""
        mel, lengths = log_mel(waveforms, self.num_mel, self.device)
        return mel, (torch.arange(mel.shape[-1], device=self.device) < lengths[:, None]).long()

    @abstractmethod
    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count each clip's audio tokens from its feature mask [B, T]."""

    @abstractmethod
    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return what stands before and after the audio tokens."""

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode B clips into audio tokens [N_i, H] each."""
        mel, mask = self.features(waveforms)
        counts = self.count_audio_tokens(mask)
        dtype = next(self.hf.model.audio_tower.parameters()).dtype
        rows = self.hf.model.get_audio_features(mel.to(dtype), mask, **self.encoder_arguments(counts)).pooler_output
        return list(rows.split(counts))

    def encoder_arguments(self, counts: list[int]) -> dict[str, Any]:
        """Return what the encoder is told beside features and mask."""
        return {}

    def embed_prompts(self, audio: Sequence[Tensor], languages: Sequence[str]) -> list[Tensor]:
        """Put audio tokens [N_i, H] into their prompts: B tensors [S_i, H]."""
        embed = self.hf.get_input_embeddings()
        ends = {lang: [embed(self._ids(text)) for text in self.prompt_text(lang)] for lang in set(languages)}
        return [
            torch.cat([ends[lang][0], a.to(ends[lang][0].dtype), ends[lang][1]]) for a, lang in zip(audio, languages)
        ]

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), device=self.device)

    def transcript_states(self, prompts: Sequence[Tensor], token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the last hidden states [P, H] from which each transcript token is predicted, clip after clip.

        Sequences are padded on the right, where causal attention never looks: a clip's rows do not depend on what
        it is batched with.
        """
        embed = self.hf.get_input_embeddings()
        text = [embed(torch.tensor(ids[:-1], dtype=torch.long, device=self.device)) for ids in token_ids]
        batch = pad_sequence([torch.cat([p, t.to(p.dtype)]) for p, t in zip(prompts, text)], batch_first=True)
        states = self.hf.model.language_model(inputs_embeds=batch, use_cache=False).last_hidden_state
        return torch.cat([s[len(p) - 1 : len(p) - 1 + len(ids)] for s, p, ids in zip(states, prompts, token_ids)])

    @property
    def head(self) -> Tensor:
        """The output head's weight [V, H]."""
        return self.hf.lm_head.weight

    def text_ids(self, text: str) -> list[int]:
        """Tokenise a transcript, the stop id last."""
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.stop_ids[0]]

    def text(self, ids: Sequence[int]) -> str:
        """Read a transcript's ids (with or without the stop id)."""
        kept = [i for i in ids if i not in self.stop_ids]
        return self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    def add_ctc_head(self) -> None:
        """Give the model an auxiliary CTC head over its vocabulary and a blank (the last class)."""
        text = self.hf.config.text_config
        self.ctc_head = nn.Linear(text.hidden_size, text.vocab_size + 1)

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a Hugging Face folder: weights as safetensors, configuration and tokenizer."""
        self.hf.save_pretrained(folder, state_dict=state_dict)
        self.tokenizer.save_pretrained(folder)


class ArkSpeechLM(SpeechLM):
    """The student's prompt: `<|user|><|begin_of_audio|>` audio `<|end_of_audio|>instruction<|assistant|>`."""

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count 12.5 tokens a second: frames halved up, merged down, at least one."""
        from arkasr.model.modeling import num_audio_tokens

        return num_audio_tokens(mask.sum(-1), self.hf.config.merge_factor).tolist()

    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return the prompt's two parts; the student is told no language."""
        return "<|user|><|begin_of_audio|>", f"<|end_of_audio|>{self.hf.config.instruction}<|assistant|>"


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
        """Return the chat turns around the audio; the answer is opened with the language given."""
        before = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
        return before, f"<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {language}<asr_text>"


def wrap(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Wrap a Hugging Face model by its configuration's `model_type`."""
    return {"arkasr": ArkSpeechLM, "qwen3_asr": QwenSpeechLM}[hf.config.model_type](hf, tokenizer)


def prompt_examples(model_type: str) -> list[str]:
    """Return the prompt's plain words, for training a tokenizer that keeps prompts short."""
    if model_type == "arkasr":
        return ["Please transcribe this audio."]
    return ["system\n", "user\n", "assistant\n", "language English", "language Chinese"]


def build(model_type: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build a model with fresh weights.

    sizes: `audio` and `text`, keys of the model's own two configurations, and `initializer_range`, the standard
    deviation of fresh linear layers and embeddings everywhere (0.02 suits large widths; 1/sqrt(width) small ones).
    """
    from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

    from arkasr.model.modeling import ArkasrConfig, ArkasrForConditionalGeneration

    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    spread = dict(initializer_range=sizes.get("initializer_range", 0.02))
    text = dict(sizes["text"], vocab_size=len(tokenizer), tie_word_embeddings=True) | spread
    token = {"arkasr": "<|audio|>", "qwen3_asr": "<|audio_pad|>"}[model_type]
    common = dict(audio_token_id=tokenizer.convert_tokens_to_ids(token), tie_word_embeddings=True, **ids, **spread)
    if model_type == "arkasr":
        config = ArkasrConfig(audio_config=sizes["audio"] | spread, text_config=text | ids, **common)
        return wrap(_with_loud_convolutions(ArkasrForConditionalGeneration(config)), tokenizer)
    audio = sizes["audio"] | spread | dict(output_dim=text["hidden_size"])
    config = Qwen3ASRConfig(audio_config=audio, text_config=dict(text, model_type="qwen3") | ids, **common)
    return wrap(_with_loud_convolutions(Qwen3ASRForConditionalGeneration(config)), tokenizer)


def _with_loud_convolutions(hf: PreTrainedModel) -> PreTrainedModel:
    """Draw fresh convolutions with standard deviation 2 / sqrt(fan_in): GELU halves what is small, so that the signal
    keeps its size. At a fixed 0.02 a small encoder hears its position codes only.
    """
    for module in hf.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=2.0 / math.sqrt(module.weight[0].numel()))
    return hf

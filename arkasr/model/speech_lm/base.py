"""SpeechLM: one face for student and teacher, so that training, rollout, scoring and decoding share one path."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copymode
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from arkasr.model.arkasr.prompt import require_tokens
from arkasr.model.log_mel import check_waveforms, mel_and_mask
from arkasr.model.tokenization import blocked_ids

T = TypeVar("T")


class SpeechLM(nn.Module, ABC):
    """A causal language model whose prompt holds audio: `before + audio tokens + after`, then the transcript.

    stop_ids: ids that end a transcript, the first is the one written. blocked: bool [V], ids that never stand in a
    transcript (`tokenization.blocked_ids`). ctc_head: an auxiliary head on
    the audio tokens for training from scratch; it is no part of the exported model.
    """

    stop_tokens: tuple[str, ...] = ("<|im_end|>",)

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.hf, self.tokenizer, self.ctc_head = hf, tokenizer, None
        needed = {*self.stop_tokens, *re.findall("<[^<>]+>", "".join(self.prompt_text("English")))}
        require_tokens(tokenizer, needed)
        self.stop_ids = [tokenizer.convert_tokens_to_ids(t) for t in self.stop_tokens]
        blocked = blocked_ids(tokenizer, self.stop_ids, hf.config.text_config.vocab_size)
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
        return mel_and_mask(waveforms, self.num_mel, self.device)

    @abstractmethod
    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count each clip's audio tokens from its feature mask [B, T]."""

    @abstractmethod
    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return what stands before and after the audio tokens."""

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode B clips into audio tokens [N_i, H] each. Raises UserError for what `check_waveforms` refuses."""
        check_waveforms(waveforms)
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
        spoken = sorted(set(languages))
        ends = self._embed([self._ids(text) for language in spoken for text in self.prompt_text(language)])
        around = dict(zip(spoken, zip(ends[::2], ends[1::2])))
        return [torch.cat([around[of][0], a.to(ends[0].dtype), around[of][1]]) for a, of in zip(audio, languages)]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _embed(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Embed B sequences [L_i] in one call, as each call costs the backward pass a gradient [V, H]: [L_i, H] each."""
        ids = torch.tensor([i for row in token_ids for i in row], dtype=torch.long, device=self.device)
        return list(self.hf.get_input_embeddings()(ids).split([len(row) for row in token_ids]))

    def transcript_states(self, prompts: Sequence[Tensor], token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the last hidden states [P, H] from which each transcript token is predicted, clip after clip.

        Sequences are padded on the right, where causal attention never looks: a clip's rows do not depend on what
        it is batched with.
        """
        text = self._embed([ids[:-1] for ids in token_ids])
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

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """Write a Hugging Face folder: weights as safetensors, configuration and tokenizer.

        options: what else the model's `save_pretrained` knows; the layout is the native one unless
        `save_original_format` asks for another. Who may read the configuration may read the weights, which safetensors
        writes for their owner alone.
        """
        self.hf.save_pretrained(folder, state_dict=state_dict, **{"save_original_format": False, **options})
        self.tokenizer.save_pretrained(folder)
        for file in Path(folder).glob("*.safetensors"):
            copymode(Path(folder) / "config.json", file)

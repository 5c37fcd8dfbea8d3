"""Teachers that run in this process: any recogniser that arkasr can load, Qwen3-ASR first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LocalTeacherOptions:
    """path: folder or Hub id; dtype: of its weights; max_new_tokens: cap of a transcript when it transcribes."""

    path: str = "Qwen/Qwen3-ASR-1.7B-hf"
    dtype: str = "bfloat16"
    max_new_tokens: int = 256


class LocalTeacher:
    """A frozen recogniser in this process: scores transcript rows only, in its own dtype."""

    model_type = "qwen3_asr"

    def __init__(self, options: LocalTeacherOptions, device: str = "cpu"):
        self.options = options
        self.lm = arkasr.load_speech_lm(options.path, options.dtype, device).requires_grad_(False)
        found = self.lm.hf.config.model_type
        if found != self.model_type:
            raise arkasr.UserError(f"{options.path}: holds a model of type {found!r}, not {self.model_type!r}")
        self.tokenizer, self.stop_ids = self.lm.tokenizer, self.lm.stop_ids

    def score(self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]):
        """Score transcripts by teacher forcing; see `arkasr.Teacher`."""
        import torch

        with torch.no_grad():
            prompts = self.lm.embed_prompts(self.lm.encode_audio(waveforms), languages)
            return arkasr.DenseView(self.lm.transcript_states(prompts, token_ids) @ self.lm.head.T)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily; special tokens other than the stop ids are never chosen."""
        import torch

        with torch.no_grad():
            prompts = self.lm.embed_prompts(self.lm.encode_audio(waveforms), languages)
            made = arkasr.generate(self.lm, prompts, [self.options.max_new_tokens] * len(waveforms))
        return [self.lm.text(ids) for ids in made.ids]


@arkasr.hookimpl
def register_teachers(register):
    """Register the teachers that load from a folder or the Hub."""
    register("qwen3_asr", LocalTeacher, LocalTeacherOptions)

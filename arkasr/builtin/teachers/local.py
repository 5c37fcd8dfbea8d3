"""Teachers that are a recogniser in this process, by one class: what differs between them the models know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LocalTeacherOptions:
    """path: folder or Hub id; dtype: of its weights; max_new_tokens: cap of a transcript when it transcribes;
    allow_pickle: read weights from pytorch_model.bin where there are no safetensors.
    """

    path: str = "Qwen/Qwen3-ASR-1.7B-hf"
    dtype: str = "bfloat16"
    max_new_tokens: int = 256
    allow_pickle: bool = False

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")


@dataclass
class GlmAsrOptions(LocalTeacherOptions):
    """path: folder or Hub id; dtype: of its weights; max_new_tokens: cap of a transcript when it transcribes;
    allow_pickle: read weights from pytorch_model.bin where there are no safetensors.
    """

    path: str = "zai-org/GLM-ASR-Nano-2512"


@dataclass
class ArkasrOptions(LocalTeacherOptions):
    """path: folder or Hub id; dtype: of its weights; max_new_tokens: cap of a transcript when it transcribes;
    allow_pickle: read weights from pytorch_model.bin where there are no safetensors.
    """

    path: str = "AutoArk-AI/ARK-ASR-0.6B"


class LocalTeacher:
    """A frozen Qwen3-ASR in this process: scores transcript rows only, in its own dtype; told the corpus's language.

    It reads transformers' layout (the `-hf` repositories) and the original one. The model is entered by `lm(work)` only,
    so that it may be sharded over ranks; every rank then scores as often as the others.
    """

    model_type = "qwen3_asr"
    hides_blocked = False  # whether ids that never stand in a transcript have probability 0

    def __init__(self, options: LocalTeacherOptions, device: str = "cpu"):
        self.options = options
        self.lm = arkasr.load_speech_lm(options.path, options.dtype, device, options.allow_pickle)
        self.lm.requires_grad_(False)
        found = self.lm.hf.config.model_type
        if found != self.model_type:
            raise arkasr.UserError(f"{options.path}: holds a model of type {found!r}, not {self.model_type!r}")
        self.tokenizer, self.stop_ids = self.lm.tokenizer, self.lm.stop_ids

    def score(self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]):
        """Score transcripts by teacher forcing; see `arkasr.Teacher`."""
        import torch

        def work(lm: arkasr.SpeechLM) -> Tensor:
            prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
            return arkasr.head_logits(lm.transcript_states(prompts, token_ids), lm.head)

        with torch.no_grad():
            logits = self.lm(work)
        return arkasr.DenseView(logits, self.lm.blocked if self.hides_blocked else None)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily; special tokens other than the stop ids are never chosen."""
        import torch

        def work(lm: arkasr.SpeechLM) -> list[list[int]]:
            prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
            return arkasr.generate(lm, prompts, [self.options.max_new_tokens] * len(waveforms)).ids

        with torch.no_grad():
            made = self.lm(work)
        return [self.lm.text(ids) for ids in made]


class GlmAsrTeacher(LocalTeacher):
    """A frozen GLM-ASR in this process; it is told no language, and hears each clip in windows of 30 s."""

    model_type = "glmasr"


class ArkasrTeacher(LocalTeacher):
    """A frozen Ark-ASR in this process: a larger one, or the student as it was before.

    Ids that never stand in a transcript have probability 0, as in the student's own view: the published weights put
    much on some of them, and a teacher that equals its student must differ from it nowhere.
    """

    model_type = "arkasr"
    hides_blocked = True


@arkasr.hookimpl
def register_teachers(register):
    """Register the teachers that load from a folder or the Hub."""
    register("qwen3_asr", LocalTeacher, LocalTeacherOptions)
    register("glmasr", GlmAsrTeacher, GlmAsrOptions)
    register("arkasr", ArkasrTeacher, ArkasrOptions)

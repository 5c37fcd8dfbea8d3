"""A model that transcribes, on one device: any SpeechLM checkpoint, or a teacher plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.interfaces import Transcript
from arkasr.model.generation import generate, is_looping, token_caps
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.plugins import registry

MAX_NEW_TOKENS = 1000  # per window
TOKENS_PER_SECOND = 25.0  # fast speech in single bytes


class Recognizer:
    """Transcribes batches of clips.

    Args:
        name: Name of the model, for outputs.
        lm: The model, or None for a teacher plugin.
        teacher: The teacher plugin, or None.

    Attributes:
        name: Name of the model.
        lm: The model, or None for a teacher plugin.
    """

    def __init__(self, name: str, lm: SpeechLM | None = None, teacher: Any = None):
        self.name, self.lm, self._teacher = name, lm, teacher

    @classmethod
    def load(cls, model: str = "", teacher: str = "", device: str = "auto", dtype: str = "auto") -> Recognizer:
        """Load a model.

        Args:
            model: Folder or Hub id (see `load_speech_lm`).
            teacher: A teacher plugin and its option `path`, as PLUGIN:PATH, instead of `model`.
            device: torch device. `auto` is the GPU if there is one.
            dtype: Name of the weights' torch dtype. `auto` is bfloat16 on a GPU, else float32.

        Returns:
            The recogniser.

        Raises:
            UserError: Both or neither are named, or the model cannot be loaded.
        """
        if bool(model) == bool(teacher):
            raise UserError("--model and --teacher: exactly one must name a model; add or remove one of them")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        if model:
            return cls(model, load_speech_lm(model, dtype, device))
        plugin, _, path = teacher.partition(":")
        return cls(teacher, teacher=registry.create("teacher", plugin, {"path": path}, device=device))

    @property
    def max_seconds(self) -> float | None:
        """Longest clip in seconds that the model reads, or None if it has no limit."""
        return None if self.lm is None else self.lm.max_seconds

    @torch.no_grad()
    def transcribe(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], hotwords: Sequence[str] = ()
    ) -> list[Transcript]:
        """Transcribe one batch greedily.

        Args:
            waveforms: B tensors [num_samples], float32, mono at 16 kHz, each at most `max_seconds`.
            languages: B English names of languages.
            hotwords: Words and phrases that decoding prefers.

        Returns:
            B transcripts.
        """
        clips = Waveforms.of(waveforms)
        if self.lm is None:
            texts = self._teacher.transcribe(clips, languages)
            return [text if isinstance(text, Transcript) else Transcript(text) for text in texts]
        caps = token_caps(clips, MAX_NEW_TOKENS, TOKENS_PER_SECOND)
        generated = generate(self.lm, self.lm.embed_prompts(self.lm.encode_audio(clips), languages), caps)
        return [
            Transcript(self.lm.text(ids), stopped, is_looping(ids, self.lm.stop_ids), len(ids))
            for ids, stopped in zip(generated.ids, generated.stopped)
        ]

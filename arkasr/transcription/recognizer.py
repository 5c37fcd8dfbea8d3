"""A model that transcribes, on one device: any SpeechLM checkpoint, or a teacher plugin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arkasr.data.batches import Batch
from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.evaluation.one_by_one import check_transcripts
from arkasr.interfaces import Transcript
from arkasr.model.generation import generate, generate_preferring, is_looping, token_caps
from arkasr.model.hotwords import DEFAULT_WEIGHT, HotwordTables, hotword_tables
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.plugins import registry
from arkasr.transcription.settings import WINDOW_SECONDS

MAX_NEW_TOKENS = 1000  # per window
TOKENS_PER_SECOND = 25.0  # fast speech in single bytes
LONGER = 1.25  # than the clips of the training, which a model still transcribes
DTYPES = ("float32", "bfloat16", "float16")


def place(device: str = "auto", dtype: str = "auto") -> tuple[str, str]:
    """Choose where a model is placed, and in which precision.

    Args:
        device: torch device. `auto` is the GPU if there is one.
        dtype: Name of the weights' torch dtype. `auto` is bfloat16 on a GPU, else float32.

    Returns:
        Device and dtype, neither of them `auto`.

    Raises:
        UserError: There is no such device or dtype.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # of torch without CUDA
        reason = (str(error).splitlines() or [""])[0][:150].rstrip(". ")
        raise UserError(f"--device {device}: cannot be used ({reason}); use cpu, cuda or cuda:<number>") from error
    dtype = ("bfloat16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: is not a data type of weights; use auto, {', '.join(DTYPES)}")
    return device, dtype


class Recognizer:
    """Transcribes batches of clips.

    Args:
        name: Name of the model, for outputs.
        lm: The model, or None for a teacher plugin.
        teacher: The teacher plugin, or None.

    Attributes:
        name: Name of the model.
        lm: The model, or None for a teacher plugin.
        tokens_per_second: Most tokens of a transcript per second of audio, besides `MAX_NEW_TOKENS`.
    """

    tokens_per_second = TOKENS_PER_SECOND

    def __init__(self, name: str, lm: SpeechLM | None = None, teacher: Any = None):
        self.name, self.lm, self._teacher = name, lm, teacher

    @classmethod
    def load(cls, model: str = "", teacher: str = "", device: str = "auto", dtype: str = "auto") -> Recognizer:
        """Load a model.

        Args:
            model: Folder or Hub id (see `load_speech_lm`).
            teacher: A teacher plugin and its option `path`, as PLUGIN:PATH, instead of `model`. If it has an option
                `dtype`, it gets `dtype`.
            device: torch device. `auto` is the GPU if there is one.
            dtype: Name of the weights' torch dtype. `auto` is bfloat16 on a GPU, else float32.

        Returns:
            The recogniser.

        Raises:
            UserError: Both or neither are named, or the model cannot be loaded.
        """
        if bool(model) == bool(teacher):
            raise UserError("--model and --teacher: exactly one must name a model; add or remove one of them")
        device, dtype = place(device, dtype)
        if model:
            return cls(model, load_speech_lm(model, dtype, device))
        plugin, _, path = teacher.partition(":")
        options = {"path": path} if path else {}
        if hasattr(registry.check_plugin("teacher", plugin, options), "dtype"):
            options["dtype"] = dtype
        return cls(teacher, teacher=registry.create("teacher", plugin, options, device=device))

    @property
    def max_seconds(self) -> float | None:
        """Longest clip in seconds that the model reads, or None if it has no limit."""
        return None if self.lm is None else self.lm.max_seconds

    def window_seconds(self, wanted: float | None = None) -> float:
        """Return the longest stretch of audio that the model should read at once.

        A model that was trained on single sentences does not transcribe two of them at once.

        Args:
            wanted: The choice of the user in seconds. None: 28, or 1.25 times the longest clip of the training if that
                is known and shorter, but at least 1.

        Returns:
            Seconds, at most `max_seconds`.
        """
        if wanted is None:
            trained = self.lm.trained_seconds if self.lm else None
            wanted = WINDOW_SECONDS if trained is None else min(max(LONGER * trained, 1.0), WINDOW_SECONDS)
        return min(wanted, self.max_seconds or math.inf)

    def token_caps(self, waveforms: Sequence[Tensor]) -> list[int]:
        """Return the most tokens of each transcript: min(1000, 2 + ceil(25 s)) for s seconds. So a loop ends soon.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.

        Returns:
            B numbers of tokens, the stop token included.
        """
        return token_caps(waveforms, MAX_NEW_TOKENS, self.tokens_per_second)

    @torch.no_grad()
    def transcribe(
        self,
        waveforms: Sequence[Tensor],
        languages: Sequence[str],
        hotwords: Sequence[str] = (),
        hotword_weight: float = DEFAULT_WEIGHT,
    ) -> list[Transcript]:
        """Transcribe one batch greedily.

        Args:
            waveforms: B tensors [num_samples], float32, mono at 16 kHz, each at most `max_seconds`.
            languages: B English names of languages.
            hotwords: Words and phrases that decoding prefers.
            hotword_weight: Bonus per token of a hotword (see `hotword_tables`).

        Returns:
            B transcripts.

        Raises:
            UserError: See `check_hotwords`, or a teacher plugin does not return one text per clip.
        """
        clips, tables = Waveforms.of(waveforms), self._tables(hotwords, hotword_weight)
        if self.lm is None:
            names = [f"window {i}" for i in range(len(clips))]
            batch = Batch(names, list(clips), [""] * len(clips), list(languages))
            texts = check_transcripts(self._teacher.transcribe(clips, languages), batch, self.name)
            return [text if isinstance(text, Transcript) else Transcript(text) for text in texts]
        caps = self.token_caps(clips)
        prompts = self.lm.embed_prompts(self.lm.encode_audio(clips), languages)
        generated = generate_preferring(self.lm, prompts, caps, tables) if tables else generate(self.lm, prompts, caps)
        return [
            Transcript(self.lm.text(ids), stopped, is_looping(ids, self.lm.stop_ids), len(ids))
            for ids, stopped in zip(generated.ids, generated.stopped)
        ]

    def check_hotwords(self, hotwords: Sequence[str], hotword_weight: float = DEFAULT_WEIGHT) -> None:
        """Check hotwords before audio is read.

        Args:
            hotwords: Words and phrases that decoding shall prefer.
            hotword_weight: Bonus per token of a hotword.

        Raises:
            UserError: The weight is not a positive number, a hotword is empty or cannot be written in the model's
                tokens, or the model is a teacher plugin, which cannot prefer hotwords.
        """
        self._tables(hotwords, hotword_weight)

    def _tables(self, hotwords: Sequence[str], weight: float) -> HotwordTables | None:
        if not hotwords:
            return None
        if self.lm is None:
            raise UserError(
                f"--hotwords: the teacher plugin {self.name} cannot prefer hotwords; only models that arkasr decodes "
                "can; leave --hotwords out, or name such a model with --model"
            )
        if not 0 < weight < math.inf:
            raise UserError(f"--hotword_weight {weight:g}: must be a number above 0; typical are 1 to 5; correct it")
        return hotword_tables(hotwords, self.lm.tokenizer, len(self.lm.blocked), weight, self.lm.device)

"""Teachers that run a speech recognition model in the training process: `qwen3_asr`, `glmasr` and `arkasr`.

One class serves all three. What differs between the models is in `arkasr.SpeechLM`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LocalTeacherOptions:
    """Options of the teachers in the training process.

    Attributes:
        path: Folder or Hub id of the model.
        dtype: dtype of the weights, for example `bfloat16`.
        max_new_tokens: Maximum number of tokens per transcript when the teacher transcribes, from 1 to 100,000.
        tokens_per_second: Further limit of 2 + r s tokens, for this rate r and s seconds of audio. 0 sets no limit.
        allow_pickle: Read weights from pytorch_model.bin if there are no safetensors.
        mask_control_tokens: When the teacher scores, set the probability of all added tokens but its first stop token
            to 0, before the top k and the normalisation, as the published trainer does.
    """

    path: str = "Qwen/Qwen3-ASR-1.7B-hf"
    dtype: str = "bfloat16"
    max_new_tokens: int = 256
    tokens_per_second: float = 50.0
    allow_pickle: bool = False
    mask_control_tokens: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens <= 100_000:
            raise ValueError(f"max_new_tokens must be from 1 to 100000, got {self.max_new_tokens}")
        if not 0 <= self.tokens_per_second < math.inf:
            raise ValueError(f"tokens_per_second must be finite and at least 0, got {self.tokens_per_second}")


@dataclass
class GlmAsrOptions(LocalTeacherOptions):
    """Options of `glmasr`. See `LocalTeacherOptions`."""

    path: str = "zai-org/GLM-ASR-Nano-2512"


@dataclass
class ArkasrOptions(LocalTeacherOptions):
    """Options of `arkasr`. See `LocalTeacherOptions`."""

    path: str = "AutoArk-AI/ARK-ASR-0.6B"


def control_tokens(tokenizer: Any, stop_id: int, size: int, device: Any) -> Tensor:
    """Mark the control tokens of a vocabulary: all added tokens but the one that ends a transcript.

    Args:
        tokenizer: The model's tokenizer.
        stop_id: Id of the token that ends a transcript.
        size: Number of rows V of the output head.
        device: torch device of the result.

    Returns:
        Tensor [V], bool.
    """
    import torch

    control = torch.zeros(size, dtype=torch.bool, device=device)
    control[[i for i in tokenizer.added_tokens_decoder if i != stop_id]] = True
    return control


class LocalTeacher:
    """A frozen Qwen3-ASR in the training process.

    It reads the layout of transformers (the `-hf` repositories) and the original layout. The language of the corpus is
    part of the prompt. Only transcript positions are scored, in the dtype of the teacher's weights. The model is
    entered through `lm(work)` only and can therefore be sharded over ranks. All ranks must then score equally often.
    """

    model_type = "qwen3_asr"
    hides_blocked = False  # whether ids that never occur in a transcript have probability 0
    hidden: Tensor | None = None  # bool [V], the tokens whose probability is 0

    def __init__(self, options: LocalTeacherOptions, device: str = "cpu"):
        """Load and freeze the model.

        Args:
            options: Options of the teacher.
            device: torch device of the model.

        Raises:
            UserError: If `options.path` cannot be loaded or is a model of another type.
        """
        self.options = options
        self.lm = arkasr.load_speech_lm(options.path, options.dtype, device, options.allow_pickle)
        self.lm.requires_grad_(False)
        found = self.lm.hf.config.model_type
        if found != self.model_type:
            raise arkasr.UserError(
                f"{options.path}: the model type is {found!r}, but this teacher needs {self.model_type!r}; change "
                "`teacher.name` or `teacher.options.path`"
            )
        self.tokenizer, self.stop_ids = self.lm.tokenizer, self.lm.stop_ids
        self.hidden = self._hidden()

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> arkasr.DenseView:
        """Score transcripts by teacher forcing. See `arkasr.Teacher.score`."""
        import torch

        def work(lm: arkasr.SpeechLM) -> Tensor:
            prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
            return arkasr.head_logits(lm.transcript_states(prompts, token_ids), lm.head)

        with torch.no_grad():
            logits = self.lm(work)
        return arkasr.DenseView(logits, self.hidden)

    def _hidden(self) -> Tensor | None:
        hidden = self.lm.blocked if self.hides_blocked else None
        if not self.options.mask_control_tokens:
            return hidden
        control = control_tokens(self.tokenizer, self.stop_ids[0], len(self.lm.blocked), self.lm.device)
        return control if hidden is None else control | hidden

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily. See `arkasr.Teacher.transcribe`. Stop tokens are the only special tokens written.

        Returns:
            B `arkasr.Transcript` objects.
        """
        import torch

        caps = arkasr.token_caps(waveforms, self.options.max_new_tokens, self.options.tokens_per_second)
        with torch.no_grad():
            generated = self.lm(
                lambda lm: arkasr.generate(lm, lm.embed_prompts(lm.encode_audio(waveforms), languages), caps)
            )
        return [
            arkasr.Transcript(self.lm.text(ids), stopped, arkasr.is_looping(ids, self.stop_ids), len(ids))
            for ids, stopped in zip(generated.ids, generated.stopped)
        ]


class GlmAsrTeacher(LocalTeacher):
    """A frozen GLM-ASR in the training process.

    Its prompt contains no language. Audio is encoded in windows of 30 s.
    """

    model_type = "glmasr"


class ArkasrTeacher(LocalTeacher):
    """A frozen Ark-ASR in the training process, for example a larger one or an earlier checkpoint of the student.

    Ids that never occur in a transcript have probability 0, as in the student's view. The published weights give some
    of them a high probability. Without this rule, a teacher that equals its student would differ from it.
    """

    model_type = "arkasr"
    hides_blocked = True


@arkasr.hookimpl
def register_teachers(register):
    """Register the teachers by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("qwen3_asr", LocalTeacher, LocalTeacherOptions)
    register("glmasr", GlmAsrTeacher, GlmAsrOptions)
    register("arkasr", ArkasrTeacher, ArkasrOptions)

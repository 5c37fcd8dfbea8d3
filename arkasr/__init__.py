"""The public interface of arkasr: Ark-ASR, on-policy distillation, and the names that plugins may import.

`import arkasr` does not import torch. The names in `_LAZY` are imported on first use. Plugins may import what is in
`__all__`. `arkasr.transcribe` is for programs that use arkasr, and no plugin may import it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from arkasr.errors import UserError
from arkasr.hookspecs import hookimpl
from arkasr.interfaces import (
    SAMPLE_RATE,
    Alignment,
    DistributionView,
    Loss,
    StudentView,
    Support,
    Teacher,
    TokenMapper,
    Transcript,
)
from arkasr.languages import Language, known_language

try:
    __version__ = version("arkasr")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+source"

_LAZY = {
    "ArkasrConfig": "arkasr.model.arkasr.configuration_arkasr",
    "ArkasrFeatureExtractor": "arkasr.model.arkasr.feature_extraction_arkasr",
    "ArkasrForConditionalGeneration": "arkasr.model.arkasr.modeling_arkasr",
    "ArkasrProcessor": "arkasr.model.arkasr.processing_arkasr",
    "DenseView": "arkasr.distributions.views",
    "HeadView": "arkasr.distributions.views",
    "SparseView": "arkasr.distributions.sparse_view",
    "SpeechLM": "arkasr.model.speech_lm.base",
    "StepMode": "arkasr.model.generation.step_runner",
    "cache_argument": "arkasr.model.generation.weights",
    "check_waveforms": "arkasr.model.log_mel",
    "generate": "arkasr.model.generation.decoding",
    "is_looping": "arkasr.model.generation.transcripts",
    "head_logits": "arkasr.distributions.logits",
    "load_pretrained": "arkasr.model.loading",
    "load_speech_lm": "arkasr.model.loading",
    "log_mel": "arkasr.model.log_mel",
    "token_bytes": "arkasr.model.tokenization",
    "token_caps": "arkasr.model.generation.transcripts",
}

# For users only: it needs floors above those of plugins, so it is not in `__all__`.
_FOR_USERS = {"transcribe": "arkasr.transcription.api"}

__all__ = [
    "SAMPLE_RATE",
    "Alignment",
    "ArkasrConfig",
    "ArkasrFeatureExtractor",
    "ArkasrForConditionalGeneration",
    "ArkasrProcessor",
    "DenseView",
    "DistributionView",
    "HeadView",
    "Language",
    "Loss",
    "SparseView",
    "SpeechLM",
    "StepMode",
    "StudentView",
    "Support",
    "Teacher",
    "TokenMapper",
    "Transcript",
    "UserError",
    "__version__",
    "cache_argument",
    "check_waveforms",
    "generate",
    "head_logits",
    "hookimpl",
    "is_looping",
    "known_language",
    "load_pretrained",
    "load_speech_lm",
    "log_mel",
    "token_bytes",
    "token_caps",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name) or _FOR_USERS.get(name)
    if module is None:
        raise AttributeError(f"module 'arkasr' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_FOR_USERS])

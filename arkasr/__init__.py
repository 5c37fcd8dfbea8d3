"""Ark-ASR and on-policy distillation: the public face, and all that plugins may import.

`import arkasr` does not import torch; the model classes are imported when they are first named.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from arkasr.hookspecs import hookimpl
from arkasr.interfaces import (
    Alignment,
    DistributionView,
    Loss,
    StudentView,
    Support,
    Teacher,
    TokenMapper,
    UserError,
)

try:
    __version__ = version("arkasr")
except PackageNotFoundError:  # run from the source tree
    __version__ = "0+source"

_LAZY = {
    "ArkasrConfig": "arkasr.model.configuration",
    "ArkasrFeatureExtractor": "arkasr.model.feature_extraction",
    "ArkasrForConditionalGeneration": "arkasr.model.modeling",
    "ArkasrProcessor": "arkasr.model.processing",
    "DenseView": "arkasr.views",
    "HeadView": "arkasr.views",
    "SparseView": "arkasr.sparse_view",
    "SpeechLM": "arkasr.model.base",
    "check_waveforms": "arkasr.model.frontend",
    "generate": "arkasr.model.generation",
    "head_logits": "arkasr.logits",
    "load_pretrained": "arkasr.model.loading",
    "load_speech_lm": "arkasr.model.loading",
    "log_mel": "arkasr.model.frontend",
    "token_bytes": "arkasr.model.tokenization",
}

__all__ = [
    "Alignment",
    "ArkasrConfig",
    "ArkasrFeatureExtractor",
    "ArkasrForConditionalGeneration",
    "ArkasrProcessor",
    "DenseView",
    "DistributionView",
    "HeadView",
    "Loss",
    "SparseView",
    "SpeechLM",
    "StudentView",
    "Support",
    "Teacher",
    "TokenMapper",
    "UserError",
    "__version__",
    "check_waveforms",
    "generate",
    "head_logits",
    "hookimpl",
    "load_pretrained",
    "load_speech_lm",
    "log_mel",
    "token_bytes",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'arkasr' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

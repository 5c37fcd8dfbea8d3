"""The functions that transcribe batches: a trained run's model in a dtype, and the teacher plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from arkasr.config.schema import Config, DecodeConfig
from arkasr.data.batches import Batch
from arkasr.evaluation.hypotheses import row, transcribe
from arkasr.evaluation.one_by_one import Transcriber, check_transcripts
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry

MakeTranscriber = Callable[[str, str], Transcriber]  # from a device and a dtype


def quiet_transformers() -> None:
    """Turn off the warnings and progress bars of transformers in this process."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def dtype_of(settings: DecodeConfig) -> str:
    """Return the dtype in which trained runs are decoded on this machine.

    Args:
        settings: The section `decode`.

    Returns:
        `decode.dtype`. For `auto`, bfloat16 if there is a GPU, otherwise float32.
    """
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def run_transcriber(weights: str, settings: DecodeConfig, device: str, dtype: str) -> Transcriber:
    """Load a model and return a function that transcribes batches with it.

    Args:
        weights: Folder or Hub id of its weights.
        settings: The section `decode`.
        device: Where the model is placed.
        dtype: Name of the weights' torch dtype.

    Returns:
        Function from one batch to its hypothesis rows (see `row`).
    """
    lm = load_speech_lm(weights, dtype, device)
    return lambda batch: transcribe(lm, batch, settings)


def teacher_transcriber(config: Config, device: str, dtype: str = "") -> Transcriber:
    """Create the teacher plugin and return a function that transcribes batches with it.

    Args:
        config: Run configuration. Its `teacher` section names the plugin and its options.
        device: Where the teacher is placed.
        dtype: Not used. Teachers have their own option.

    Returns:
        Function from one batch to its hypothesis rows (see `row`). `num_tokens`, `stopped` and `looping` are None if
        the teacher returns plain strings.
    """
    teacher = registry.create("teacher", config.teacher.name, config.teacher.options, device=device)

    def transcriber(batch: Batch) -> list[dict[str, Any]]:
        texts = check_transcripts(teacher.transcribe(batch.waveforms, batch.languages), batch, config.teacher.name)
        return [row(batch, i, text) for i, text in enumerate(texts)]

    return transcriber

"""Greedy transcripts of batches, as rows of a hypothesis file."""

from __future__ import annotations

from typing import Any

import torch

from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import Batch
from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.model.generation import generate, is_looping, token_caps
from arkasr.model.speech_lm.auto import SpeechLM


@torch.no_grad()
def transcribe(lm: SpeechLM, batch: Batch, config: DecodeConfig) -> list[dict[str, Any]]:
    """Transcribe B clips by greedy decoding.

    Args:
        lm: The model.
        batch: B clips. B may be 0.
        config: Decoding settings. The token cap of a clip follows its length (see `token_caps`).

    Returns:
        B rows in the order of the batch (see `row`).
    """
    if not batch.ids:
        return []
    prompts = lm.embed_prompts(lm.encode_audio(batch.waveforms), batch.languages)
    caps = token_caps(batch.waveforms, config.max_new_tokens, config.tokens_per_second)
    generated = generate(lm, prompts, caps)
    return [
        row(batch, i, Transcript(lm.text(ids), stopped, is_looping(ids, lm.stop_ids), len(ids)))
        for i, (ids, stopped) in enumerate(zip(generated.ids, generated.stopped))
    ]


def row(batch: Batch, clip: int, text: str) -> dict[str, Any]:
    """Build one row of a hypothesis file.

    Args:
        batch: The batch that holds the clip.
        clip: Index of the clip in the batch.
        text: Hypothesis, a `Transcript` or a plain string, which reports nothing about its end.

    Returns:
        Mapping with the keys `id`, `reference`, `hypothesis`, `seconds` (length of the audio), and `num_tokens`,
        `stopped` and `looping` (see `Transcript`), which are None if they are not reported.
    """
    seconds = round(len(batch.waveforms[clip]) / SAMPLE_RATE, 3)
    return {
        "id": batch.ids[clip],
        "reference": batch.texts[clip],
        "hypothesis": str(text),
        "seconds": seconds,
        "num_tokens": getattr(text, "num_tokens", None),
        "stopped": getattr(text, "stopped", None),
        "looping": getattr(text, "looping", None),
    }

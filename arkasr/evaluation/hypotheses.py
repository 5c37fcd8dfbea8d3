"""Greedy transcripts of a batch, as rows of a hypothesis file."""

from __future__ import annotations

from typing import Any

import torch

from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import Batch
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.generation import generate, is_looping, token_caps
from arkasr.model.speech_lm.auto import SpeechLM


@torch.no_grad()
def transcribe(lm: SpeechLM, batch: Batch, config: DecodeConfig) -> list[dict[str, Any]]:
    """Transcribe B clips greedily. Rows hold id, reference, hypothesis, seconds, num_tokens, stopped and looping.

    stopped: ended by itself, not at the cap, which follows the clip's length. looping: ends in a repeated pattern.
    """
    if not batch.ids:
        return []
    prompts = lm.embed_prompts(lm.encode_audio(batch.waveforms), batch.languages)
    made = generate(lm, prompts, token_caps(batch.waveforms, config.max_new_tokens, config.tokens_per_second))
    return [
        row(batch, i, lm.text(ids), len(ids), stopped, is_looping(ids, lm.stop_ids))
        for i, (ids, stopped) in enumerate(zip(made.ids, made.stopped))
    ]


def row(
    batch: Batch,
    clip: int,
    text: str,
    num_tokens: int | None = None,
    stopped: bool | None = None,
    looping: bool | None = None,
) -> dict[str, Any]:
    """Make one row of a hypothesis file; None stands for what the transcriber does not tell."""
    seconds = round(len(batch.waveforms[clip]) / SAMPLE_RATE, 3)
    return {
        "id": batch.ids[clip],
        "reference": batch.texts[clip],
        "hypothesis": text,
        "seconds": seconds,
        "num_tokens": num_tokens,
        "stopped": stopped,
        "looping": looping,
    }

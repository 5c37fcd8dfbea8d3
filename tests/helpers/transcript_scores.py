"""Logits of transcripts."""

from __future__ import annotations

import torch

STOP = "<|im_end|>"


def scored(lm, clips, languages, token_ids):
    """Compute the logits [P, V] of the transcripts with SpeechLM."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), languages)
        return lm.transcript_states(prompts, token_ids) @ lm.head.T

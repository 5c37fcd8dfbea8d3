"""Parts of a model that training leaves as they are."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from arkasr.model.speech_lm import SpeechLM


def part(lm: SpeechLM, name: str) -> list[nn.Module]:
    """Return the modules of `encoder`, `adapter` or `decoder` (with embeddings and head)."""
    model = lm.hf.model
    return {
        "encoder": [model.audio_tower],
        "adapter": [model.multi_modal_projector],
        "decoder": [model.language_model, lm.hf.lm_head],
    }[name]


def freeze(lm: SpeechLM, names: Iterable[str]) -> None:
    """Take the gradient from the named parts; to be called before the model is sharded."""
    for name in names:
        for module in part(lm, name):
            module.requires_grad_(False)

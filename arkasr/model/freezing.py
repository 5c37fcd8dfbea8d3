"""Parts of a model that training leaves as they are, and what a frozen encoder saves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

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


def is_frozen(lm: SpeechLM, name: str) -> bool:
    """Tell whether training leaves this part as it is."""
    return not any(p.requires_grad for module in part(lm, name) for p in module.parameters())


def encode_audio(lm: SpeechLM, waveforms: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Encode B clips: audio tokens [N_i, H] each, and what the adapter made them of, [N_i, D] each.

    For models whose adapter is given all clips' rows one after the other, as those that can be trained are.
    """
    given: list[Tensor] = []
    [adapter] = part(lm, "adapter")
    hook = adapter.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    try:
        audio = lm.encode_audio(waveforms)
    finally:
        hook.remove()
    return audio, list(torch.cat(given).split([len(tokens) for tokens in audio]))


def adapt(lm: SpeechLM, states: Sequence[Tensor]) -> list[Tensor]:
    """Make audio tokens [N_i, H] of what `encode_audio` returned second, with the adapter as it is now."""
    [adapter] = part(lm, "adapter")
    return list(adapter(torch.cat(list(states))).split([len(rows) for rows in states]))

"""Dropout of the student: in the blocks of encoder and decoder, while they are trained.

Dropout applies to the output of each attention and feed-forward layer before it is added to the layer's input
(Vaswani et al., arXiv:1706.03762, section 5.4). Configuration and weights of the model do not change, so that saved
models have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from arkasr.model.speech_lm.auto import SpeechLM

NAME = "output_dropout"  # of the module in each layer
LAYERS = ("self_attn", "mlp", "fc2")  # of the blocks: attention, and the feed-forward layer or its last projection


def add_dropout(lm: SpeechLM, rate: float) -> None:
    """Add dropout to all blocks of a model. Call this after adapters are added and before the model is sharded.

    A layer without trained parameters has no dropout, so that a frozen encoder computes the same for each clip.

    Args:
        lm: The model, changed in place.
        rate: Probability to drop a value, at least 0 and below 1. 0 adds nothing.
    """
    for layer in _layers(lm) if rate else ():
        layer.add_module(NAME, nn.Dropout(rate).train(layer.training))
        layer.register_forward_hook(_drop)


def _layers(lm: SpeechLM) -> list[nn.Module]:
    towers = (lm.hf.model.audio_tower.layers, lm.hf.model.language_model.layers)
    return [layer for tower in towers for block in tower for name, layer in block.named_children() if name in LAYERS]


def _drop(layer: nn.Module, inputs: Any, output: Any) -> Any:
    """Apply the dropout of a layer. Attention returns its weights beside its output."""
    if not any(p.requires_grad for p in layer.parameters()):
        return output
    dropout = layer.get_submodule(NAME)
    return (dropout(output[0]), *output[1:]) if isinstance(output, tuple) else dropout(output)


def drops_audio(lm: SpeechLM) -> bool:
    """Return whether audio embeddings are random now: the encoder has dropout, is in training mode and is trained.

    Args:
        lm: The model.

    Returns:
        True with `model.dropout` or with dropout of LoRA adapters in the encoder.
    """
    tower = lm.hf.model.audio_tower
    return any(_is_active(m) for m in tower.modules()) and any(p.requires_grad for p in tower.parameters())


def _is_active(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p > 0 and module.training


@contextmanager
def without_dropout(lm: nn.Module) -> Iterator[None]:
    """Switch all dropout of a model off inside the context.

    Args:
        lm: The model.
    """
    active = [module for module in lm.modules() if _is_active(module)]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()

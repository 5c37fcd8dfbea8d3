"""The published checkpoint's layout: `audio_encoder.*` keys, and an encoder whose RoPE turns interleaved pairs.

Ours is GLM-ASR's in transformers. Beside the names, one thing differs: RoPE turns the first half of every head, there
in pairs (2i, 2i+1), here in pairs (i, i + r/2), so that rows of the encoder's q and k are reordered (their biases too).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    ConversionOps,
    WeightConverter,
    WeightRenaming,
    apply_converters,
    apply_renamings,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.models.whisper.modeling_whisper import sinusoids

from arkasr.errors import UserError

POSITIONS = "audio_encoder.whisper.embed_positions.weight"


def row_order(config: PreTrainedConfig) -> Tensor:
    """Return int64 [d]: which published row of the encoder's q and k each of our rows is."""
    size = config.hidden_size // config.num_attention_heads
    turned = int(size * config.rope_parameters["partial_rotary_factor"])
    head = torch.cat([torch.arange(0, turned, 2), torch.arange(1, turned, 2), torch.arange(turned, size)])
    return (torch.arange(config.num_attention_heads)[:, None] * size + head).flatten()


class ReorderForRope(ConversionOps):
    """Reorder the rows of a weight [d, d] or bias [d]; one of another height is left, for the shape check to name."""

    def __init__(self, to_published: bool = False):
        self.to_published = to_published

    @torch.no_grad
    def convert(self, input_dict: dict[str, Any], *, full_layer_name: str, config: Any, **kwargs) -> dict[str, Tensor]:
        """Return {full_layer_name: the reordered tensor}."""
        [found] = input_dict.values()
        tensor = found[0] if isinstance(found, list) else found
        order = row_order(config.audio_config)
        if tensor.ndim and len(tensor) == len(order):
            tensor = tensor[(order.argsort() if self.to_published else order).to(tensor.device)]
        return {full_layer_name: tensor}

    @property
    def reverse_op(self) -> ReorderForRope:
        """The way back."""
        return ReorderForRope(not self.to_published)


def _mapping() -> list[WeightRenaming | WeightConverter]:
    """Published to native. Applied in this order, the reorderings last; backwards on saving, so every rule is anchored
    or says `audio_tower`, lest it catch the decoder's names too.
    """
    layer = r"(audio_tower\.layers\.\d+)\."
    leaves = {
        "self_attn_layer_norm": "input_layernorm",
        "final_layer_norm": "post_attention_layernorm",
        r"self_attn\.out_proj": "self_attn.o_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }
    q_or_k = r"layers\.(\d+)\.self_attn\.{}_proj\."
    return [
        WeightRenaming(r"^audio_encoder\.adapting\.0\.", r"^model\.multi_modal_projector\.linear_1\."),
        WeightRenaming(r"^audio_encoder\.adapting\.2\.", r"^model\.multi_modal_projector\.linear_2\."),
        WeightRenaming(r"^audio_encoder\.layer_norm\.", r"^model\.audio_tower\.norm\."),
        WeightRenaming(
            r"^audio_encoder\.whisper\.(?!embed_positions\.|layers\.\d+\.self_attn\.[qk]_proj)",
            r"^model\.audio_tower\.(?!norm\.)",
        ),
        *(WeightRenaming(rf"{layer}{theirs}\.", rf"\1.{ours}.") for theirs, ours in leaves.items()),
        WeightRenaming(
            r"^model\.(?!audio_tower\.|multi_modal_projector\.|language_model\.)", r"^model\.language_model\."
        ),
        *(
            WeightConverter(
                rf"^audio_encoder\.whisper\.{q_or_k.format(part)}",
                rf"^model\.audio_tower\.{q_or_k.format(part)}",
                [ReorderForRope()],
            )
            for part in "qk"
        ),
    ]


register_checkpoint_conversion_mapping("arkasr", _mapping())


def published_name(name: str) -> str:
    """Return the published name of one of our weights."""
    rules = [rule.reverse_transform() for rule in reversed(_mapping())]
    name, _ = apply_converters(name, [rule for rule in rules if isinstance(rule, WeightConverter)])
    return apply_renamings(name, [rule for rule in rules if isinstance(rule, WeightRenaming)])


def published_state(model: PreTrainedModel, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors of our `state_dict`, whole, as the released files hold them.

    They hold the output head beside the embedding it is tied to, and Whisper's table of positions, which RoPE leaves
    unused but strict servers ask for: the sinusoids that Whisper's encoder starts with (arXiv 2212.04356, section 2.2).
    """
    model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)  # else: those that loading used
    state = revert_weight_conversion(model, state_dict)
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    audio = model.config.audio_config
    table = sinusoids(audio.max_position_embeddings, audio.hidden_size)
    state[POSITIONS] = table.to(state["audio_encoder.whisper.conv1.weight"].dtype)
    return state


def refuse_collisions(model: PreTrainedModel, names: Iterable[str], place: str) -> None:
    """Raise UserError where two names of a file come to one weight (in both layouts, say): one would be dropped."""
    rules, known = get_model_conversion_mapping(model), model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    sources: dict[str, str] = {}
    for name in names:
        target, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if target in sources:
            raise UserError(f"{place}: {sources[target]} and {name} are one weight, {target}: export the model anew")
        sources[target] = name

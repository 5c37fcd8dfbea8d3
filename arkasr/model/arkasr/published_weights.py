"""Conversion of weights between the published layout and the native one, which is that of GLM-ASR in transformers.

The layouts differ in the names of the tensors and in the row order of the encoder's query and key projections (weights
and biases). RoPE rotates the first r dimensions of each head. The published code rotates the pairs (2i, 2i + 1), the
native code the pairs (i, i + r/2).
"""

from __future__ import annotations

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
    revert_weight_conversion,
)
from transformers.models.whisper.modeling_whisper import sinusoids

POSITIONS = "audio_encoder.whisper.embed_positions.weight"


def row_order(config: PreTrainedConfig) -> Tensor:
    """Return which published row of the encoder's query and key projections each native row is.

    Args:
        config: Configuration of the encoder, of width d.

    Returns:
        Tensor [d], int64: `native = published[order]`.
    """
    size = config.hidden_size // config.num_attention_heads
    rotated = int(size * config.rope_parameters["partial_rotary_factor"])
    head = torch.cat([torch.arange(0, rotated, 2), torch.arange(1, rotated, 2), torch.arange(rotated, size)])
    return (torch.arange(config.num_attention_heads)[:, None] * size + head).flatten()


class ReorderForRope(ConversionOps):
    """Reorder the rows of a query or key weight [d, d] or bias [d].

    A tensor with another number of rows is passed on unchanged, and the check of shapes reports it.

    Args:
        to_published: False converts published rows to native ones, True the reverse.
    """

    def __init__(self, to_published: bool = False):
        self.to_published = to_published

    @torch.no_grad()
    def convert(  # type: ignore[override]  # transformers passes all but the first argument by keyword
        self, input_dict: dict[str, Any], *, full_layer_name: str, config: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Reorder one tensor. transformers calls this while it loads or saves a model.

        Args:
            input_dict: One tensor, or a list of one tensor, under any key.
            full_layer_name: Key of the result.
            config: The ArkasrConfig of the model.
            **kwargs: Ignored.

        Returns:
            The reordered tensor under `full_layer_name`.
        """
        [found] = input_dict.values()
        tensor = found[0] if isinstance(found, list) else found
        order = row_order(config.audio_config)
        if tensor.ndim and len(tensor) == len(order):
            tensor = tensor[(order.argsort() if self.to_published else order).to(tensor.device)]
        return {full_layer_name: tensor}

    @property
    def reverse_op(self) -> ReorderForRope:
        """The inverse operation."""
        return ReorderForRope(not self.to_published)


def _mapping() -> list[WeightRenaming | WeightConverter]:
    """Return the rules from published to native names, the reorderings last.

    Loading applies them in this order and saving in reverse. Each rule is anchored, because it would otherwise match
    names of the decoder too, and matches published names, not what another rule makes of them.
    """
    native_of = {
        "self_attn_layer_norm": "input_layernorm",
        "final_layer_norm": "post_attention_layernorm",
        r"self_attn\.out_proj": "self_attn.o_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }
    others = "|".join(rf"layers\.\d+\.{name}\." for name in (*native_of, r"self_attn\.[qk]_proj"))
    q_or_k = r"layers\.(\d+)\.self_attn\.{}_proj\."
    return [
        WeightRenaming(r"^audio_encoder\.adapting\.0\.", r"^model\.multi_modal_projector\.linear_1\."),
        WeightRenaming(r"^audio_encoder\.adapting\.2\.", r"^model\.multi_modal_projector\.linear_2\."),
        WeightRenaming(r"^audio_encoder\.layer_norm\.", r"^model\.audio_tower\.norm\."),
        WeightRenaming(
            rf"^audio_encoder\.whisper\.(?!embed_positions\.|{others})",  # transformers reverses no nested groups
            r"^model\.audio_tower\.(?!norm\.)",
        ),
        *(
            WeightRenaming(
                rf"^audio_encoder\.whisper\.(layers\.\d+)\.{published}\.", rf"^model.audio_tower.\1.{native}."
            )
            for published, native in native_of.items()
        ),
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
    """Return the published name of one parameter.

    Args:
        name: Native name, such as "model.audio_tower.norm.weight".

    Returns:
        Published name, such as "audio_encoder.layer_norm.weight".
    """
    rules = [rule.reverse_transform() for rule in reversed(_mapping())]
    name, _ = apply_converters(name, [rule for rule in rules if isinstance(rule, WeightConverter)])
    return apply_renamings(name, [rule for rule in rules if isinstance(rule, WeightRenaming)])


def published_state(model: PreTrainedModel, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict to the tensors of the published files.

    The published files also hold the output head that is tied to the embedding, and Whisper's table of positions. RoPE
    does not use this table, but strict loaders require it. It is filled with the sinusoids with which Whisper's
    encoder is initialised (Radford et al. 2022, arXiv 2212.04356, section 2.2).

    Args:
        model: An Ark-ASR model.
        state_dict: Native names and whole tensors.

    Returns:
        Published names and tensors.
    """
    rules = get_model_conversion_mapping(model, add_legacy=False)
    model._weight_conversions = rules  # type: ignore[assignment]  # replaces those that loading has recorded
    state = revert_weight_conversion(model, state_dict)
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    audio = model.config.audio_config
    table = sinusoids(audio.max_position_embeddings, audio.hidden_size)
    state[POSITIONS] = table.to(state["audio_encoder.whisper.conv1.weight"].dtype)
    return state

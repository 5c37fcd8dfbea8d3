"""The student, built from transformers' GLM-ASR encoder and Qwen2; only what differs is written here."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GlmAsrEncoder,
    GlmAsrForConditionalGeneration,
    GlmAsrModel,
)
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from arkasr.errors import UserError
from arkasr.model.arkasr import published_weights
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.prompt import STOP
from arkasr.model.tokenization import blocked_ids
from arkasr.model.weight_files import refuse_incomplete, tensor_names

FLOAT16_LIMIT = torch.finfo(torch.float16).max - 1000


def num_audio_tokens(frames: Tensor | int, merge_factor: int = 4) -> Tensor | int:
    """Count audio tokens of `frames` mel frames: halved (rounded up), merged (rounded down), at least 1."""
    merged = (frames + 1) // 2 // merge_factor
    return merged.clamp(min=1) if isinstance(merged, Tensor) else max(merged, 1)


class ArkasrEncoder(GlmAsrEncoder):
    """GLM-ASR's encoder, which can hide what lies past a clip's end from the convolutions and from attention."""

    def forward(self, input_features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode mel [B, M, T] of any dtype; `lengths` int64 [B] hides frames past them. Returns [B, ceil(T/2), d]."""
        input_features = input_features.to(self.conv1.weight.dtype)
        keep = None
        if lengths is not None:
            keep = torch.arange(input_features.shape[-1], device=lengths.device) < lengths[:, None]
        hidden = gelu(self.conv1(input_features if keep is None else input_features * keep[:, None]))
        hidden = gelu(self.conv2(hidden if keep is None else hidden * keep[:, None])).transpose(1, 2)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rope = self.rotary_emb(hidden, position_ids=positions)
        mask = None
        if lengths is not None:  # in the form that this attention implementation reads; None where nothing is hidden
            mask = create_bidirectional_mask(self.config, hidden, positions < (lengths[:, None] + 1) // 2)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=rope, attention_mask=mask)
            if hidden.dtype == torch.float16:  # as published: deep layers would leave float16's range
                hidden = hidden.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT)
        return self.norm(hidden)


class ArkasrProjector(nn.Module):
    """The adapter: merged frames to the decoder's width by two linear layers."""

    def __init__(self, config: ArkasrConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.merge_factor * config.audio_config.hidden_size, 2 * width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(2 * width, width)

    def forward(self, merged: Tensor) -> Tensor:
        """Project [..., merge_factor * d] to [..., hidden]."""
        return self.linear_2(self.act(self.linear_1(merged)))


class ArkasrModel(GlmAsrModel):
    """Encoder, adapter and Qwen2 decoder without a head."""

    config: ArkasrConfig

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrModel, self).__init__(config)
        self.audio_tower = ArkasrEncoder(config.audio_config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.multi_modal_projector = ArkasrProjector(config)
        self.post_init()

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Encode mel [B, M, T] with mask [B, T]; `pooler_output` [sum(N_i), hidden]: all clips' tokens in order."""
        lengths = input_features_mask.sum(-1)
        states = self.audio_tower(input_features, lengths if self.config.mask_padding else None)
        factor = self.config.merge_factor
        if self.config.mask_padding:  # a clip under 4 states is completed with zeros, whatever the batch holds there
            frames = torch.arange(states.shape[1], device=lengths.device)
            states = states * (frames < (lengths[:, None] + 1) // 2)[..., None]
        states = pad(states, (0, 0, 0, -states.shape[1] % factor))
        merged = states.reshape(states.shape[0], -1, factor * states.shape[-1])
        counts = num_audio_tokens(lengths, factor)
        valid = torch.arange(merged.shape[1], device=counts.device) < counts[:, None]
        return BaseModelOutputWithPooling(
            last_hidden_state=states, pooler_output=self.multi_modal_projector(merged[valid])
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Read prompts as GLM-ASR's model does; raises UserError where a row's audio tokens are not its own clip's."""
        if input_ids is not None and input_features is not None:
            self._check_rows(input_ids, input_features_mask)
        return super().forward(input_ids, input_features, input_features_mask, **kwargs)

    def _check_rows(self, input_ids: Tensor, mask: Tensor | None) -> None:
        """The parent compares the totals of a batch only, under which one row's audio would fill another's places."""
        if mask is None:
            raise UserError("input_features without input_features_mask: pass on both, as ArkasrProcessor makes them")
        held = (input_ids == self.config.audio_token_id).sum(-1).tolist()
        made = num_audio_tokens(mask.sum(-1), self.config.merge_factor).tolist()
        if held != made:
            raise UserError(
                f"input_ids hold {held} audio tokens a row, and the clips make {made}: is the order the same?"
            )


class ArkasrForConditionalGeneration(GlmAsrForConditionalGeneration):
    """Ark-ASR with its head: audio tokens stand in the prompt where `config.audio_token_id` stands in `input_ids`."""

    config_class = ArkasrConfig
    config: ArkasrConfig
    _keys_to_ignore_on_load_unexpected = [published_weights.POSITIONS]

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrForConditionalGeneration, self).__init__(config)
        self.model = ArkasrModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load our layout or the published one, with transformers' arguments, strictly.

        A generation config that suppresses nothing, as the published one, gets what `SpeechLM` blocks, where there is a
        tokenizer to tell. Raises UserError where a weight is missing, left over (but the published table of positions, which RoPE leaves
        unused) or of another shape (unless `ignore_mismatched_sizes`). Pickled weights need `use_safetensors=False`.
        """
        place = str(pretrained_model_name_or_path or "the given state_dict")
        any_shape = kwargs.pop("ignore_mismatched_sizes", False)
        want_info = kwargs.pop("output_loading_info", False)
        kwargs = {"use_safetensors": True} | kwargs | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        checked = info | {"mismatched_keys": set()} if any_shape else info
        renamed = getattr(model, "_weight_conversions", None)
        refuse_incomplete(place, checked, published_weights.published_name if renamed else str)
        if model.config.tie_word_embeddings and "lm_head.weight" not in model.all_tied_weights_keys:
            raise UserError(f"{place}: lm_head.weight is not the embedding, to which config.json ties it")
        if model.generation_config.suppress_tokens is None:
            model.generation_config.suppress_tokens = _never_written(place, model.config, kwargs)
        return (model, info) if want_info else model

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, checkpoint_files: Any, *args: Any, **kwargs: Any
    ) -> Any:
        place = str(Path(checkpoint_files[0]).parent) if checkpoint_files else "the given state_dict"
        names = tensor_names(checkpoint_files) if checkpoint_files else list(state_dict or ())
        published_weights.refuse_collisions(model, names, place)
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | PathLike,
        *,
        state_dict: dict[str, Tensor] | None = None,
        save_original_format: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a folder in our layout, or, with `save_original_format`, in the published one, for other people's code.

        state_dict: our names, gathered from shards say; the model's own by default. The other arguments are those of
        transformers (max_shard_size, is_main_process...). The published layout is a flat config.json and the weights as
        the released files hold them; the authors' own code files are theirs to copy. Raises UserError where that
        layout cannot hold the model, its weights are offloaded, or it is to be pushed at once.
        """
        if not save_original_format:
            super().save_pretrained(save_directory, state_dict=state_dict, save_original_format=False, **kwargs)
            return
        flat = self.config.to_published_dict()
        if kwargs.get("push_to_hub"):
            raise UserError(f"{save_directory}: write the published layout first, then upload the folder")
        state = self.state_dict() if state_dict is None else state_dict
        if offloaded := sorted(name for name, tensor in state.items() if tensor.is_meta):
            raise UserError(f"{save_directory}: {offloaded[0]} is offloaded: load the model whole to write this layout")
        state = published_weights.published_state(self, state)
        super().save_pretrained(save_directory, state_dict=state, save_original_format=False, **kwargs)
        if kwargs.get("is_main_process", True):
            flat |= {"torch_dtype": str(self.dtype).removeprefix("torch.")}
            text = json.dumps(flat, indent=2, sort_keys=True) + "\n"
            (Path(save_directory) / "config.json").write_text(text, encoding="utf-8")


def _never_written(place: str, config: ArkasrConfig, kwargs: dict[str, Any]) -> list[int] | None:
    hub = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
    except (OSError, ValueError):  # weights alone
        return None
    stops = [tokenizer.convert_tokens_to_ids(STOP)] if STOP in tokenizer.get_vocab() else []
    return blocked_ids(tokenizer, stops, config.text_config.vocab_size).nonzero()[:, 0].tolist()


for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq):
    auto.register(ArkasrConfig, ArkasrForConditionalGeneration)

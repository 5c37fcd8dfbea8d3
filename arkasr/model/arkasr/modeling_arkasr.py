"""The student: transformers' GLM-ASR encoder, an MLP adapter and a Qwen2 decoder.

Architecture (arXiv 2605.28139, section 3.1), with shapes for B clips, M mel filters, T mel frames, encoder width d,
decoder width H, vocabulary size V:

1. Log-mel features [B, M, T], float32, 100 frames per second.
2. Two convolutions of width 3, the second with stride 2, both with GELU: [B, ceil(T/2), d].
3. Transformer layers. RoPE rotates the first half of each head. Final layer norm. With `positions: learned`, a table
   of positions is added to the states instead, as in Whisper.
4. `merge_factor` (4) consecutive states are concatenated: [N, 4 d], 12.5 audio tokens per second.
5. Adapter, two linear layers with GELU: [N, 2 H], then [N, H].
6. The N rows replace the embeddings of `<|audio|>` in the prompt. Qwen2 gives logits [B, S, V].

Only what differs from transformers' classes is defined here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GlmAsrForConditionalGeneration,
    GlmAsrModel,
)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple, is_tracing

from arkasr.config.schema import DecodeConfig
from arkasr.errors import UserError
from arkasr.model.arkasr import published_weights
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.encoder_arkasr import ArkasrEncoder
from arkasr.model.arkasr.prompt import STOP
from arkasr.model.packing import take
from arkasr.model.tokenization import blocked_ids
from arkasr.model.weight_checks import check_tensors
from arkasr.model.weight_digests import SUMS
from arkasr.model.weight_files import check_loading_info, tensor_shapes

Frames = TypeVar("Frames", int, Tensor)


def num_audio_tokens(frames: Frames, merge_factor: int = 4) -> Frames:
    """Count the audio tokens of one or several clips: max(ceil(frames / 2) // merge_factor, 1).

    Args:
        frames: Number of mel frames, or a tensor of them, int64, of any shape.
        merge_factor: Encoder states per audio token.

    Returns:
        The counts, of the type and shape of `frames`.
    """
    merged = (frames + 1) // 2 // merge_factor
    return merged.clamp(min=1) if isinstance(merged, Tensor) else max(merged, 1)


class ArkasrProjector(nn.Module):
    """The adapter: two linear layers from merged encoder states to the decoder's width.

    Args:
        config: Configuration of the whole model.
    """

    def __init__(self, config: ArkasrConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.merge_factor * config.audio_config.hidden_size, 2 * width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(2 * width, width)

    def forward(self, merged: Tensor) -> Tensor:
        """Project merged states.

        Args:
            merged: Tensor [..., merge_factor * d].

        Returns:
            Tensor [..., H].
        """
        return self.linear_2(self.act(self.linear_1(merged)))


class ArkasrModel(GlmAsrModel):
    """Encoder, adapter and Qwen2 decoder without the output head.

    Args:
        config: Configuration of the whole model.
    """

    config_class = ArkasrConfig
    config: ArkasrConfig  # type: ignore[assignment]  # not a GlmAsrConfig, which fixes another decoder
    _keys_to_ignore_on_load_unexpected = [published_weights.POSITIONS]

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrModel, self).__init__(config)
        self.audio_tower = ArkasrEncoder(config.audio_config)
        self.language_model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.multi_modal_projector = ArkasrProjector(config)  # type: ignore[assignment]  # not GLM-ASR's adapter
        self.post_init()

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Compute the audio embeddings of B clips.

        If `config.mask_padding` is true, padding is masked; outputs do not depend on batch composition.

        Args:
            input_features: Tensor [B, M, T], log-mel features.
            input_features_mask: Tensor [B, T], 1 in the frames of the clip and 0 in padding.
            **kwargs: `output_hidden_states`, `output_attentions` and `return_dict` of transformers, for the encoder.

        Returns:
            `last_hidden_state` [B, T', d], with T' = ceil(T/2) padded to a multiple of merge_factor. `pooler_output`
            [sum(N_i), H], the embeddings of all audio tokens, clip after clip. `hidden_states` and `attentions` are
            the encoder's, if asked for.
        """
        encoded, rows, counts = self.padded_rows(input_features, input_features_mask, **kwargs)
        valid = torch.arange(rows.shape[1], device=counts.device) < counts[:, None]
        encoded.pooler_output = rows[valid]
        return encoded

    def padded_rows(
        self, features: Tensor, mask: Tensor, **kwargs: Any
    ) -> tuple[BaseModelOutputWithPooling, Tensor, Tensor]:
        """Compute the audio embeddings of B clips, padded. No shape depends on values, so that it can be traced.

        Args:
            features: Tensor [B, M, T], log-mel features.
            mask: Tensor [B, T], 1 in the frames of the clip and 0 in padding.
            **kwargs: See `get_audio_features`.

        Returns:
            The encoder's output, with `last_hidden_state` [B, T', d], embeddings [B, T' / merge_factor, H] and the
            number of audio tokens of each clip [B], int64.
        """
        lengths = mask.sum(-1)
        kept = lengths if self.config.mask_padding else None
        encoded = self.audio_tower(features, kept, return_dict=True, **kwargs)
        states, factor = encoded.last_hidden_state, self.config.merge_factor
        if self.config.mask_padding:  # an audio token with under 4 states is completed with zeros in any batch
            frames = torch.arange(states.shape[1], device=lengths.device)
            states = states * (frames < (lengths[:, None] + 1) // 2)[..., None]
        states = pad(states, (0, 0, 0, -states.shape[1] % factor))
        merged = states.reshape(states.shape[0], -1, factor * states.shape[-1])
        encoded.last_hidden_state = states
        return encoded, self.multi_modal_projector(merged), num_audio_tokens(lengths, factor)

    def audio_rows(self, features: Tensor, frames: Sequence[int]) -> Tensor:
        """Compute the same embeddings as `get_audio_features`, without reading from the device.

        Args:
            features: Tensor [B, M, T], log-mel features, 0 after the end of each clip if padding is masked.
            frames: Frames of each clip, at most T.

        Returns:
            Tensor [sum(N_i), H], the embeddings of all audio tokens, clip after clip.
        """
        return self.multi_modal_projector(self.encoder_rows(features, frames))

    def encoder_rows(self, features: Tensor, frames: Sequence[int]) -> Tensor:
        """Compute the encoder states that `audio_rows` projects.

        Args:
            features: See `audio_rows`.
            frames: See `audio_rows`.

        Returns:
            Tensor [sum(N_i), merge_factor * d].
        """
        states, real = self.audio_tower.packed(features, frames, self.config.mask_padding)
        factor, begin, index = self.config.merge_factor, 0, []
        for n in frames:
            own = ((n if self.config.mask_padding else features.shape[-1]) + 1) // 2
            rows = real[begin : begin + own][: factor * num_audio_tokens(n, factor)]
            missing = -len(rows) % factor  # of an audio token with under 4 states, which zeros complete
            index += [rows, np.full(missing, len(states))]
            begin += own
        taken = np.concatenate(index)
        if taken.max() == len(states):
            states = pad(states, (0, 0, 0, 1))
        return take(states, taken).view(-1, factor * states.shape[-1])

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute the decoder's states, as in GLM-ASR's model.

        It has no operation whose shape depends on values, so `torch.compile` and `torch.export` make one graph of it.
        While they trace, audio tokens and clips are not compared, and the output has no `audio_hidden_states`.

        Args:
            input_ids: Tensor [B, S], int64, prompts with `config.audio_token_id` once per audio token.
            input_features: Tensor [B, M, T], log-mel features of the B clips in the order of the prompts.
            input_features_mask: Tensor [B, T], 1 in the frames of the clip and 0 in padding.
            inputs_embeds: Tensor [B, S, H], used instead of the embeddings of `input_ids`.
            **kwargs: See `GlmAsrModel.forward`.

        Returns:
            See `GlmAsrModel.forward`.

        Raises:
            UserError: The audio tokens of a prompt do not match the length of its clip.
        """
        if input_ids is None or input_features is None:
            return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, return_dict=True, **kwargs)
        if input_features_mask is None:
            raise UserError("input_features without input_features_mask; pass both, as ArkasrProcessor returns them")
        _, rows, counts = self.padded_rows(input_features, input_features_mask)
        is_audio = input_ids == self.config.audio_token_id
        packed_rows = None if is_tracing(input_ids) else _checked_rows(rows, is_audio.sum(-1), counts)
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        place = (is_audio.cumsum(-1) - 1).clamp(0, rows.shape[1] - 1)
        audio = rows.gather(1, place[..., None].expand(-1, -1, rows.shape[-1])).to(embeds.dtype)
        embeds = torch.where(is_audio[..., None], audio, embeds)
        outputs: Any = super().forward(inputs_embeds=embeds, return_dict=True, **kwargs)
        outputs.audio_hidden_states = packed_rows
        return outputs


def _checked_rows(rows: Tensor, in_prompts: Tensor, in_clips: Tensor) -> Tensor:
    """Return the rows [sum(N_i), H] of the audio tokens, whose number must agree per clip. Reads once from the device.

    The parent class compares the batch's total only and could mix up clips.
    """
    prompts, clips = torch.stack([in_prompts, in_clips]).tolist()
    if prompts != clips:
        raise UserError(
            f"input_ids hold {prompts} audio tokens per row, but the clips have {clips}; pass prompts and "
            "clips in the same order"
        )
    return torch.cat([row[:count] for row, count in zip(rows, clips)])


class ArkasrForConditionalGeneration(GlmAsrForConditionalGeneration):
    """Ark-ASR with its output head.

    In `input_ids`, `config.audio_token_id` marks the positions that the audio embeddings take.

    Args:
        config: Configuration of the model. Weights are drawn with torch's global generator.
    """

    config_class = ArkasrConfig
    config: ArkasrConfig  # type: ignore[assignment]  # not a GlmAsrConfig, which fixes another decoder
    _keys_to_ignore_on_load_unexpected = [published_weights.POSITIONS]

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrForConditionalGeneration, self).__init__(config)
        self.model = ArkasrModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load a model in the native or the published layout, and check that all weights match.

        If the generation config suppresses no tokens, as the published one, the ids that `SpeechLM` blocks are set,
        provided that the folder has a tokenizer. If it has no limit of tokens, it becomes that of `arkasr decode`.

        Args:
            pretrained_model_name_or_path: Folder or Hub id, or None with the argument `state_dict`.
            *args: See transformers.
            **kwargs: See transformers. `use_safetensors` defaults to true. Pickled weights need
                `use_safetensors=False`.

        Returns:
            The model in evaluation mode, or (model, loading info) if `output_loading_info` is true.

        Raises:
            UserError: A weight is missing, unexpected, or has another shape (unless `ignore_mismatched_sizes` is true).
                The published table of positions is expected, and is ignored because RoPE replaces it.
        """
        place = str(pretrained_model_name_or_path or "the argument state_dict")
        any_shape = kwargs.pop("ignore_mismatched_sizes", False)
        want_info = kwargs.pop("output_loading_info", False)
        kwargs.pop("trust_remote_code", None)
        kwargs = {"use_safetensors": True} | kwargs | {"output_loading_info": True}
        kwargs["ignore_mismatched_sizes"] = any_shape
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, trust_remote_code=False, **kwargs)
        model, info = loaded
        checked = info | {"mismatched_keys": set()} if any_shape else info
        renamed = getattr(model, "_weight_conversions", None)
        check_loading_info(place, checked, published_weights.published_name if renamed else str)
        if model.config.tie_word_embeddings and "lm_head.weight" not in model.all_tied_weights_keys:
            raise UserError(
                f"{place}: lm_head.weight differs from the embedding, but config.json ties them; set "
                "tie_word_embeddings to false or export the model again"
            )
        if model.generation_config.suppress_tokens is None:
            model.generation_config.suppress_tokens = _suppressed_tokens(place, model.config, kwargs)
        if model.generation_config.max_new_tokens is None and model.generation_config.max_length is None:
            model.generation_config.max_new_tokens = DecodeConfig.max_new_tokens
        return (model, info) if want_info else model

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Compare all tensors with the model, which is still on the meta device, before transformers allocates it."""
        place = str(Path(checkpoint_files[0]).parent) if checkpoint_files else "the argument state_dict"
        if checkpoint_files:
            shapes = tensor_shapes(checkpoint_files)
        else:
            shapes = {name: list(tensor.shape) for name, tensor in (state_dict or {}).items()}
        is_published = any(name.startswith("audio_encoder.") for name in shapes)
        name = published_weights.published_name if is_published else str
        check_tensors(model, shapes, place, any_shape=load_config.ignore_mismatched_sizes, name=name)
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    def save_pretrained(  # type: ignore[override]  # the options that transformers lists are in kwargs
        self,
        save_directory: str | PathLike,
        *,
        state_dict: dict[str, Tensor] | None = None,
        save_original_format: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write the model in the native or the published layout.

        The published layout is for other people's code. It has a flat config.json and the tensors of the published
        files. The authors' code files are not included.

        Args:
            save_directory: The folder.
            state_dict: Native names and tensors, for example gathered from shards. Default: those of the model.
            save_original_format: True writes the published layout.
            **kwargs: See transformers (max_shard_size, is_main_process and others).

        Raises:
            UserError: The published layout cannot represent the model, weights are offloaded, or `push_to_hub` is set
                together with this layout.
        """
        if kwargs.get("is_main_process", True):
            (Path(save_directory) / SUMS).unlink(missing_ok=True)  # digests of the weights that are replaced
        if not save_original_format:
            super().save_pretrained(save_directory, state_dict=state_dict, save_original_format=False, **kwargs)
            return
        flat = self.config.to_published_dict()
        if kwargs.get("push_to_hub"):
            raise UserError(
                f"{save_directory}: push_to_hub does not support the published layout; write the folder, then upload it"
            )
        state = self.state_dict() if state_dict is None else state_dict
        if offloaded := sorted(name for name, tensor in state.items() if tensor.is_meta):
            raise UserError(
                f"{save_directory}: {offloaded[0]} is offloaded; load the whole model to write the published layout"
            )
        state = published_weights.published_state(self, state)
        super().save_pretrained(save_directory, state_dict=state, save_original_format=False, **kwargs)
        if kwargs.get("is_main_process", True):
            flat |= {"torch_dtype": str(self.dtype).removeprefix("torch.")}
            text = json.dumps(flat, indent=2, sort_keys=True) + "\n"
            (Path(save_directory) / "config.json").write_text(text, encoding="utf-8")


def _suppressed_tokens(place: str, config: ArkasrConfig, kwargs: dict[str, Any]) -> list[int] | None:
    options = ("cache_dir", "revision", "token", "local_files_only", "subfolder")
    hub = {key: kwargs[key] for key in options if key in kwargs}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
    except (OSError, ValueError):  # the folder has no tokenizer
        return None
    vocab = tokenizer.get_vocab()
    stops = [vocab[STOP]] if STOP in vocab else []
    return blocked_ids(tokenizer, stops, config.text_config.vocab_size).nonzero()[:, 0].tolist()


AutoModel.register(ArkasrConfig, ArkasrModel)
for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq):
    auto.register(ArkasrConfig, ArkasrForConditionalGeneration)

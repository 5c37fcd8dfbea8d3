"""The model a run starts from where it loads none: pretrained parts, a fresh adapter, fresh weights for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

from arkasr.config.schema import ModelConfig
from arkasr.errors import UserError
from arkasr.model import pretrained_parts
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration
from arkasr.model.arkasr.prompt import INSTRUCTION
from arkasr.model.arkasr.published_weights import POSITIONS, published_name, row_order
from arkasr.model.speech_lm.auto import SpeechLM, wrap

TOWER, DECODER = "model.audio_tower.", "model.language_model."
ENCODER = ("audio_encoder.whisper.", "audio_encoder.layer_norm.")  # published names of the encoder's tensors
SHOWN = 5  # of the tensors that an error names


def model_sizes(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return `sizes` for `build`: a pretrained part's own where there is one, those of `config.sizes` elsewhere.

    vocab_size: ids of the tokenizer. A decoder's rows are all kept, so its vocabulary grows but never shrinks. Raises
    UserError where a part has no sizes, has them twice, or the model is not an arkasr.
    """
    sizes = dict(config.sizes)
    for part, section in (("encoder", "audio"), ("decoder", "text")):
        path = getattr(config, part)
        if path and section in sizes:
            raise UserError(f"model.{part} {path} brings its own sizes: take model.sizes.{section} away, or the {part}")
        if not path and section not in sizes:
            raise UserError(
                f"model.sizes: give `audio` and `text` sizes (`{section}` is missing), model.encoder and "
                "model.decoder to take pretrained parts, or model.path to start from"
            )
        if path and config.type != "arkasr":
            raise UserError(f"model.{part} {path}: only an arkasr is put together from parts, not a {config.type}")
    if config.encoder:
        sizes["audio"] = pretrained_parts.encoder_sizes(config.encoder)
    if config.decoder:
        text = pretrained_parts.decoder_sizes(config.decoder)
        sizes["text"] = text | {"vocab_size": max(text["vocab_size"], vocab_size)}
    return sizes


def assemble(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build the model of `config` and read its pretrained parts into it, tensor by tensor.

    Encoder (Whisper's, GLM-ASR's or Ark-ASR's): its final layer norm becomes the one before the adapter; Whisper's
    learned positions are dropped, as rotary ones stand in their place. A Whisper encoder's query and key rows are
    reordered (`released.row_order`) so that the published code's rotation of neighbouring pairs acts on Whisper's own
    dimensions; GLM-ASR in transformers' layout is in that order already.
    Decoder (Qwen2): every embedding row is kept, those past its tokenizer's end as well; rows that the student's
    tokenizer needs beyond them start as the mean of all rows, so that none is likelier than an average token.
    The adapter, and a part without a pretrained one, are fresh. Raises UserError as `model_sizes` does, and where a
    tensor is missing, left over, or of another shape.
    """
    lm = build_fresh(config.type, model_sizes(config, len(tokenizer)), tokenizer)
    if config.encoder:
        _read_encoder(lm, config.encoder)
    if config.decoder:
        _read_decoder(lm, config.decoder)
    for weight in lm.parameters():  # buffers stay as they are: RoPE's frequencies need float32
        weight.data = weight.data.to(getattr(torch, config.dtype))
    return lm


Row = tuple[str, str, str, Tensor]  # a file, a key in it, the student's name of that tensor, and the tensor


def _read_encoder(lm: SpeechLM, path: str) -> None:
    wanted = {name: p for name, p in lm.hf.named_parameters() if name.startswith(TOWER)}
    ours = {published_name(name): name for name in wanted}
    order = row_order(lm.hf.config.audio_config)

    def rows() -> Iterator[Row]:
        for file, key, tensor in pretrained_parts.tensors(path):
            published = _published(key)
            if published.startswith(ENCODER) and published != POSITIONS:
                turned = bool(re.search(r"\.self_attn\.[qk]_proj\.", key)) and len(tensor) == len(order)
                yield file, key, ours.get(published, published), tensor[order] if turned else tensor
            elif native := re.fullmatch(r"(?:model\.)?audio_tower\.(.*)", key):
                yield file, key, TOWER + native[1], tensor

    _fill(wanted, path, rows())


def _published(key: str) -> str:
    """Return the published name of a tensor of Whisper's encoder; any other name as it is."""
    key = re.sub(r"^(?:model\.)?encoder\.", ENCODER[0], key)
    return key.replace(f"{ENCODER[0]}layer_norm.", ENCODER[1])


def _read_decoder(lm: SpeechLM, path: str) -> None:
    head, tied = "lm_head.weight", lm.hf.config.tie_word_embeddings
    wanted = {n: p for n, p in lm.hf.named_parameters() if n.startswith(DECODER) or (n == head and not tied)}
    rows = (
        (file, key, head if key == head else DECODER + key.removeprefix("model."), tensor)
        for file, key, tensor in pretrained_parts.tensors(path)
        if not (tied and key == head)
    )
    _fill(wanted, path, rows, pretrained_parts.decoder_sizes(path)["vocab_size"])


def _fill(wanted: dict[str, Tensor], path: str, rows: Iterable[Row], vocab_size: int = 0) -> None:
    """Copy tensors into the parameters `wanted`, each exactly once; vocab_size: rows that an embedding must have."""
    bad: list[str] = []
    left = dict(wanted)
    for file, key, name, tensor in rows:
        target = left.pop(name, None)
        if target is None:
            bad.append(f"{file}: {key} has no place in the model, or has two values")
            continue
        height = vocab_size if name.endswith(("embed_tokens.weight", "lm_head.weight")) else len(target)
        expected = [height, *target.shape[1:]]
        if list(tensor.shape) != expected:
            bad.append(f"{file}: {key} has shape {list(tensor.shape)}, not {expected}")
            continue
        target.data[:height] = tensor
        if height < len(target):
            target.data[height:] = tensor.to(torch.float32).mean(0)
    bad += [f"no tensor for {name}" for name in left]
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(f"{path}: its tensors are not those of its configuration: {'; '.join(bad[:SHOWN])}{more}")


def prompt_examples(model_type: str) -> list[str]:
    """Return the prompt's plain words, for training a tokenizer that keeps prompts short."""
    if model_type == "arkasr":
        return [INSTRUCTION]
    return ["system\n", "user\n", "assistant\n", "language English", "language Chinese"]


def build_fresh(model_type: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build a model with fresh weights; `sizes` as in `configured`, vocab_size is the tokenizer's length otherwise."""
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    token = {"arkasr": "<|audio|>", "qwen3_asr": "<|audio_pad|>"}[model_type]
    audio_id = tokenizer.convert_tokens_to_ids(token)
    config = fresh_config(model_type, sizes, len(tokenizer), audio_token_id=audio_id, **ids)
    kind = ArkasrForConditionalGeneration if model_type == "arkasr" else Qwen3ASRForConditionalGeneration
    return wrap(_with_loud_convolutions(kind(config)), tokenizer)


def fresh_config(model_type: str, sizes: dict[str, Any], vocab_size: int, **ids: int) -> ArkasrConfig | Qwen3ASRConfig:
    """Return the configuration of a model of these sizes.

    sizes: `audio` and `text`, keys of the model's own two configurations, and `initializer_range`, the standard
    deviation of fresh linear layers and embeddings everywhere (0.02 suits large widths; 1/sqrt(width) small ones).
    `text` may say vocab_size (the one given otherwise) and tie_word_embeddings (true otherwise). ids: of special
    tokens: audio_token_id, pad_token_id, eos_token_id.
    """
    spread = dict(initializer_range=sizes.get("initializer_range", 0.02))
    text = dict(vocab_size=vocab_size, tie_word_embeddings=True) | sizes["text"] | spread
    ends = {name: value for name, value in ids.items() if name != "audio_token_id"}
    common = dict(ids, tie_word_embeddings=text["tie_word_embeddings"], **spread)
    if model_type == "arkasr":
        return ArkasrConfig(audio_config=sizes["audio"] | spread, text_config=text | ends, **common)
    audio = sizes["audio"] | spread | dict(output_dim=text["hidden_size"])
    return Qwen3ASRConfig(audio_config=audio, text_config=dict(text, model_type="qwen3") | ends, **common)


def _with_loud_convolutions(hf: PreTrainedModel) -> PreTrainedModel:
    """Draw fresh convolutions with standard deviation 2 / sqrt(fan_in): GELU halves what is small, so that the signal
    keeps its size. At a fixed 0.02 a small encoder hears its position codes only.
    """
    for module in hf.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=2.0 / math.sqrt(module.weight[0].numel()))
    return hf


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

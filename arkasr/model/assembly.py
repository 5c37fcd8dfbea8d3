"""The model a run starts from where it loads none: pretrained parts, a fresh adapter, fresh weights for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arkasr.interfaces import UserError
from arkasr.model import parts
from arkasr.model.fresh import build
from arkasr.model.released import POSITIONS, published_name, row_order
from arkasr.model.speech_lm import SpeechLM
from arkasr.schema import ModelConfig

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
        sizes["audio"] = parts.encoder_sizes(config.encoder)
    if config.decoder:
        text = parts.decoder_sizes(config.decoder)
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
    lm = build(config.type, model_sizes(config, len(tokenizer)), tokenizer)
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
        for file, key, tensor in parts.tensors(path):
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
        for file, key, tensor in parts.tensors(path)
        if not (tied and key == head)
    )
    _fill(wanted, path, rows, parts.decoder_sizes(path)["vocab_size"])


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

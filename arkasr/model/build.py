"""Build the model that a run starts from if it loads none: pretrained parts, and fresh weights for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3Config,
)

from arkasr.config.schema import ModelConfig
from arkasr.errors import UserError
from arkasr.model import pretrained_parts
from arkasr.model.arkasr.configuration_arkasr import LEARNED, ROTARY, ArkasrConfig
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration
from arkasr.model.arkasr.prompt import INSTRUCTION
from arkasr.model.arkasr.published_weights import POSITIONS, published_name, row_order
from arkasr.model.sizes import check_memory, check_sizes
from arkasr.model.speech_lm.auto import SpeechLM, wrap

AUDIO_TOWER, DECODER = "model.audio_tower.", "model.language_model."
PUBLISHED_ENCODER = ("audio_encoder.whisper.", "audio_encoder.layer_norm.")  # prefixes of the encoder's tensors
MAX_SHOWN = 5  # tensors that an error message names

NamedTensor = tuple[str, str, str, Tensor]  # file, key in the file, parameter name in the student, tensor
Reader = Callable[[str], Iterator[tuple[str, str, Tensor]]]
HF = TypeVar("HF", bound=PreTrainedModel)


def assemble(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build the model of `config` and copy its pretrained parts into it, one tensor at a time.

    The adapter gets fresh weights, and so does a part for which `config` names no checkpoint.

    Encoder (Whisper, GLM-ASR or Ark-ASR):

    * Its final layer norm becomes the layer norm before the adapter.
    * Whisper keeps its learned positions and gets no RoPE (`positions: learned`), so it computes what it was trained
      for. GLM-ASR and Ark-ASR keep the positions of their configuration.
    * The published layout of Ark-ASR pairs neighbouring dimensions for RoPE. Its rows of query and key projections are
      reordered (`published_weights.row_order`). GLM-ASR in transformers' layout already has this order.

    Decoder (Qwen2):

    * Every embedding row is kept, including rows beyond the end of its tokenizer.
    * Rows that the student's tokenizer needs in addition are set to the mean of all rows. No new token is then more
      likely than an average token.

    Args:
        config: The section `model` of the configuration.
        tokenizer: The student's tokenizer, with the special tokens of its prompt.

    Returns:
        The model in training mode on the CPU, with parameters in `config.dtype`. Buffers keep their own dtype: the
        frequencies of RoPE need float32.

    Raises:
        UserError: As in `student_sizes`, or a tensor of a pretrained part is missing, unexpected or has another shape.
    """
    sizes = student_sizes(config, len(tokenizer))
    if config.encoder or config.decoder:
        with torch.device("meta"):  # compares names and shapes before anything is allocated
            draft = build_fresh(config.type, sizes, tokenizer)
        _copy_parts(draft, config, pretrained_parts.outlines)
    lm = build_fresh(config.type, sizes, tokenizer)
    _copy_parts(lm, config, pretrained_parts.tensors)
    for weight in lm.parameters():
        weight.data = weight.data.to(getattr(torch, config.dtype))
    return lm


def student_sizes(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return the argument `sizes` of `build_fresh`: those of the pretrained parts, and `config.sizes` for the others.

    Args:
        config: The section `model` of the configuration.
        vocab_size: Length of the student's tokenizer. The vocabulary of a pretrained decoder grows to it but never
            shrinks.

    Returns:
        A dictionary with the keys `audio` and `text`, and the other keys of `config.sizes`.

    Raises:
        UserError: A part has no sizes, wrong ones or has them twice, or the model type cannot be assembled from parts.
    """
    check_sizes(config.sizes, config.type)
    sizes = dict(config.sizes)
    for part, section in (("encoder", "audio"), ("decoder", "text")):
        path = getattr(config, part)
        if path and section in sizes:
            raise UserError(
                f"config key `model.sizes.{section}` is not allowed beside model.{part} {path}, which defines these "
                f"sizes; set model.sizes.{section} to null, or remove model.{part}"
            )
        if not path and section not in sizes:
            raise UserError(
                f"config key `model.sizes.{section}` is missing; set model.sizes.audio and model.sizes.text, or "
                "model.encoder and model.decoder to use pretrained parts, or model.path to start from a model"
            )
        if path and config.type != "arkasr":
            raise UserError(
                f"model.{part} {path}: only model.type arkasr can be assembled from pretrained parts, not "
                f"{config.type}; remove model.{part}"
            )
    if config.encoder:
        sizes["audio"] = pretrained_parts.encoder_sizes(config.encoder)
    if config.decoder:
        text = pretrained_parts.decoder_sizes(config.decoder)
        sizes["text"] = text | {"vocab_size": max(text["vocab_size"], vocab_size)}
    return sizes


def build_fresh(model_type: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        model_type: "arkasr" or "qwen3_asr".
        sizes: See `fresh_config`.
        tokenizer: Its length is the vocabulary size unless `sizes["text"]` has one.

    Returns:
        The model in training mode, with float32 weights on torch's default device.

    Raises:
        UserError: The sizes describe no model, or one that does not fit into memory.
    """
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    audio_token = {"arkasr": "<|audio|>", "qwen3_asr": "<|audio_pad|>"}[model_type]
    audio_id = tokenizer.convert_tokens_to_ids(audio_token)
    config: Any = fresh_config(model_type, sizes, len(tokenizer), audio_token_id=audio_id, **ids)
    model_class = ArkasrForConditionalGeneration if model_type == "arkasr" else Qwen3ASRForConditionalGeneration
    if config.text_config.vocab_size < len(tokenizer):
        raise UserError(
            f"config key `model.sizes.text.vocab_size` must be at least {len(tokenizer)}, the length of the tokenizer, "
            f"got {config.text_config.vocab_size}; remove it or raise it"
        )
    if torch.get_default_device().type != "meta":
        check_memory(model_class, config)
    return wrap(_init_convolutions(model_class(config)), tokenizer)


def fresh_config(model_type: str, sizes: dict[str, Any], vocab_size: int, **ids: Any) -> ArkasrConfig | Qwen3ASRConfig:
    """Return the configuration of a model of the given sizes.

    Args:
        model_type: "arkasr" or "qwen3_asr".
        sizes: `audio` and `text` hold keys of the encoder's and the decoder's configuration. `text` may set
            `vocab_size` and `tie_word_embeddings` (default true). `initializer_range` (default 0.02) is the standard
            deviation of all fresh linear layers and embeddings. 0.02 suits large widths, 1 / sqrt(width) small ones.
        vocab_size: Vocabulary size if `sizes["text"]` has none.
        **ids: Ids of special tokens: `audio_token_id`, `pad_token_id`, `eos_token_id`.

    Returns:
        The configuration. No weights are created.

    Raises:
        UserError: The sizes describe no model.
    """
    spread = {"initializer_range": sizes.get("initializer_range", 0.02)}
    text = {"vocab_size": vocab_size, "tie_word_embeddings": True} | sizes["text"] | spread
    text_ids = {name: value for name, value in ids.items() if name != "audio_token_id"}
    common = ids | {"tie_word_embeddings": text["tie_word_embeddings"]} | spread
    try:
        if model_type == "arkasr":
            return ArkasrConfig(audio_config=sizes["audio"] | spread, text_config=text | text_ids, **common)
        audio = sizes["audio"] | spread | {"output_dim": text.get("hidden_size", Qwen3Config.hidden_size)}
        return Qwen3ASRConfig(audio_config=audio, text_config=text | {"model_type": "qwen3"} | text_ids, **common)
    except UserError:
        raise
    except (StrictDataclassError, ValueError, TypeError, LookupError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"config key `model.sizes`: not the sizes of a model of type {model_type}: {cause}") from error


def freeze(lm: SpeechLM, names: Iterable[str]) -> None:
    """Exclude parts of the model from training. Call this before the model is sharded.

    Args:
        lm: The model. `requires_grad` of the parameters is set to false in place.
        names: Some of "encoder", "adapter" and "decoder" (with embeddings and output head).
    """
    parts = _part_modules(lm)
    for name in names:
        for module in parts[name]:
            module.requires_grad_(False)


def part_parameters(lm: SpeechLM) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each part of a model, LoRA adapters included.

    Args:
        lm: The model, sharded or not.

    Returns:
        The parameters of "encoder", "adapter" (with the CTC head, if there is one) and "decoder" (with embeddings and
        output head). Each parameter occurs once.
    """
    parts = _part_modules(lm)
    parts["adapter"] += [lm.ctc_head] if lm.ctc_head is not None else []
    return {part: list(dict.fromkeys(p for m in modules for p in m.parameters())) for part, modules in parts.items()}


def _part_modules(lm: SpeechLM) -> dict[str, list[nn.Module]]:
    model = lm.hf.model
    return {
        "encoder": [model.audio_tower],
        "adapter": [model.multi_modal_projector],
        "decoder": [model.language_model, lm.hf.lm_head],
    }


def prompt_examples(model_type: str) -> list[str]:
    """Return the plain text of the model's prompt. A tokenizer trained on it encodes the prompt in few tokens.

    Args:
        model_type: "arkasr" or "qwen3_asr".

    Returns:
        Texts without special tokens.
    """
    if model_type == "arkasr":
        return [INSTRUCTION]
    return ["system\n", "user\n", "assistant\n", "language English", "language Chinese"]


def _init_convolutions(hf: HF) -> HF:
    """Draw the convolutions again with standard deviation 2 / sqrt(fan_in).

    GELU halves small values, so this keeps the scale of the signal. With a fixed 0.02 the output of a small encoder
    would depend on its positions only, not on the audio.
    """
    for module in hf.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=2.0 / math.sqrt(module.weight[0].numel()))
    return hf


def _copy_parts(lm: SpeechLM, config: ModelConfig, read: Reader) -> None:
    if config.encoder:
        _copy_encoder(lm, config.encoder, read)
    if config.decoder:
        _copy_decoder(lm, config.decoder, read)


def _copy_encoder(lm: SpeechLM, path: str, read: Reader) -> None:
    targets = {name: p for name, p in lm.hf.named_parameters() if name.startswith(AUDIO_TOWER)}
    native_names = {published_name(name): name for name in targets}
    audio = lm.hf.config.audio_config
    order = row_order(audio)

    def source() -> Iterator[NamedTensor]:
        for file, key, tensor in read(path):
            published = _published_key(key)
            if published.startswith(PUBLISHED_ENCODER) and (published != POSITIONS or audio.positions == LEARNED):
                rotates = audio.positions == ROTARY and re.search(r"\.self_attn\.[qk]_proj\.", key)
                reorder = bool(rotates) and len(tensor) == len(order)
                yield file, key, native_names.get(published, published), tensor[order] if reorder else tensor
            elif native := re.fullmatch(r"(?:model\.)?audio_tower\.(.*)", key):
                yield file, key, AUDIO_TOWER + native[1], tensor

    _copy_tensors(targets, path, source())


def _published_key(key: str) -> str:
    """Return the published name of a tensor of Whisper's encoder, and any other name unchanged."""
    key = re.sub(r"^(?:model\.)?encoder\.", PUBLISHED_ENCODER[0], key)
    return key.replace(f"{PUBLISHED_ENCODER[0]}layer_norm.", PUBLISHED_ENCODER[1])


def _copy_decoder(lm: SpeechLM, path: str, read: Reader) -> None:
    head, tied = "lm_head.weight", lm.hf.config.tie_word_embeddings
    targets = {n: p for n, p in lm.hf.named_parameters() if n.startswith(DECODER) or (n == head and not tied)}
    source = (
        (file, key, head if key == head else DECODER + key.removeprefix("model."), tensor)
        for file, key, tensor in read(path)
        if not (tied and key == head)
    )
    _copy_tensors(targets, path, source, pretrained_parts.decoder_sizes(path)["vocab_size"])


def _copy_tensors(
    targets: dict[str, nn.Parameter], path: str, source: Iterable[NamedTensor], vocab_size: int = 0
) -> None:
    """Copy each tensor of `source` into its parameter. `vocab_size` is the number of rows an embedding must have."""
    problems: list[str] = []
    missing = dict(targets)
    for file, key, name, tensor in source:
        target = missing.pop(name, None)
        if target is None:
            problems.append(f"{file}: {key} matches no parameter of the model, or is a duplicate")
            continue
        num_rows = vocab_size if name.endswith(("embed_tokens.weight", "lm_head.weight")) else len(target)
        expected = [num_rows, *target.shape[1:]]
        if list(tensor.shape) != expected:
            problems.append(f"{file}: {key} has shape {list(tensor.shape)}, expected {expected}")
            continue
        target.data[:num_rows] = tensor
        if num_rows < len(target):
            target.data[num_rows:] = tensor.to(torch.float32).mean(0)
    problems += [f"no tensor for {name}" for name in missing]
    if problems:
        more = f"; and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        raise UserError(f"{path}: tensors do not match its config.json: {'; '.join(problems[:MAX_SHOWN])}{more}")

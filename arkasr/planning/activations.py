"""Activations of one pass in bytes, from a model's configuration and the batch. docs/plan.md lists the formulas.

The sizes are those that autograd keeps for the layers of transformers with fused attention. A test compares them with
autograd's saved tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from arkasr.planning.flops import FRAMES, PROMPT, audio_tokens
from arkasr.planning.layout import BatchShape, ShardingLayout
from arkasr.planning.model_sizes import AdapterCounts

FLOAT = 4  # bytes of a float32
WINDOW = 1500  # encoder states of the windows of 30 s, to which Whisper and GLM-ASR pad


def attention_widths(text: Any) -> tuple[int, int]:
    """Return the total widths of queries and of keys.

    Args:
        text: The `text_config` of the model.

    Returns:
        Number of heads times head size, for queries and for keys.
    """
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head, text.num_key_value_heads * head


def encoder_states(config: Any, batch: BatchShape) -> float:
    """Count the positions of the encoder's blocks.

    Args:
        config: Configuration of the model.
        batch: One micro-batch.

    Returns:
        The number of positions of all clips.
    """
    if config.model_type == "arkasr":
        return batch.clips * batch.seconds * FRAMES / 2
    if config.model_type == "qwen3_asr":
        return batch.clips * audio_tokens(config, batch.seconds)
    return batch.clips * WINDOW * math.ceil(batch.seconds * FRAMES / 2 / WINDOW)


def decoder_positions(config: Any, batch: BatchShape) -> float:
    """Count the positions of a pass over prompts and transcripts. The last token of each is not an input.

    Args:
        config: Configuration of the model.
        batch: One micro-batch.

    Returns:
        The number of positions of all transcripts.
    """
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens - 1
    return batch.transcripts * length


def encoder_layer(config: Any, compute: int) -> float:
    """Return what autograd keeps of one encoder block: 9 vectors of its width and 2 of its MLP.

    Args:
        config: Configuration of the model.
        compute: Bytes per element.

    Returns:
        Bytes per position.
    """
    _, width, ffn = _encoder_sizes(config)
    return compute * (9 * width + 2 * ffn)


def decoder_layer(config: Any, compute: int) -> float:
    """Return what autograd keeps of one decoder block: 6 vectors of its width, those of attention, and 4 of its MLP.

    The two norms of a block compute in float32. With 16-bit activations their inputs are kept a second time. Blocks of
    Whisper have another attention over the audio, and 2 vectors of the MLP.

    Args:
        config: Configuration of the model.
        compute: Bytes per element.

    Returns:
        Bytes per position.
    """
    if config.model_type == "whisper":
        return compute * (14 * config.d_model + 2 * config.decoder_ffn_dim)
    text = config.text_config
    queries, keys = attention_widths(text)
    kept = 6 * text.hidden_size + 2 * queries + 2 * keys + 4 * text.intermediate_size
    if config.model_type == "qwen3_asr":  # norms of queries and keys
        kept += 2 * (queries + keys) + (queries + keys) * (FLOAT // compute if compute < FLOAT else 0)
    return compute * kept + (FLOAT * text.hidden_size if compute < FLOAT else 0)


def activations(
    config: Any, batch: BatchShape, compute: int, frozen: Collection[str] = (), recompute: bool = False
) -> tuple[float, float]:
    """Return what autograd keeps of one pass with gradient.

    With activation checkpointing each block keeps only its input, and one block at a time is recomputed in backward.

    Args:
        config: Configuration of the model.
        batch: One micro-batch.
        compute: Bytes per element.
        frozen: Parts of the model that are not trained.
        recompute: Whether activation checkpointing is used.

    Returns:
        Bytes of encoder and adapter, and bytes of the decoder.
    """
    layers, width, _ = _encoder_sizes(config)
    states, positions = encoder_states(config, batch), decoder_positions(config, batch)
    encoder = states * _blocks(encoder_layer(config, compute), compute * width, layers, recompute)
    depth, hidden = _decoder_sizes(config)
    decoder = positions * _blocks(decoder_layer(config, compute), compute * hidden, depth, recompute)
    stem = compute * _stem(config, batch, states)
    return (0.0 if "encoder" in frozen else stem + encoder), decoder + 2 * FLOAT * hidden * positions


def adapter_activations(
    config: Any, batch: BatchShape, lora: Mapping[str, AdapterCounts], layout: ShardingLayout, dropout: float
) -> dict[str, float]:
    """Return what autograd keeps for LoRA adapters: A x, and with dropout its mask and another copy of x.

    The inputs x are those that layers keep without adapters too. With activation checkpointing one block at a time
    keeps this.

    Args:
        config: Configuration of the model.
        batch: One micro-batch.
        lora: Adapters by part.
        layout: Element sizes.
        dropout: Dropout of the adapters' inputs.

    Returns:
        Bytes of `encoder` and `decoder`.
    """
    positions = {"encoder": encoder_states(config, batch), "decoder": decoder_positions(config, batch)}
    depth = {"encoder": _encoder_sizes(config)[0], "decoder": _decoder_sizes(config)[0]}
    kept = dict.fromkeys(positions, 0.0)
    for part, counts in lora.items():
        each = layout.compute * counts.middle + ((layout.compute + 1) * counts.inputs if dropout else 0)
        kept[part] = positions[part] * each / (depth[part] if layout.recompute else 1)
    return kept


def dropout_masks(config: Any, batch: BatchShape, dropped: Collection[str], layout: ShardingLayout) -> dict[str, float]:
    """Return what autograd keeps for dropout on a GPU: two masks of bytes per block, as wide as the block.

    Args:
        config: Configuration of the model.
        batch: One micro-batch.
        dropped: Parts with dropout.
        layout: With activation checkpointing one block at a time keeps its masks.

    Returns:
        Bytes of `encoder` and `decoder`.
    """
    layers, width, _ = _encoder_sizes(config)
    depth, hidden = _decoder_sizes(config)
    masks = {
        "encoder": 2 * encoder_states(config, batch) * width * (1 if layout.recompute else layers),
        "decoder": 2 * decoder_positions(config, batch) * hidden * (1 if layout.recompute else depth),
    }
    return {part: size if part in dropped else 0.0 for part, size in masks.items()}


def forward_activations(config: Any, batch: BatchShape, compute: int) -> float:
    """Return what a pass without gradient holds at one time.

    Args:
        config: Configuration of the student or teacher.
        batch: One micro-batch.
        compute: Bytes per element.

    Returns:
        Bytes, the largest of a convolution with its activation, an encoder block and a decoder block. Of a block, that
        is its input and the work of its MLP.
    """
    _, width, ffn = _encoder_sizes(config)
    encoder = encoder_states(config, batch) * (3 * width + 2 * ffn)
    stem = 2 * _conv_outputs(config, batch)[0] if config.model_type == "qwen3_asr" else 0.0
    hidden = _decoder_sizes(config)[1]
    ffn = config.decoder_ffn_dim if config.model_type == "whisper" else config.text_config.intermediate_size
    positions = decoder_positions(config, batch) + batch.transcripts
    return compute * max(encoder, stem, positions * (3 * hidden + 3 * ffn))


def _encoder_sizes(config: Any) -> tuple[int, int, int]:
    """Return the number of blocks, their width and that of their MLP."""
    if config.model_type == "whisper":
        return config.encoder_layers, config.d_model, config.encoder_ffn_dim
    audio = config.audio_config
    return audio.num_hidden_layers, audio.hidden_size, audio.intermediate_size


def _decoder_sizes(config: Any) -> tuple[int, int]:
    if config.model_type == "whisper":
        return config.decoder_layers, config.d_model
    return config.text_config.num_hidden_layers, config.text_config.hidden_size


def _blocks(block: float, block_input: float, layers: int, recompute: bool) -> float:
    return layers * block_input + block if recompute else layers * block


def _conv_outputs(config: Any, batch: BatchShape) -> list[float]:
    """Return the elements of the outputs of Qwen3-ASR's three convolutions, over padded chunks."""
    audio, sizes = config.audio_config, []
    length, mel = 2 * audio.n_window, audio.num_mel_bins
    chunks = batch.clips * math.ceil(max(batch.seconds * FRAMES, 1) / length)
    for _ in range(3):
        length, mel = math.ceil(length / 2), math.ceil(mel / 2)
        sizes.append(chunks * audio.downsample_hidden_size * mel * length)
    return sizes


def _stem(config: Any, batch: BatchShape, states: float) -> float:
    """Return the elements that autograd keeps of convolutions, last norm and adapter."""
    _, width, _ = _encoder_sizes(config)
    if config.model_type == "whisper":
        return states * (2 * config.num_mel_bins + 7 * width)
    mel, hidden = config.audio_config.num_mel_bins, config.text_config.hidden_size
    if config.model_type == "qwen3_asr":
        outputs = _conv_outputs(config, batch)
        return 2 * sum(outputs) + outputs[-1] + states * (8 * mel + 5 * width)
    return states * (2 * mel + 7 * width + 1.25 * hidden)

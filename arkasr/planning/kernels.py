"""Kernels that the layers of transformers start, and bytes that they move outside of matrix products.

A test counts both in real passes. The compiled step is not counted: its number of kernels is what its measured time
gives (docs/plan.md, "Accuracy of the prediction").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arkasr.planning.activations import FLOAT, activations
from arkasr.planning.layout import BatchShape

# Kernels per block of encoder and decoder in a forward pass. A backward pass starts twice as many.
PER_BLOCK = {"arkasr": (25, 38), "glmasr": (25, 38), "qwen3_asr": (15, 54), "whisper": (14, 20)}
CACHED = 2  # further kernels per decoder block in a decoding step: two writes to the cache
AROUND = 40  # kernels of a pass outside of blocks, and of a decoding step: embedding, norm, head, top-k, counters
COMPILED = 18  # kernels per decoder block after torch.compile
# Bytes moved in a forward pass per byte of activations that autograd keeps. A backward pass moves twice as many.
ENCODER_MOVES = {"arkasr": 2.0, "glmasr": 2.0, "qwen3_asr": 1.6, "whisper": 1.6}  # the first two rotate positions
DECODER_MOVES = {"arkasr": 3.0, "glmasr": 3.0, "qwen3_asr": 3.6, "whisper": 3.0}  # Qwen3 normalises queries and keys
LOGIT_PASSES = 6  # times that logits are written or read for a top-k and a normaliser
OPTIMIZER_PASSES = 10  # times that gradients are measured and scaled, and weights and moments read and written


@dataclass(frozen=True)
class Overhead:
    """What a pass does beside matrix products.

    Attributes:
        moved: Bytes that its other kernels read and write.
        kernels: Number of kernels that the host starts.
    """

    moved: float = 0.0
    kernels: float = 0.0

    def __add__(self, other: Overhead) -> Overhead:
        return Overhead(self.moved + other.moved, self.kernels + other.kernels)

    def times(self, factor: float) -> Overhead:
        """Return the overhead of several passes.

        Args:
            factor: Number of passes.

        Returns:
            The overhead of all of them.
        """
        return Overhead(factor * self.moved, factor * self.kernels)


def passes(config: Any, batch: BatchShape, compute: int) -> tuple[Overhead, Overhead]:
    """Return the overhead of a forward pass.

    Args:
        config: Configuration of a student or teacher.
        batch: One micro-batch.
        compute: Bytes per element of activations.

    Returns:
        Overheads of encoder and decoder, the decoder without the head.
    """
    encoder, decoder = activations(config, batch, compute)
    per_encoder_block, per_decoder_block = PER_BLOCK[config.model_type]
    return (
        Overhead(ENCODER_MOVES[config.model_type] * encoder, AROUND + encoder_blocks(config) * per_encoder_block),
        Overhead(DECODER_MOVES[config.model_type] * decoder, AROUND + decoder_blocks(config) * per_decoder_block),
    )


def logits(config: Any, positions: float) -> Overhead:
    """Return the overhead of reading whole distributions.

    Args:
        config: Configuration of the model.
        positions: Number of positions.

    Returns:
        The overhead, without kernels.
    """
    vocab_size = getattr(config, "text_config", config).vocab_size
    return Overhead(LOGIT_PASSES * FLOAT * positions * vocab_size)


def decoding_step(config: Any, compiled: bool) -> float:
    """Return the number of kernels that decode one token of each transcript.

    Args:
        config: Configuration of the student.
        compiled: Whether the step goes through torch.compile.

    Returns:
        The number of kernels.
    """
    per_block = COMPILED if compiled else PER_BLOCK[config.model_type][1] + CACHED
    return AROUND + decoder_blocks(config) * per_block


def encoder_blocks(config: Any) -> int:
    """Count the blocks of the encoder.

    Args:
        config: Configuration of a model.

    Returns:
        The number of blocks.
    """
    return config.encoder_layers if config.model_type == "whisper" else config.audio_config.num_hidden_layers


def decoder_blocks(config: Any) -> int:
    """Count the blocks of the decoder.

    Args:
        config: Configuration of a model.

    Returns:
        The number of blocks.
    """
    return config.decoder_layers if config.model_type == "whisper" else config.text_config.num_hidden_layers

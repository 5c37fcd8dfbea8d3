"""What a rank stores and processes: the sharding of the models, and one micro-batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardingLayout:
    """How parameters and activations are stored on the GPUs."""

    shards: int  # ranks that hold one copy of the student together
    teacher_shards: int  # ranks that hold one copy of the teacher together
    weight: int  # bytes per element of the master weights, or of the frozen ones with LoRA
    compute: int  # bytes per element of activations and gathered weights
    teacher: int  # bytes per element of the teacher's weights
    wrapped: bool = True  # whether FSDP2 computes with copies of the student's weights
    recompute: bool = False  # whether activation checkpointing is used
    reshard: bool = True  # whether a block's gathered weights are freed after its forward pass
    merged: bool = False  # whether LoRA adapters of the decoder are merged in a copy of it
    trained: int = 0  # bytes per element of trained weights, 0 if they have those of `weight`


@dataclass(frozen=True)
class BatchShape:
    """One micro-batch of one rank."""

    clips: float
    seconds: float  # per clip
    transcripts: float
    tokens: float  # per transcript, stop token included

    def for_scoring(self) -> BatchShape:
        """Return the batch as a teacher reads it: with the audio once per transcript."""
        return BatchShape(self.transcripts, self.seconds, self.transcripts, self.tokens)

    def prompts(self) -> BatchShape:
        """Return the batch before a transcript is generated. One token then needs no further position."""
        return BatchShape(self.clips, self.seconds, self.transcripts, 1)

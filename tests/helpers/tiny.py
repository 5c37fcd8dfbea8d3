"""Additions to the tiny models of arkasr.testing: batches, rollouts that stop, and the bytes of tokens."""

from __future__ import annotations

import re

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from arkasr.data.batches import Batch
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.train_tokenizer import train_sentencepiece
from arkasr.testing.tiny import ARK_SIZES, QWEN_SIZES, TEXTS, student_tokenizer, teacher_tokenizer, waveform
from arkasr.testing.tiny import tiny_student as student
from arkasr.testing.tiny import tiny_teacher as teacher

__all__ = [
    "ARK_SIZES", "QWEN_SIZES", "TEXTS", "batch", "bpe_bytes", "ctc_tokens", "eager_to_stop", "piece_bytes",
    "student", "student_tokenizer", "teacher", "teacher_tokenizer", "waveform",
]  # fmt: skip


def eager_to_stop(lm: SpeechLM, factor: float = 3.0) -> SpeechLM:
    """Scale the stop token's row of the tied head, so that some random rollouts stop."""
    with torch.no_grad():
        lm.head[lm.stop_ids[0]] *= factor
    return lm


def batch(lengths: list[int], texts: list[str] | None = None, language: str = "English", seed: int = 0) -> Batch:
    """Return a batch whose clips have these lengths in samples."""
    clips = [waveform(n, seed + i) for i, n in enumerate(lengths)]
    names = [f"clip-{i}" for i in range(len(clips))]
    return Batch(names, clips, texts or ["the sea"] * len(clips), [language] * len(clips))


def ctc_tokens(pieces: int = 40) -> Tokenizer:
    """Return short tokens for a CTC head, as `train.ctc_vocab_size` makes them."""
    return train_sentencepiece(TEXTS, pieces).backend_tokenizer


def piece_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return the bytes of SentencePiece pieces, read from their notation, without special tokens."""
    table = {}
    for piece, index in tokenizer.get_vocab().items():
        if index in tokenizer.added_tokens_decoder or piece == "<unk>":
            continue
        escaped = re.fullmatch("<0x(..)>", piece)
        table[index] = bytes.fromhex(escaped[1]) if escaped else piece.replace("\u2581", " ").encode()
    return table


def bpe_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return the bytes of byte-level BPE tokens, from the table in transformers, without special tokens."""
    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
    return {
        index: bytes(byte_of[char] for char in token)
        for token, index in tokenizer.get_vocab().items()
        if index not in tokenizer.added_tokens_decoder
    }

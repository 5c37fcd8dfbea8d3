"""The special tokens of the models, the bytes of each id of any tokenizer, and the ids that no transcript may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arkasr.errors import UserError

ARK_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio|>",
    "<|user|>",
    "<|begin_of_audio|>",
    "<|end_of_audio|>",
    "<|assistant|>",
]
QWEN_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
    "<asr_text>",
]
SPACE = "\u2581"  # how SentencePiece writes a space


@lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """Invert the alphabet of byte-level BPE: printable bytes map to themselves, the others to U+0100 and above."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    rest = (b for b in range(256) if b not in set(printable))
    return table | {chr(256 + n): b for n, b in enumerate(rest)}


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """List the UTF-8 bytes that each id contributes to running text.

    Args:
        tokenizer: Byte-level BPE (Qwen, GPT-2) or SentencePiece pieces with byte fallback.

    Returns:
        V entries. None for added and special tokens, for `<unk>`, and for ids without token.

    Raises:
        UserError: The tokenizer is of another kind, or is not a fast one.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: {type(tokenizer).__name__} is a slow tokenizer; token "
            "mappers need a fast one, with a tokenizer.json; convert it with `AutoTokenizer.from_pretrained(folder, "
            "use_fast=True).save_pretrained(folder)`, or use another model"
        )
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {t["id"] for t in spec["added_tokens"]} | {tokenizer.unk_token_id}
    decoder = json.dumps(spec["decoder"], ensure_ascii=False)
    byte_level = "ByteLevel" in decoder
    if not byte_level and SPACE not in decoder:
        raise UserError(
            f"{tokenizer.name_or_path or type(tokenizer).__name__}: the tokenizer is neither byte-level BPE nor "
            "SentencePiece, so the bytes of its tokens are unknown; use a model with one of these tokenizers"
        )
    table: list[bytes | None] = [None] * len(tokenizer)
    for token, index in tokenizer.get_vocab().items():
        if index not in special and (byte_level or token != "<unk>"):  # an ordinary token of Qwen
            table[index] = _bytes_of_bpe(token) if byte_level else _bytes_of_piece(token)
    return table


def _bytes_of_bpe(token: str) -> bytes | None:
    table = _byte_of_char()
    return bytes(table[c] for c in token) if all(c in table for c in token) else None


def _bytes_of_piece(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)
    return bytes([int(byte.group(1), 16)]) if byte else piece.replace(SPACE, " ").encode()


def blocked_ids(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], vocab_size: int) -> Tensor:
    """Mark the ids that must not occur in a transcript.

    Blocked are all added tokens except the stop ids, `<unk>`, and ids beyond the end of the tokenizer. The published
    model needs this: without it, its transcripts often begin with `<|user|>`.

    Args:
        tokenizer: The model's tokenizer.
        stop_ids: Ids that end a transcript.
        vocab_size: Rows of the model's output head V.

    Returns:
        Tensor [V], bool.

    Raises:
        UserError: The tokenizer has more tokens than the model.
    """
    last = max([*tokenizer.added_tokens_decoder, len(tokenizer) - 1])
    if last >= vocab_size:
        raise UserError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: the tokenizer has the id {last}, but the model has only "
            f"{vocab_size} tokens; use the tokenizer of this model"
        )
    blocked = torch.arange(vocab_size) >= len(tokenizer)
    blocked[[*tokenizer.added_tokens_decoder]] = True
    if tokenizer.unk_token_id is not None:
        blocked[tokenizer.unk_token_id] = True
    blocked[list(stop_ids)] = False
    return blocked


def holds_reserved_tokens(ids: Sequence[int], blocked: Container[int], stop_ids: Sequence[int]) -> bool:
    """Return whether a text spells out special tokens, which no transcript may contain.

    Args:
        ids: Token ids of the text, with the final stop token.
        blocked: The ids that `blocked_ids` marks, as a set (`SpeechLM.blocked_ids`).
        stop_ids: Ids that end a transcript.

    Returns:
        True if an id is blocked, or if a stop token is not the last id.
    """
    return any(i in blocked for i in ids) or not set(stop_ids).isdisjoint(ids[:-1])

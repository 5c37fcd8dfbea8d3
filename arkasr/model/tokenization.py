"""Tokenizers made from transcripts at mini scale, and the bytes behind any tokenizer's ids."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

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
SPACE = "\u2581"


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a SentencePiece BPE model with byte fallback and give it Ark-ASR's special tokens.

    vocab_size: pieces beside the 256 bytes. Text is neither normalised nor given a leading space, so that decoding
    returns it unchanged. The result runs on Hugging Face's tokenizers, piece for piece.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size + 257,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    bpe = models.BPE(vocab, _merges(vocab), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(bpe)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never")
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ARK_TOKENS})
    return tokenizer


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """List the merges behind SentencePiece's BPE pieces: their ids follow the order in which they were learnt."""
    words = [p for p in vocab if len(p) > 1 and not re.fullmatch(r"<unk>|<0x[0-9A-F]{2}>", p)]
    return [
        (w[:n], w[n:]) for w in sorted(words, key=vocab.get) for n in range(1, len(w)) if {w[:n], w[n:]} <= vocab.keys()
    ]


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Train byte-level BPE with Qwen's pre-tokenisation and give it Qwen3-ASR's special tokens."""
    backend = Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer
    draft = Tokenizer(models.BPE())
    draft.normalizer, draft.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    draft.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    made = json.loads(draft.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=made["vocab"],
        merges=[tuple(m) for m in made["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_TOKENS[:-1]})
    tokenizer.add_tokens(QWEN_TOKENS[-1:])
    return tokenizer


@lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """Invert byte-level BPE's alphabet: printable bytes stand for themselves, the rest for U+0100 onwards."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    rest = (b for b in range(256) if b not in set(printable))
    return table | {chr(256 + n): b for n, b in enumerate(rest)}


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """List the UTF-8 bytes each id stands for in running text; None for added and special tokens and for `<unk>`.

    Knows byte-level BPE (Qwen, GPT-2) and SentencePiece pieces with byte fallback; raises UserError for others.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {t["id"] for t in spec["added_tokens"]} | {tokenizer.unk_token_id}
    decoder = json.dumps(spec["decoder"], ensure_ascii=False)
    byte_level = "ByteLevel" in decoder
    if not byte_level and SPACE not in decoder:
        raise UserError(
            f"{tokenizer.name_or_path or type(tokenizer).__name__}: its tokens are neither byte-level BPE nor "
            "SentencePiece pieces, so that their bytes are not known; use a model with one of these"
        )
    table: list[bytes | None] = [None] * len(tokenizer)
    for token, index in tokenizer.get_vocab().items():
        if index not in special and token != "<unk>":
            table[index] = _bytes_of_bpe(token) if byte_level else _bytes_of_piece(token)
    return table


def _bytes_of_bpe(token: str) -> bytes | None:
    table = _byte_of_char()
    return bytes(table[c] for c in token) if all(c in table for c in token) else None


def _bytes_of_piece(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)
    return bytes([int(byte.group(1), 16)]) if byte else piece.replace(SPACE, " ").encode()


def blocked_ids(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], vocab_size: int) -> Tensor:
    """Mark, bool [vocab_size], the ids that never stand in a transcript.

    These are every added token but the stop ids, `<unk>`, and ids past the tokenizer's end. The published model needs
    it: without, it often begins with `<|user|>`.
    """
    blocked = torch.arange(vocab_size) >= len(tokenizer)
    blocked[[*tokenizer.added_tokens_decoder]] = True
    if tokenizer.unk_token_id is not None:
        blocked[tokenizer.unk_token_id] = True
    blocked[list(stop_ids)] = False
    return blocked

"""Train tokenizers on transcripts (at mini scale), and find the bytes of each id of any tokenizer."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

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
# Characters that cannot be pieces: SentencePiece uses the first two itself and ends a sentence at the others.
_RESERVED = "\u2585"
_NOT_PIECES = f"{_RESERVED}\t\n\r\0 "
SPACE = "\u2581"  # how SentencePiece writes a space


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a SentencePiece BPE model with byte fallback and add Ark-ASR's special tokens.

    Text is not normalised and gets no leading space, so decoding returns it unchanged. The result runs on Hugging
    Face's `tokenizers` and gives the same pieces as SentencePiece.

    If the text has more different characters than `vocab_size`, the most frequent ones become pieces and the others are
    written as bytes. A tenth of the pieces is then kept for longer ones.

    Args:
        texts: Training text.
        vocab_size: Maximum number of pieces, not counting the 256 bytes.

    Returns:
        The tokenizer.

    Raises:
        UserError: The text is empty or not valid Unicode, or `vocab_size` is below 1.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_known_parts(_checked_texts(texts, vocab_size, 1), vocab_size)),
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
        max_sentence_length=2**30,  # longer ones would be left out
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


def _checked_texts(texts: Iterable[str], vocab_size: int, least: int) -> list[str]:
    kept = [text for text in texts if text.strip(_NOT_PIECES)]
    if not kept:
        raise UserError("the text to train a tokenizer on is empty; set tokenizer.text to cuts with transcripts")
    for text in kept:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the transcript {text[:60]!a} is not valid Unicode ({error.reason}); correct it in the manifest"
            ) from error
    if vocab_size < least:
        raise UserError(f"config key `tokenizer.vocab_size` must be at least {least}, got {vocab_size}; raise it")
    return kept


def _known_parts(texts: list[str], vocab_size: int) -> list[str]:
    """Split texts at characters for which there is no piece. SentencePiece learns no piece across them either."""
    counts = Counter("".join(texts).replace(SPACE, " "))
    for char in _NOT_PIECES.strip(" "):
        del counts[char]
    if len(counts) <= vocab_size:
        return [part for text in texts for part in text.split(_RESERVED) if part]
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    rare = {*ranked[max(1, vocab_size * 9 // 10) :], _RESERVED}
    table = str.maketrans(dict.fromkeys(rare, _RESERVED))
    return [part for text in texts for part in text.translate(table).split(_RESERVED) if part]


def spelled_in_bytes(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> tuple[int, int, float]:
    """Count the characters of a text for which a tokenizer has no token, so that it writes several for one.

    Args:
        tokenizer: A tokenizer with byte fallback, or byte-level BPE.
        texts: The text.

    Returns:
        The number of different characters that take several tokens, the number of all different characters, and the
        share of the text's characters that take several tokens, from 0 to 1.
    """
    counts = Counter("".join(texts))
    split = [char for char in counts if len(tokenizer.encode(char, add_special_tokens=False)) > 1]
    return len(split), len(counts), sum(counts[char] for char in split) / max(counts.total(), 1)


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """List the merges of SentencePiece's BPE pieces. The ids of pieces follow the order in which they were learnt."""
    words = [p for p in vocab if len(p) > 1 and not re.fullmatch(r"<unk>|<0x[0-9A-F]{2}>", p)]
    words.sort(key=vocab.__getitem__)
    return [(w[:n], w[n:]) for w in words for n in range(1, len(w)) if {w[:n], w[n:]} <= vocab.keys()]


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Train byte-level BPE with Qwen's pre-tokenisation and add Qwen3-ASR's special tokens.

    Args:
        texts: Training text.
        vocab_size: Number of tokens, the 256 bytes included and the special tokens not included. A short text gives
            fewer.

    Returns:
        The tokenizer.

    Raises:
        UserError: The text is empty or not valid Unicode, or `vocab_size` is below 256.
    """
    texts = _checked_texts(texts, vocab_size, 256)
    backend = Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer
    draft = Tokenizer(models.BPE())
    draft.normalizer, draft.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    draft.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(draft.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]  # transformers takes pairs but declares list[str]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_TOKENS[:-1]})
    tokenizer.add_tokens(QWEN_TOKENS[-1:])
    return tokenizer


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


def holds_reserved_tokens(ids: Sequence[int], blocked: Tensor, stop_ids: Sequence[int]) -> bool:
    """Return whether a text spells out special tokens, which no transcript may contain.

    Args:
        ids: Token ids of the text, with the final stop token.
        blocked: Result of `blocked_ids`, bool [V].
        stop_ids: Ids that end a transcript.

    Returns:
        True if an id is blocked, or if a stop token is not the last id.
    """
    return bool(blocked[torch.tensor(ids, device=blocked.device)].any()) or not set(stop_ids).isdisjoint(ids[:-1])

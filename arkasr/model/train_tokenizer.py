"""Train tokenizers on transcripts, at mini scale."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from arkasr.errors import UserError
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS, SPACE

# Characters that cannot be pieces: SentencePiece uses the first two itself and ends a sentence at the others.
_RESERVED = "\u2585"
_NOT_PIECES = f"{_RESERVED}\t\n\r\0 "
# Chinese is written without spaces. Merges across characters would become whole phrases of a small corpus, which are
# too rare to learn. So each Han character is a token of its own, as in the Mandarin recipes of ESPnet and icefall.
_HAN = r"\p{Han}"


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a SentencePiece BPE model with byte fallback and add Ark-ASR's special tokens.

    Text is not normalised and gets no leading space, so decoding returns it unchanged. The result runs on Hugging
    Face's `tokenizers` and gives the same pieces as SentencePiece.

    No piece holds a Han character and another character.

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
    model, parts = io.BytesIO(), _known_parts(_checked_texts(texts, vocab_size, 1), vocab_size)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(parts),
        user_defined_symbols=sorted(char for char in set("".join(parts)) if _is_han(char)),  # are never merged
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


def _is_han(char: str) -> bool:
    return not pre_tokenizers.Split(Regex(_HAN), "removed").pre_tokenize_str(char)


def _checked_texts(texts: Iterable[str], vocab_size: int, least: int) -> list[str]:
    kept = [text for text in texts if text.strip(_NOT_PIECES.strip(" "))]  # a space may become a piece
    if not any(map(str.strip, kept)):
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

    No token holds bytes of a Han character and of another character.

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
    draft.normalizer = backend.normalizer
    draft.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_HAN), "isolated"), backend.pre_tokenizer]
    )
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

"""The token sequences in which hotwords can occur in a transcript."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from arkasr.errors import UserError
from arkasr.model.hotwords.words import is_word_character

# What may stand before a hotword in its word: nothing, as at the start of a text, or a character that tokenizers join
# to the letters behind it.
CONTEXTS = ("", " ", "-", "'", '"')
EXAMPLES = 3


class Phrase(NamedTuple):
    """One token sequence of a hotword.

    Attributes:
        ids: Its token ids.
        inside: Whether it may follow a word character, because it begins with a space, for example.
        closed: Whether a word character behind it would make it a part of another word.
    """

    ids: tuple[int, ...]
    inside: bool
    closed: bool


def spellings(hotword: str) -> list[str]:
    """Return a hotword as written, and in lower, upper and title case: models differ in their case.

    Args:
        hotword: The hotword.

    Returns:
        Up to four different texts.
    """
    words = hotword.split()
    title = " ".join(word[:1].upper() + word[1:].lower() for word in words)
    text = " ".join(words)
    return list(dict.fromkeys([text, text.lower(), text.upper(), title]))


def phrases(hotwords: Iterable[str], tokenizer: PreTrainedTokenizerBase, table: Sequence[bytes | None]) -> list[Phrase]:
    """Tokenise hotwords in all their spellings and contexts.

    Args:
        hotwords: Words and phrases.
        tokenizer: The model's tokenizer.
        table: The bytes of each id (see `tokenization.token_bytes`).

    Returns:
        The different token sequences.

    Raises:
        UserError: A hotword is empty, or cannot be written in the model's tokens.
    """
    texts = [unicodedata.normalize("NFC", hotword).strip() for hotword in hotwords]
    if not all(texts):
        raise UserError("--hotwords: holds an empty hotword; each must have a character; remove it")
    contexts = [(text, before, spelling) for text in texts for spelling in spellings(text) for before in CONTEXTS]
    joined = [before + spelling for _, before, spelling in contexts]
    options = {"add_special_tokens": False, "padding": False, "truncation": False, "return_attention_mask": False}
    encoded = tokenizer(joined, **options)["input_ids"]
    found: dict[Phrase, None] = {}
    written = set()
    for (text, before, spelling), ids in zip(contexts, encoded, strict=True):
        if phrase := _phrase(before, spelling, ids, table):
            found[phrase] = None
            written.add((text, spelling))
    missing = [text for text in texts if (text, spellings(text)[0]) not in written]
    _require_all(list(dict.fromkeys(missing)), tokenizer)
    return list(found)


def _phrase(before: str, spelling: str, ids: Sequence[int], table: Sequence[bytes | None]) -> Phrase | None:
    """Return the sequence, without a token that holds nothing but the context. None: these ids are another text."""
    tokens = [table[i] for i in ids]
    if any(token is None for token in tokens):
        return None
    text = b"".join(token for token in tokens if token is not None).decode(errors="replace")
    if text.lstrip(" ") != (before + spelling).lstrip(" "):
        return None
    if before and tokens[0] == before.encode():
        ids, text = ids[1:], spelling
    return Phrase(tuple(ids), not is_word_character(text[0]), is_word_character(text[-1]))


def _require_all(missing: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    if not missing:
        return
    more = f" and {len(missing) - EXAMPLES} more" if len(missing) > EXAMPLES else ""
    raise UserError(
        f"--hotwords {', '.join(missing[:EXAMPLES])}{more}: the tokenizer of {tokenizer.name_or_path or 'the model'} "
        "cannot write this; allowed is text in characters of the tokenizer, without special tokens; remove or correct "
        "it"
    )

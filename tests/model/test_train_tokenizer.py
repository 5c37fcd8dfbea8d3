"""Tokenizers are trained on any text: characters beyond the vocabulary fall back to bytes, empty text is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.errors import UserError
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS, token_bytes
from arkasr.model.train_tokenizer import spelled_in_bytes, train_byte_bpe, train_sentencepiece


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


HANZI = [chr(0x4E00 + (7 * i) % 3000) for i in range(3000)]
CASE = Path(__file__).parents[3] / "shared" / "cases" / "09-hanzi-vocabulary" / "corpus" / "data_aishell" / "transcript"


@pytest.mark.parametrize(
    ("train", "size"), [(train_sentencepiece, 200), (train_sentencepiece, 3), (train_byte_bpe, 300)]
)
def test_text_with_more_characters_than_the_vocabulary_falls_back_to_bytes(train, size):
    texts = [f"{a}{b}\u7684 a word \u7684{a}" for a, b in zip(HANZI, reversed(HANZI))]
    tokenizer = train(texts, size)
    extra = 257 + len(ARK_TOKENS) if train is train_sentencepiece else len(QWEN_TOKENS)
    assert len(tokenizer) <= size + extra
    for text in [texts[0], texts[1500], texts[-1]]:
        assert text_of(tokenizer, ids_of(tokenizer, text)) == text
        assert b"".join(token_bytes(tokenizer)[i] for i in ids_of(tokenizer, text)) == text.encode()
    assert len(ids_of(tokenizer, "\u7684")) == 1, "the most frequent character has a token"
    split, different, share = spelled_in_bytes(tokenizer, texts)
    assert 2500 < split < different == 3000 + len(set("\u7684 a word")) and 0.1 < share < 0.9


def test_spelled_in_bytes_counts_by_hand():
    tokenizer = train_sentencepiece(["abc abc abc \u4f60"], 40)
    assert spelled_in_bytes(tokenizer, ["a\u4f60b", "\u597d\u597d"]) == (1, 4, 2 / 5)
    assert spelled_in_bytes(tokenizer, []) == (0, 0, 0.0)


@pytest.mark.parametrize(("train", "size"), [(train_sentencepiece, 200), (train_byte_bpe, 600)])
def test_each_han_character_is_a_token_of_its_own(train, size):
    texts = ["今天老师想吃面", "明天老师想吃面 at HOME", "今天 iPhone好用々"] * 50
    tokenizer = train(texts, size)
    for text in texts[:3]:
        spelled = [tokenizer.decode([i]) for i in ids_of(tokenizer, text)]
        assert [token for token in spelled if any(han in token for han in "今天老师想吃面明好用々")] == [
            char for char in text if char in "今天老师想吃面明好用々"
        ]
    assert any("HOME" in tokenizer.decode([i]) for i in ids_of(tokenizer, texts[1])), "other scripts are merged"


def test_sentencepiece_keeps_a_tenth_of_its_pieces_for_words():
    tokenizer = train_sentencepiece([f"{char}the sea" for char in HANZI], 100)
    pieces = [token for token in tokenizer.get_vocab() if not token.startswith("<")]
    assert sum(len(piece) == 1 for piece in pieces) == 90 and any(len(piece) > 1 for piece in pieces)


@pytest.mark.skipif(not CASE.is_dir(), reason="needs ../shared/cases/09-hanzi-vocabulary")
@pytest.mark.parametrize(("train", "size"), [(train_sentencepiece, 200), (train_byte_bpe, 600)])
def test_mandarin_corpus_trains_a_tokenizer_of_the_mini_recipe(train, size):
    lines = [line for file in CASE.rglob("*.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    texts = ["".join(line.split()[1:]) for line in lines]
    assert len(set("".join(texts))) > size
    tokenizer = train(texts, size)
    assert all(text_of(tokenizer, ids_of(tokenizer, text)) == text for text in texts)


@pytest.mark.parametrize("train", [train_sentencepiece, train_byte_bpe])
@pytest.mark.parametrize("texts", [[], [""], ["  ", "\t\n"]])
def test_empty_text_is_refused(train, texts):
    with pytest.raises(UserError, match="text to train a tokenizer on is empty; set tokenizer.text"):
        train(texts, 300)


@pytest.mark.parametrize("train", [train_sentencepiece, train_byte_bpe])
@pytest.mark.parametrize(
    "text",
    ["a", "one sentence", "x" * 9000, "a\u2585b", "a\tb\rc\nd", "\0a", "\ufeffhello", "\u2028 x \x85", "\U0001f600"],
)
@pytest.mark.parametrize("size", [256, 8000])
def test_one_short_or_odd_sentence_trains_a_tokenizer(train, text, size):
    tokenizer = train([text], size)
    assert text_of(tokenizer, ids_of(tokenizer, text)) == text


def test_impossible_vocabularies_and_texts_are_refused():
    with pytest.raises(UserError, match="`tokenizer.vocab_size` must be at least 256, got 255"):
        train_byte_bpe(["a b"], 255)
    with pytest.raises(UserError, match="`tokenizer.vocab_size` must be at least 1, got 0"):
        train_sentencepiece(["a b"], 0)
    for train in (train_sentencepiece, train_byte_bpe):
        with pytest.raises(UserError, match=r"transcript 'a\\ud800' is not valid Unicode"):
            train(["a\ud800"], 300)

"""The trained tokenizers restore the text they encode, and token_bytes gives the bytes of every id."""

from __future__ import annotations

import io
import re
import unicodedata
from functools import lru_cache

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import TEXTS, bpe_bytes, piece_bytes, student_tokenizer, teacher_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from arkasr.errors import UserError
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS, SPACE, token_bytes
from arkasr.model.train_tokenizer import train_byte_bpe, train_sentencepiece

MIXED = st.text(
    st.one_of(
        st.sampled_from("the quick brown fox  'AZ09.,?"),
        st.sampled_from("\u4f60\u597d\u4e16\u754c\u4eca\u5929\u9f98\uff0c\u3002"),
        st.sampled_from("\U0001f600\U0001f468\u200d\U0001f469\ufe0f\u00e9\u0301\u00df\u0130"),
        st.characters(exclude_categories=["Cs"], exclude_characters=SPACE),
    ),
    max_size=30,
).filter(lambda text: not re.search("<.+>", text))  # "<s>" or "<0x41>" would be one special token or byte
KINDS = {"sentencepiece": (student_tokenizer, piece_bytes), "byte_bpe": (teacher_tokenizer, bpe_bytes)}


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(MIXED)
@example("  two  spaces ")
@example(" ")
@example("")
@example("line\nbreak\ttab\r\n")
@example("hello \u4e16\u754c \U0001f600")
def test_sentencepiece_restores_the_text(text):
    tokenizer = student_tokenizer()
    ids = ids_of(tokenizer, text)
    assert text_of(tokenizer, ids) == text
    assert b"".join(token_bytes(tokenizer)[i] for i in ids) == text.encode()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(MIXED)
@example("  two  spaces ")
@example("caf\u0065\u0301")
@example("hello \u4e16\u754c \U0001f600")
def test_byte_bpe_restores_the_composed_text(text):
    tokenizer, composed = teacher_tokenizer(), unicodedata.normalize("NFC", text)
    ids = ids_of(tokenizer, text)
    assert text_of(tokenizer, ids) == composed
    assert b"".join(token_bytes(tokenizer)[i] for i in ids) == composed.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_token_bytes_covers_ordinary_tokens_only(kind):
    make_tokenizer, bytes_of = KINDS[kind]
    table, expected = token_bytes(make_tokenizer()), bytes_of(make_tokenizer())
    assert len(table) == len(make_tokenizer())
    assert {i: b for i, b in enumerate(table) if b is not None} == expected
    assert {b for b in expected.values() if len(b) == 1} == {bytes([i]) for i in range(256)}


@pytest.mark.parametrize(("kind", "tokens"), [("sentencepiece", ARK_TOKENS), ("byte_bpe", QWEN_TOKENS)])
def test_each_special_token_is_one_id(kind, tokens):
    tokenizer = KINDS[kind][0]()
    ids = ids_of(tokenizer, "".join(tokens))
    assert tokenizer.convert_ids_to_tokens(ids) == tokens and len(set(ids)) == len(tokens)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"


def test_unknown_piece_is_special():
    tokenizer = student_tokenizer()
    unknown = tokenizer.get_vocab()["<unk>"]
    assert tokenizer.unk_token_id == unknown and token_bytes(tokenizer)[unknown] is None
    assert text_of(tokenizer, [unknown]) == ""


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), None])
def test_token_bytes_refuses_other_tokenizers(decoder):
    plain = Tokenizer(models.WordPiece({"a": 0, "##b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    if decoder:
        plain.decoder = decoder
    with pytest.raises(UserError, match="neither byte-level BPE nor SentencePiece"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]"))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tokenizer_loads_unchanged(kind, tmp_path):
    tokenizer = KINDS[kind][0]()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab() and len(loaded) == len(tokenizer)
    assert loaded.added_tokens_decoder == tokenizer.added_tokens_decoder
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert token_bytes(loaded) == token_bytes(tokenizer)
    special = "".join(ARK_TOKENS if kind == "sentencepiece" else QWEN_TOKENS)
    plain = ["the quick fox", " lead and trail ", "\u4eca\u5929 hello \U0001f600", "x\u0301y \u9f98", ""]
    for text in [*plain, f"a{special}b"]:
        ids = ids_of(tokenizer, text)
        assert ids_of(loaded, text) == ids
        assert text_of(loaded, ids) == text_of(tokenizer, ids)


def test_byte_bpe_splits_words_like_qwen():
    pieces = teacher_tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str("iPhone 15 don't\n\u4f60\u597d!")
    letters = {c: b for b, c in enumerate_letters()}
    words = [bytes(letters[c] for c in piece).decode() for piece, _ in pieces]
    assert words == ["iPhone", " ", "1", "5", " don", "'t", "\n", "\u4f60\u597d", "!"]


def enumerate_letters():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode().items()


def test_trained_tokenizers_have_the_requested_size():
    texts = ["a b c d e f g h the cat sat on the mat"] * 5
    assert len(train_byte_bpe(texts, 262)) == 262 + len(QWEN_TOKENS)
    pieces = train_sentencepiece(texts, 24)
    assert len(pieces) <= 24 + 257 + len(ARK_TOKENS)


def test_sentencepiece_encodes_an_unseen_character_as_bytes():
    tokenizer = train_sentencepiece(["only plain words here"] * 3, 30)
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "\u4f60")) == ["<0xE4>", "<0xBD>", "<0xA0>"]


def reference_sentencepiece(texts, vocab_size):
    """Train SentencePiece's own processor with the options of `train_sentencepiece`, Han characters as symbols."""
    model = io.BytesIO()
    options = {"byte_fallback": True, "character_coverage": 1.0, "normalization_rule_name": "identity"}
    options |= {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "hard_vocab_limit": False}
    options |= {"bos_id": -1, "eos_id": -1, "minloglevel": 2, "num_threads": 1, "model_type": "bpe"}
    options["user_defined_symbols"] = sorted({c for c in "".join(texts) if "\u4e00" <= c <= "\u9fff"})
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab_size + 257, **options
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@lru_cache
def both_sentencepieces():
    return train_sentencepiece(TEXTS, 120), reference_sentencepiece(TEXTS, 120)


WORDS = [*" ".join(TEXTS).split(), *"thequickfoxes \u4f60\u597d\u4eca\u5929\u9f98\u00e9"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=8))
@example([" ", "the", " "])
@example([" ", " ", "sea", " ", " ", "shore"])
def test_train_sentencepiece_gives_the_pieces_of_sentencepiece(words):
    tokenizer, reference = both_sentencepieces()
    for text in ("".join(words), " ".join(words)):
        assert ids_of(tokenizer, text) == reference.encode(text)
